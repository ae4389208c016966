// FP8 GEMM with fine scales on both sides, for weight gradients: D[M, N] (+)= A[M, K] * B[N, K]^T, or one such product
// for each of several ranges of K.
//
// A and B carry a scale per row and 128 of K. Every 128 of K is summed by the tensor core, times the product of its two
// scales, and added to f32 registers. Each accumulator has a product of its own; they are formed while the tensor core
// works, so that one multiply-add per accumulator is left once it is done.
//
// Variants: BM (64 or 128 rows), BN (columns, a multiple of 32), STAGES, BLOCKS (per multiprocessor), A_E5M2 and B_E5M2
// (e4m3 where 0).
#include "abi.h"
#include "gemm/gradient_store.cuh"
#include "gemm/scales.cuh"
#include "ptx/grid.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/k_ranges.cuh"
#include "tile/pipeline.cuh"
#include "tile/warp_roles.cuh"

using namespace ng;

namespace {

constexpr uint32_t kBlockK = 128;
constexpr uint32_t kConsumers = BM / 64;
constexpr uint32_t kThreads = (1 + kConsumers) * tile::kWarpgroup;
constexpr uint32_t kBytesA = BM * kBlockK;
constexpr uint32_t kBytesStage = kBytesA + BN * kBlockK;
// Registers move from the producer to the consumers; the sum stays what the block was launched with.
constexpr int kProducerRegisters = 56;
constexpr int kConsumerRegisters = BM == 128 ? 224 : 200;

// Pairs of octets whose products of scales fit into registers beside the sums and what the tensor core writes.
constexpr int kShadow = (BM == 128 ? 5 : 4) * BN / 128;

using Scales = gemm::ScaleVectors<BM, BN>;
constexpr uint32_t kBytesScales = STAGES * Scales::kFloats * 4;
static_assert(THREADS == kThreads && GROUP_BYTES == tile::KRanges::kBytesPerGroup, "the launch");
// With the table of a single range.
static_assert(SHARED == STAGES * kBytesStage + kBytesScales + tile::Pipeline<STAGES>::kBytes + 2 * GROUP_BYTES, "the launch");

struct Tile {
    uint32_t row, column;
    uint32_t range;
    uint32_t first_block;  // of K
    uint32_t k_blocks;
};

// All tiles of the first range, then those of the next. Within one, bands of eight tiles of rows, so that what runs at
// once shares rows and columns.
struct Schedule {
    static constexpr uint32_t kBand = 8;
    const NgFp8GemmParams& p;
    tile::KRanges ranges;

    __device__ __forceinline__ bool at(uint32_t step, Tile& tile) const {
        const uint32_t row_tiles = (p.rows + BM - 1) / BM;
        const uint32_t column_tiles = (p.n + BN - 1) / BN;
        const uint32_t index = blockIdx.x + step * gridDim.x;
        if (index >= row_tiles * column_tiles * p.groups) return false;
        tile.range = index / (row_tiles * column_tiles);
        const uint32_t local = index - tile.range * row_tiles * column_tiles;
        const uint32_t band = local / (kBand * column_tiles) * kBand;
        const uint32_t in_band = local - band * column_tiles;
        const uint32_t rows = min(row_tiles - band, kBand);
        tile.row = (band + in_band % rows) * BM;
        tile.column = in_band / rows * BN;
        tile.first_block = ranges.first(tile.range);
        tile.k_blocks = ranges.count(tile.range);
        return true;
    }
};

// What a math warpgroup does with a k-block. `stage` is a constant in the unrolled loop, and so are the addresses.
struct Multiplier {
    tile::Pipeline<STAGES> pipeline;
    uint64_t a, b;        // descriptors of stage 0
    const float* scales;  // of stage 0
    uint32_t row;         // the thread's first scale of A
    uint32_t column;      // and of B
    bool leader;

