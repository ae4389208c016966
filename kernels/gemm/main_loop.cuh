// What a math warpgroup does with a tile's k-blocks: products of FP8 on the tensor core, one k-block at a time, each
// scaled and added to f32 sums. The tensor core is kept busy by the other warpgroup of the multiprocessor.
//
// Whole rounds of the ring of stages are straight-line code, in which every address is a constant from a base; k-blocks
// before and after them take their stage from a register. No accumulator is in flight across a branch.
#pragma once
#include <stdint.h>

#include "gemm/scales.cuh"
#include "ptx/cluster.cuh"
#include "ptx/warp.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/pipeline.cuh"

namespace ng::gemm {

// A stage: Rows x 128 bytes of A, then Columns x 128 bytes of each of Sides parts of B; its products of scales stand
// elsewhere. With two sides a thread holds the sums of an element of each at the same index of two waves.
template <int Rows, int Columns, int Stages, int Cluster, bool AE5m2, bool BE5m2, int Sides = 1>
struct MainLoop {
    static constexpr int kWarpgroups = Rows >= 128 ? 2 : 1;
    // A warpgroup's 64-row parts, which lie 64 * kWarpgroups rows apart.
    static constexpr int kParts = Rows / 64 / kWarpgroups;
    // What it multiplies one after the other in a k-block: parts, or sides.
    static constexpr int kWaves = kParts * Sides;
    static constexpr uint32_t kBytesA = Rows * 128;
    static constexpr uint32_t kBytesStage = kBytesA + Sides * Columns * 128;
    static_assert(kParts == 1 || Sides == 1, "waves go over one of them");
    using Sums = float[kWaves][Columns / 2];

    tile::Pipeline<Stages> pipeline;
    uint32_t a, b;          // lower words of the descriptors of stage 0
    const float* products;  // of stage 0, this thread's first
    uint32_t released;      // the barrier that says so to this lane's block of the cluster
    bool releases;
    tile::PipelinePosition<Stages> at;

    // `warpgroup` is the same register in all lanes. `row`: the thread's first row in its wave.
    __device__ __forceinline__ MainLoop(tile::Pipeline<Stages> pipeline, uint32_t stages, const float* products,
                                        uint32_t warpgroup, uint32_t row)
        : pipeline(pipeline) {
        const uint32_t lane = ptx::lane_id();
        a = uint32_t(tile::descriptor_k_major_128(stages + warpgroup * 64 * 128));
        b = uint32_t(tile::descriptor_k_major_128(stages + kBytesA));
        this->products = products + scale_slot(warpgroup * 64 + row);
        releases = lane < Cluster;
        released = Cluster == 1 ? pipeline.empty(0) : ptx::cluster_address(pipeline.empty(0), lane % Cluster);
    }

    // One tile. `waves` of this warpgroup have rows; with two sides none or both.
    __device__ __forceinline__ void run(Sums& sums, uint32_t k_blocks, uint32_t waves) {
#pragma unroll
        for (int wave = 0; wave < kWaves; ++wave) {
#pragma unroll
            for (float& sum : sums[wave]) sum = 0.0f;
        }
        uint32_t left = k_blocks;
        if (waves == 0) {
            for (; left != 0; --left, at.advance()) {
                pipeline.wait_full(at);
                release(at.stage);
            }
            return;
        }
        if constexpr (Sides == 1) {
            if (waves < kWaves) {
#pragma unroll 1
                for (; left != 0; --left, at.advance()) k_block<1>(sums, at.stage);
                return;
            }
        }
#pragma unroll 1
        while (left != 0) {
            if (at.stage == 0 && left >= Stages) {
#pragma unroll 1
                do {
#pragma unroll
                    for (uint32_t stage = 0; stage < Stages; ++stage) k_block<kWaves>(sums, stage);
                    at.phase ^= 1;
                    left -= Stages;
                } while (left >= Stages);
            } else {
                k_block<kWaves>(sums, at.stage);
                at.advance();
                --left;
            }
        }
    }

private:
    static constexpr uint32_t kScalesApart = Sides == 1 ? 64 * kWarpgroups : Rows;
    static constexpr uint32_t kWaveBytesA = Sides == 1 ? 64 * kWarpgroups * 128 : 0;
    static constexpr uint32_t kWaveBytesB = Sides == 1 ? 0 : Columns * 128;

    __device__ __forceinline__ void release(uint32_t stage) const {
        ptx::warp_barrier();
        if (!releases) return;
        if constexpr (Cluster == 1) {
            ptx::mbarrier_arrive(released + stage * 8);
        } else {
            ptx::cluster_mbarrier_release(released + stage * 8);
        }
    }

    template <int Waves>
    __device__ __forceinline__ void k_block(Sums& sums, uint32_t stage) const {
        ptx::mbarrier_wait_parity(pipeline.full(stage), at.phase);
        float2 scales[Waves];
#pragma unroll
        for (int wave = 0; wave < Waves; ++wave) {
            scales[wave] = *reinterpret_cast<const float2*>(products + stage * (Rows * Sides) + wave * kScalesApart);
        }
        // Descriptors are made where they are used: kept for every stage, they would fill the register file.
        uint32_t starts[2] = {a, b};
        ptx::pin_registers(starts);
        const uint64_t a_stage = tile::descriptor_of(starts[0] + stage * (kBytesStage / 16));
        const uint64_t b_stage = tile::descriptor_of(starts[1] + stage * (kBytesStage / 16));
#pragma unroll
        for (int wave = 0; wave < Waves; ++wave) {
            float product[Columns / 2];
            ptx::wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                ptx::wgmma_fp8<Columns, AE5m2, BE5m2>(product,
                                                      tile::descriptor_advance(a_stage, wave * kWaveBytesA + k * 32),
                                                      tile::descriptor_advance(b_stage, wave * kWaveBytesB + k * 32), k != 0);
            }
            ptx::wgmma_commit_group();
            ptx::wgmma_wait_group<0>();
            ptx::pin_registers(product);
            // Before the sums, so that the next copies fly while they are made.
            if (wave == Waves - 1) release(stage);
#pragma unroll
            for (int i = 0; i < Columns / 2; ++i) {
                sums[wave][i] = __fmaf_rn(product[i], (i & 2) ? scales[wave].y : scales[wave].x, sums[wave][i]);
            }
        }
    }
};

}  // namespace ng::gemm
