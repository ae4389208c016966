// FP8 GEMM with block scales: out[M, N] = A[M, K] * B[N, K]^T, dense or in contiguous groups of rows.
//
// A carries one f32 scale per row and 128 of K, B one per 128x128 block. The tensor core sums FP8 products in fewer
// bits than f32, so every 128 of K is scaled and added to f32 registers.
//
// Variants: BM (64 or 128 rows), BN (64 or 128 columns; it divides 128, so a tile has one B scale per K block),
// STAGES, OUT_F32, GROUPED, BLOCKS (per multiprocessor).
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/groups.cuh"
#include "tile/pipeline.cuh"
#include "tile/store.cuh"
#include "tile/warp_roles.cuh"

using namespace ng;

namespace {

constexpr uint32_t kBlockK = 128;
constexpr uint32_t kConsumers = BM / 64;
constexpr uint32_t kThreads = (1 + kConsumers) * tile::kWarpgroup;
constexpr uint32_t kBytesA = BM * kBlockK;
constexpr uint32_t kBytesB = BN * kBlockK;
constexpr uint32_t kBytesStage = kBytesA + kBytesB;
// Registers move from the producer to the consumers; the sum stays what the block was launched with.
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = BM == 128 ? 232 : 208;
static_assert(128 % BN == 0, "a tile must not straddle two B scales");

#if OUT_F32
using Out = float;
#else
using Out = tile::Bf16;
#endif

struct Tile {
    uint32_t row;      // first row
    uint32_t row_end;  // end of the group
    uint32_t column;
    uint32_t group;
};

struct Schedule {
    uint32_t columns;
    uint32_t total;
#if GROUPED
    tile::Groups groups;
#else
    uint32_t row_tiles;
    uint32_t rows;
#endif

    // Rows vary fastest, so that neighbours share a tile of B.
    __device__ __forceinline__ Tile at(uint32_t index) const {
        Tile result;
#if GROUPED
        result.group = groups.find(index / columns);
        const uint32_t before = groups.tiles_before(result.group);
        const uint32_t count = groups.tiles_before(result.group + 1) - before;
        const uint32_t local = index - before * columns;
        result.row = groups.row_begin(result.group) + local % count * BM;
        result.row_end = groups.row_end(result.group);
        result.column = local / count * BN;
#else
        result.group = 0;
        result.row = index % row_tiles * BM;
        result.row_end = rows;
        result.column = index / row_tiles * BN;
#endif
        return result;
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) NG_ENTRY(const __grid_constant__ NgFp8GemmParams p) {
    extern __shared__ __align__(1024) uint8_t shared[];
    ptx::grid_dependency_wait();

    const uint32_t base = ptx::shared_address(shared);
    const tile::Pipeline<STAGES> pipeline{base + STAGES * kBytesStage};
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.a);
        ptx::prefetch_tensormap(&p.b);
        pipeline.init(kConsumers * 4);
    }
    Schedule schedule;
    schedule.columns = (p.n + BN - 1) / BN;
#if GROUPED
    schedule.groups = tile::Groups::in(shared + STAGES * kBytesStage + pipeline.kBytes, p.groups);
    if (threadIdx.x < 32) schedule.groups.build(p.offsets, p.rows, BM, blockIdx.x == 0 ? p.status : nullptr);
    __syncthreads();
    schedule.total = schedule.groups.tiles_before(p.groups) * schedule.columns;
#else
    __syncthreads();
    schedule.row_tiles = (p.rows + BM - 1) / BM;
    schedule.rows = p.rows;
    schedule.total = schedule.row_tiles * schedule.columns;
#endif

    tile::PipelinePosition<STAGES> at;
    if (threadIdx.x < tile::kWarpgroup) {
        ptx::set_max_registers_decrease<kProducerRegisters>();
        if (threadIdx.x != 0) return;
        for (uint32_t index = blockIdx.x; index < schedule.total; index += gridDim.x) {
            const Tile tile = schedule.at(index);
            for (uint32_t block = 0; block < p.k_blocks; ++block, at.advance()) {
                pipeline.wait_empty(at);
                const uint32_t full = pipeline.full(at.stage);
                const uint32_t stage = base + at.stage * kBytesStage;
                ptx::mbarrier_arrive_expect_tx(full, kBytesStage);
                ptx::tma_load_3d(stage, &p.a, full, block * kBlockK, tile.row, 0);
                ptx::tma_load_3d(stage + kBytesA, &p.b, full, block * kBlockK, tile.column, tile.group);
            }
        }
        return;
    }

    ptx::set_max_registers_increase<kConsumerRegisters>();
    const tile::Consumer me;
    const uint64_t a_start = tile::descriptor_k_major_128(base + me.warpgroup * 64 * kBlockK);
    const uint64_t b_start = tile::descriptor_k_major_128(base + kBytesA);
    for (uint32_t index = blockIdx.x; index < schedule.total; index += gridDim.x) {
        const Tile tile = schedule.at(index);
        const uint32_t row = tile.row + me.warpgroup * 64 + me.row;
        const bool low_row = row < tile.row_end;
        const bool high_row = row + 8 < tile.row_end;
        const float* a_scale = p.a_scales + static_cast<int64_t>(row) * p.a_scales_row_stride;
        const float* b_scale = p.b_scales + tile.group * p.b_scales_group_stride +
                               static_cast<int64_t>(tile.column / 128) * p.b_scales_row_stride;
        // Scales are read one K block ahead, so that their latency hides behind the tensor core.
        float low_scale = 0, high_scale = 0, column_scale = 0;
        const auto load_scales = [&] {
            if (low_row) low_scale = *a_scale;
            if (high_row) high_scale = a_scale[8 * p.a_scales_row_stride];
            column_scale = *b_scale;
        };
        load_scales();

        float sum[BN / 2];
#pragma unroll
        for (int i = 0; i < BN / 2; ++i) sum[i] = 0;
#pragma unroll 1
        for (uint32_t block = 0; block < p.k_blocks; ++block, at.advance()) {
            const float low = low_scale * column_scale;
            const float high = high_scale * column_scale;
            if (block + 1 < p.k_blocks) {
                a_scale += p.a_scales_block_stride;
                b_scale += p.b_scales_block_stride;
                load_scales();
            }
            pipeline.wait_full(at);
            const uint64_t a = tile::descriptor_advance(a_start, at.stage * kBytesStage);
            const uint64_t b = tile::descriptor_advance(b_start, at.stage * kBytesStage);
            float product[BN / 2];
            ptx::wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                ptx::wgmma_e4m3<BN>(product, tile::descriptor_advance(a, k * 32), tile::descriptor_advance(b, k * 32), k != 0);
            }
            ptx::wgmma_commit_group();
            ptx::wgmma_wait_group<0>();
            ptx::pin_registers(product);
            if (me.leader) pipeline.release(at);
#pragma unroll
            for (int i = 0; i < BN / 2; ++i) sum[i] = __fmaf_rn(product[i], (i & 2) ? high : low, sum[i]);
        }
        tile::store_accumulators<BN>(sum, static_cast<Out*>(p.out), p.out_row_stride, row, tile.row_end,
                                     tile.column + me.column, p.n, p.paired_stores != 0);
    }
}