    __device__ __forceinline__ void block(float (&sum)[BN / 2], uint32_t stage, uint32_t phase) const {
        ptx::mbarrier_wait_parity(pipeline.full(stage), phase);
        const uint64_t a_stage = tile::descriptor_advance(a, stage * kBytesStage);
        const uint64_t b_stage = tile::descriptor_advance(b, stage * kBytesStage);
        float product[BN / 2];
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            ptx::wgmma_fp8<BN, A_E5M2, B_E5M2>(product, tile::descriptor_advance(a_stage, k * 32),
                                               tile::descriptor_advance(b_stage, k * 32), k != 0);
        }
        ptx::wgmma_commit_group();
        const float* const from = scales + stage * Scales::kFloats;
        const float2 of_a = *reinterpret_cast<const float2*>(from + row);
        // In the shadow of the tensor core, as far as registers reach.
        float scale[kShadow * 8];
        float4 of_b[BN / 16 - kShadow];
#pragma unroll
        for (int pair = 0; pair < BN / 16; ++pair) {
            const float4 four = *reinterpret_cast<const float4*>(from + column + pair * 16);
            if (pair < kShadow) {
                products(of_a, four, scale + pair * 8);
            } else {
                of_b[pair - kShadow] = four;
            }
        }
        ptx::pin_registers(scale);
        ptx::wgmma_wait_group<0>();
        ptx::pin_registers(product);
        ptx::warp_barrier();
        if (leader) ptx::mbarrier_arrive(pipeline.empty(stage));
#pragma unroll
        for (int i = 0; i < kShadow * 8; ++i) sum[i] = __fmaf_rn(product[i], scale[i], sum[i]);
#pragma unroll
        for (int pair = kShadow; pair < BN / 16; ++pair) {
            float late[8];
            products(of_a, of_b[pair - kShadow], late);
#pragma unroll
            for (int i = 0; i < 8; ++i) sum[pair * 8 + i] = __fmaf_rn(product[pair * 8 + i], late[i], sum[pair * 8 + i]);
        }
    }

    // Of the eight accumulators in two neighbouring octets.
    static __device__ __forceinline__ void products(float2 of_a, float4 of_b, float* to) {
        to[0] = __fmul_rn(of_a.x, of_b.x);
        to[1] = __fmul_rn(of_a.x, of_b.y);
        to[2] = __fmul_rn(of_a.y, of_b.x);
        to[3] = __fmul_rn(of_a.y, of_b.y);
        to[4] = __fmul_rn(of_a.x, of_b.z);
        to[5] = __fmul_rn(of_a.x, of_b.w);
        to[6] = __fmul_rn(of_a.y, of_b.z);
        to[7] = __fmul_rn(of_a.y, of_b.w);
    }

