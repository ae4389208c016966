// FP8 GEMM with block scales: out[M, N] = A[M, K] * B[N, K]^T, dense or in contiguous groups of rows.
//
// A carries one f32 scale per row and 128 of K, B one per 128x128 block. The tensor core sums FP8 products in fewer
// bits than f32, so every 128 of K is scaled and added to f32 registers.
//
// Variants: BM (64 or 128 rows), BN (64 or 128 columns; it divides 128, so a tile has one B scale per K block),
// STAGES, OUT_F32, GROUPED, BLOCKS (per multiprocessor), THREADS, SHARED and GROUP_BYTES (of the launch).
#include "abi.h"
#include "gemm/scales.cuh"
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
constexpr uint32_t kBytesProducts = STAGES * BM * 4;
// Registers move from the producer to the consumers; the sum stays what the block was launched with.
constexpr int kProducerRegisters = 56;
constexpr int kConsumerRegisters = BM == 128 ? 224 : 200;
static_assert(128 % BN == 0, "a tile must not straddle two B scales");
static_assert(THREADS == kThreads, "the launch");
static_assert(SHARED == STAGES * kBytesStage + kBytesProducts + tile::Pipeline<STAGES>::kBytes, "the launch");
#if GROUPED
static_assert(GROUP_BYTES == tile::Groups::kBytesPerGroup, "the launch");
#endif

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
    uint32_t k_blocks;
};

using Products = gemm::ScaleProducts<BM>;

struct Schedule {
    uint32_t columns;
    uint32_t total;
    uint32_t k_blocks;
#if GROUPED
    tile::Groups groups;
#else
    uint32_t row_tiles;
    uint32_t rows;
#endif

    // Rows vary fastest, so that neighbours share a tile of B.
    __device__ __forceinline__ Tile at(uint32_t index) const {
        Tile result;
        result.k_blocks = k_blocks;
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
    const tile::Pipeline<STAGES> pipeline{base + STAGES * kBytesStage + kBytesProducts};
    float* const products = reinterpret_cast<float*>(shared + STAGES * kBytesStage);
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.a);
        ptx::prefetch_tensormap(&p.b);
        pipeline.init(kConsumers * 4, gemm::kFullArrivals);
    }
    Schedule schedule;
    schedule.k_blocks = (p.k + kBlockK - 1) / kBlockK;
    schedule.columns = (p.n + BN - 1) / BN;
#if GROUPED
    schedule.groups = tile::Groups::in(shared + STAGES * kBytesStage + kBytesProducts + pipeline.kBytes, p.groups);
    if (threadIdx.x < 32) schedule.groups.build(reinterpret_cast<const int32_t*>(p.offsets), p.rows, BM,
                                                     blockIdx.x == 0 ? reinterpret_cast<uint32_t*>(p.status) : nullptr);
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
        if (threadIdx.x >= 32) {
            const gemm::Scales a_scales{p.a_scales, (p.flags & NG_GEMM_A_SCALES_UE8M0) != 0};
            const gemm::Scales b_scales{p.b_scales, (p.flags & NG_GEMM_B_SCALES_UE8M0) != 0};
            gemm::stream_scales<Products, Tile>(
                pipeline,
                [&](uint32_t step, Tile& tile) {
                    const uint32_t index = blockIdx.x + step * gridDim.x;
                    if (index >= schedule.total) return false;
                    tile = schedule.at(index);
                    return true;
                },
                [&](Products& values, const Tile& tile, uint32_t block) {
                    values.load(a_scales, tile.row * p.a_scales_row_stride + block * p.a_scales_block_stride,
                                p.a_scales_row_stride, tile.row_end - tile.row, b_scales,
                                tile.group * p.b_scales_group_stride + tile.column / 128 * p.b_scales_row_stride +
                                    block * p.b_scales_block_stride,
                                0, 1);
                },
                [&](const Products& values, uint32_t stage) {
                    values.store(a_scales, b_scales, products + stage * Products::kFloats);
                });
        }
        if (threadIdx.x != 0) return;
        for (uint32_t index = blockIdx.x; index < schedule.total; index += gridDim.x) {
            const Tile tile = schedule.at(index);
            for (uint32_t block = 0; block < schedule.k_blocks; ++block, at.advance()) {
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
    const float* const my_products = products + gemm::scale_slot(me.warpgroup * 64 + me.row);
    for (uint32_t index = blockIdx.x; index < schedule.total; index += gridDim.x) {
        const Tile tile = schedule.at(index);
        const uint32_t row = tile.row + me.warpgroup * 64 + me.row;
        float sum[BN / 2];
#pragma unroll
        for (int i = 0; i < BN / 2; ++i) sum[i] = 0;
#pragma unroll 1
        for (uint32_t block = 0; block < schedule.k_blocks; ++block, at.advance()) {
            pipeline.wait_full(at);
            const float2 scale = *reinterpret_cast<const float2*>(my_products + at.stage * Products::kFloats);
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
            ptx::warp_barrier();
            if (me.leader) pipeline.release(at);
#pragma unroll
            for (int i = 0; i < BN / 2; ++i) sum[i] = __fmaf_rn(product[i], (i & 2) ? scale.y : scale.x, sum[i]);
        }
        tile::store_accumulators<BN>(sum, reinterpret_cast<Out*>(p.out), p.out_row_stride, row, tile.row_end,
                                     tile.column + me.column, p.n, (p.flags & NG_GEMM_PAIRED_STORES) != 0);
    }
}
