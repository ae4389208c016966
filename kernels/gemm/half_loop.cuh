// What a math warpgroup does with a tile's k-blocks of 16-bit floats: the tensor core adds them all to one set of f32
// sums, which stay in its hands from k-block to k-block.
//
// Whole rounds of the ring of stages are straight-line code, in which every address is a constant from a base, the next
// k-block is at work before the one before is waited for, and the last one is waited for: no accumulator is in flight
// across the loop's back edge. K-blocks before and after the rounds take their stage from a register.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/warp.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/pipeline.cuh"

namespace ng::gemm {

// A k-block: as many elements as the swizzle spans.
constexpr uint32_t kHalfBlockK = 64;
// 64 rows of an operand and a k-block, whichever of the two is adjacent in memory: what one copy brings.
constexpr uint32_t kHalfPart = 64;
constexpr uint32_t kHalfPartBytes = kHalfPart * kHalfBlockK * 2;

// Of wgmma's forms: what the two operands in shared memory are.
template <bool F16, int TransposeA, int TransposeB>
struct HalfForm {};

// Calls `use` with the form that the flags of a product name; without BothTransposed, B is never transposed.
template <bool BothTransposed = true, class Use>
__device__ __forceinline__ void with_half_form(uint32_t flags, Use use) {
    constexpr uint32_t kForms = NG_GEMM_F16 | NG_GEMM_A_TRANSPOSED | (BothTransposed ? NG_GEMM_B_TRANSPOSED : 0);
    switch (flags & kForms) {
        case 0: return use(HalfForm<false, 0, 0>{});
        case NG_GEMM_A_TRANSPOSED: return use(HalfForm<false, 1, 0>{});
        case NG_GEMM_F16: return use(HalfForm<true, 0, 0>{});
        case NG_GEMM_F16 | NG_GEMM_A_TRANSPOSED: return use(HalfForm<true, 1, 0>{});
    }
    if constexpr (BothTransposed) {
        switch (flags & kForms) {
            case NG_GEMM_B_TRANSPOSED: return use(HalfForm<false, 0, 1>{});
            case NG_GEMM_A_TRANSPOSED | NG_GEMM_B_TRANSPOSED: return use(HalfForm<false, 1, 1>{});
            case NG_GEMM_F16 | NG_GEMM_B_TRANSPOSED: return use(HalfForm<true, 0, 1>{});
            default: return use(HalfForm<true, 1, 1>{});
        }
    }
}

// A and B of wgmma, whose N columns of sums are the product's columns, or, operands swapped, its rows.
template <int N, int Stages, uint32_t BytesStage>
struct HalfLoop {
    using Sums = float[N / 2];

    tile::Pipeline<Stages> pipeline;
    uint32_t a, b;  // where they are in stage 0
    bool leader;
    tile::PipelinePosition<Stages> at;

    // One tile.
    template <bool F16, int TransposeA, int TransposeB>
    __device__ __forceinline__ void run(Sums& sums, uint32_t left, HalfForm<F16, TransposeA, TransposeB> form) {
#pragma unroll 1
        while (left != 0) {
            if (at.stage == 0 && left >= Stages) {
#pragma unroll 1
                do {
                    ptx::pin_registers(sums);
#pragma unroll
                    for (uint32_t stage = 0; stage < Stages; ++stage) {
                        multiply(sums, stage, form);
                        if (stage > 0) {
                            ptx::wgmma_wait_group<1>();
                            release(stage - 1);
                        }
                    }
                    finish(sums, Stages - 1);
                    at.phase ^= 1;
                    left -= Stages;
                } while (left >= Stages);
            } else {
                ptx::pin_registers(sums);
                multiply(sums, at.stage, form);
                finish(sums, at.stage);
                at.advance();
                --left;
            }
        }
    }

    // The same k-blocks for warps that have no rows in the tile.
    __device__ __forceinline__ void skip(uint32_t left) {
        for (; left != 0; --left, at.advance()) {
            pipeline.wait_full(at);
            release(at.stage);
        }
    }

private:
    __device__ __forceinline__ void release(uint32_t stage) const {
        ptx::warp_barrier();
        if (leader) ptx::mbarrier_arrive(pipeline.empty(stage));
    }

    __device__ __forceinline__ void finish(Sums& sums, uint32_t stage) const {
        ptx::wgmma_wait_group<0>();
        ptx::pin_registers(sums);
        release(stage);
    }

    // The lower word of a descriptor. Between neighbouring 64s of M or N lies one part.
    template <int Transpose>
    static __device__ __forceinline__ uint32_t start(uint32_t shared) {
        return (shared & 0x3FFFF) >> 4 | (Transpose ? kHalfPartBytes >> 4 : 1u) << 16;
    }

    template <bool F16, int TransposeA, int TransposeB>
    __device__ __forceinline__ void multiply(Sums& sums, uint32_t stage, HalfForm<F16, TransposeA, TransposeB>) const {
        ptx::mbarrier_wait_parity(pipeline.full(stage), at.phase);
        // Descriptors are made where they are used: kept for every stage, they would fill the register file.
        uint32_t starts[2] = {start<TransposeA>(a), start<TransposeB>(b)};
        ptx::pin_registers(starts);
        const uint64_t a_stage = tile::descriptor_of(starts[0] + stage * (BytesStage / 16));
        const uint64_t b_stage = tile::descriptor_of(starts[1] + stage * (BytesStage / 16));
        // 16 of K: bytes of a row, or as many rows.
        constexpr uint32_t kStepA = TransposeA ? 16 * 128 : 32;
        constexpr uint32_t kStepB = TransposeB ? 16 * 128 : 32;
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            ptx::wgmma_half<N, F16, TransposeA, TransposeB>(sums, tile::descriptor_advance(a_stage, k * kStepA),
                                                            tile::descriptor_advance(b_stage, k * kStepB), 1);
        }
        ptx::wgmma_commit_group();
    }
};

}  // namespace ng::gemm