    // No accumulator is in flight across a branch. Whole rounds of the ring are straight-line code.
    __device__ __forceinline__ void run(float (&sum)[BN / 2], tile::PipelinePosition<STAGES>& at, uint32_t k_blocks) const {
#pragma unroll
        for (float& value : sum) value = 0.0f;
        uint32_t left = ptx::warp_uniform(k_blocks);
#pragma unroll 1
        while (left != 0) {
            if (at.stage == 0 && left >= STAGES) {
#pragma unroll 1
                do {
#pragma unroll
                    for (uint32_t stage = 0; stage < STAGES; ++stage) block(sum, stage, at.phase);
                    at.phase ^= 1;
                    left -= STAGES;
                } while (left >= STAGES);
            } else {
                block(sum, at.stage, at.phase);
                at.advance();
                --left;
            }
        }
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) NG_ENTRY(const __grid_constant__ NgFp8GemmParams p) {
    extern __shared__ __align__(1024) uint8_t shared[];
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();

    const uint32_t base = ptx::shared_address(shared);
    const tile::Pipeline<STAGES> pipeline{base + STAGES * kBytesStage + kBytesScales};
    float* const scales = reinterpret_cast<float*>(shared + STAGES * kBytesStage);
    const tile::KRanges ranges{reinterpret_cast<uint32_t*>(shared + STAGES * kBytesStage + kBytesScales + pipeline.kBytes)};
    if (threadIdx.x < 32) {
        if (p.mode == NG_GEMM_K_GROUPED) {
            ranges.build(reinterpret_cast<const int32_t*>(p.offsets), p.groups, p.k,
                         blockIdx.x == 0 ? reinterpret_cast<uint32_t*>(p.status) : nullptr);
        } else if (threadIdx.x == 0) {
            ranges.build_one(p.k);
        }
    } else if (threadIdx.x == 32) {
        ptx::prefetch_tensormap(&p.a);
        ptx::prefetch_tensormap(&p.b);
        pipeline.init(kConsumers * 4, gemm::kFullArrivals);
    }
    __syncthreads();
    const Schedule schedule{p, ranges};

    tile::PipelinePosition<STAGES> at;
    Tile tile;
    if (threadIdx.x < tile::kWarpgroup) {
        ptx::set_max_registers_decrease<kProducerRegisters>();
        if (threadIdx.x >= 32) {
            const gemm::Scales a_scales{p.a_scales, (p.flags & NG_GEMM_A_SCALES_UE8M0) != 0};
            const gemm::Scales b_scales{p.b_scales, (p.flags & NG_GEMM_B_SCALES_UE8M0) != 0};
            gemm::stream_scales<Scales, Tile>(
                pipeline, [&](uint32_t step, Tile& tile) { return schedule.at(step, tile); },
                [](const Tile& tile) { return tile.k_blocks; },
                [&](Scales& values, const Tile& tile, uint32_t block) {
                    block += tile.first_block;
                    values.load(a_scales, tile.row * p.a_scales_row_stride + block * p.a_scales_block_stride,
                                p.a_scales_row_stride, p.rows - tile.row, b_scales,
                                tile.column * p.b_scales_row_stride + block * p.b_scales_block_stride,
                                p.b_scales_row_stride, p.n - tile.column);
                },
                [&](const Scales& values, uint32_t stage) {
                    values.store(a_scales, b_scales, scales + stage * Scales::kFloats);
                });
        }
        if (threadIdx.x != 0) return;
        for (uint32_t step = 0; schedule.at(step, tile); ++step) {
            uint32_t k = tile.first_block * kBlockK;
            for (uint32_t left = tile.k_blocks; left != 0; --left, k += kBlockK, at.advance()) {
                pipeline.wait_empty(at);
                const uint32_t full = pipeline.full(at.stage);
                const uint32_t stage = base + at.stage * kBytesStage;
                ptx::mbarrier_arrive_expect_tx(full, kBytesStage);
                ptx::tma_load_3d(stage, &p.a, full, k, tile.row, 0);
                ptx::tma_load_3d(stage + kBytesA, &p.b, full, k, tile.column, 0);
            }
        }
        return;
    }

    ptx::set_max_registers_increase<kConsumerRegisters>();
    const tile::Consumer me;
    const uint32_t first_row = ptx::warp_uniform(me.warpgroup) * 64;
    const Multiplier multiplier{
        pipeline,
        tile::descriptor_k_major_128(base + first_row * kBlockK),
        tile::descriptor_k_major_128(base + kBytesA),
        scales,
        gemm::scale_slot(first_row + me.row),
        BM + gemm::column_scale_slot(me.column),
        me.leader,
    };
    const bool accumulate = (p.flags & NG_GEMM_ACCUMULATE) != 0;
    for (uint32_t step = 0; schedule.at(step, tile); ++step) {
        // An empty sum adds nothing, not even a zero: the output is not touched.
        if (accumulate && tile.k_blocks == 0) continue;
        if (accumulate) {
            const uint32_t row = tile.row + first_row;
            gemm::prefetch_gradient<BN>(p, tile.range, row, tile.column, threadIdx.x % tile::kWarpgroup);
        }
        float sum[BN / 2];
        multiplier.run(sum, at, tile.k_blocks);
        // Found again rather than kept, since the sums need the registers.
        step = ptx::opaque(step);
        schedule.at(step, tile);
        gemm::store_gradient<BN>(sum, p, tile.range, tile.row + first_row + me.row, tile.column);
    }
}
