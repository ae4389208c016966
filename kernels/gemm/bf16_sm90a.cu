// Batched bf16 GEMM: out[b] = A[b] * B[b]^T for A[batch, M, K] and B[batch, N, K], f32 sums.
//
// Variants: BM (64 or 128 rows), BN (64 or 128 columns), STAGES, OUT_F32, BLOCKS (per multiprocessor), THREADS and SHARED
// (of the launch).
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/pipeline.cuh"
#include "tile/store.cuh"
#include "tile/warp_roles.cuh"

using namespace ng;

namespace {

constexpr uint32_t kBlockK = 64;
constexpr uint32_t kRowBytes = kBlockK * 2;
constexpr uint32_t kConsumers = BM / 64;
constexpr uint32_t kThreads = (1 + kConsumers) * tile::kWarpgroup;
constexpr uint32_t kBytesA = BM * kRowBytes;
constexpr uint32_t kBytesB = BN * kRowBytes;
constexpr uint32_t kBytesStage = kBytesA + kBytesB;
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = BM == 128 ? 232 : 208;
static_assert(THREADS == kThreads && SHARED == STAGES * kBytesStage + tile::Pipeline<STAGES>::kBytes, "the launch");

#if OUT_F32
using Out = float;
#else
using Out = tile::Bf16;
#endif

struct Tile {
    uint32_t row;
    uint32_t column;
    uint32_t batch;
};

// Rows vary fastest, so that neighbours share a tile of B.
__device__ __forceinline__ Tile tile_at(uint32_t index, uint32_t row_tiles, uint32_t column_tiles) {
    const uint32_t rest = index / row_tiles;
    return {index % row_tiles * BM, rest % column_tiles * BN, rest / column_tiles};
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) NG_ENTRY(const __grid_constant__ NgBf16GemmParams p) {
    extern __shared__ __align__(1024) uint8_t shared[];
    ptx::grid_dependency_wait();

    const uint32_t base = ptx::shared_address(shared);
    const tile::Pipeline<STAGES> pipeline{base + STAGES * kBytesStage};
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.a);
        ptx::prefetch_tensormap(&p.b);
        pipeline.init(kConsumers * 4);
    }
    __syncthreads();

    const uint32_t row_tiles = (p.m + BM - 1) / BM;
    const uint32_t column_tiles = (p.n + BN - 1) / BN;
    const uint32_t total = row_tiles * column_tiles * p.batch;
    tile::PipelinePosition<STAGES> at;
    if (threadIdx.x < tile::kWarpgroup) {
        ptx::set_max_registers_decrease<kProducerRegisters>();
        if (threadIdx.x != 0) return;
        for (uint32_t index = blockIdx.x; index < total; index += gridDim.x) {
            const Tile tile = tile_at(index, row_tiles, column_tiles);
            for (uint32_t block = 0; block < p.k_blocks; ++block, at.advance()) {
                pipeline.wait_empty(at);
                const uint32_t full = pipeline.full(at.stage);
                const uint32_t stage = base + at.stage * kBytesStage;
                ptx::mbarrier_arrive_expect_tx(full, kBytesStage);
                ptx::tma_load_3d(stage, &p.a, full, block * kBlockK, tile.row, tile.batch);
                ptx::tma_load_3d(stage + kBytesA, &p.b, full, block * kBlockK, tile.column, tile.batch);
            }
        }
        return;
    }

    ptx::set_max_registers_increase<kConsumerRegisters>();
    const tile::Consumer me;
    const uint64_t a_start = tile::descriptor_k_major_128(base + me.warpgroup * 64 * kRowBytes);
    const uint64_t b_start = tile::descriptor_k_major_128(base + kBytesA);
    for (uint32_t index = blockIdx.x; index < total; index += gridDim.x) {
        const Tile tile = tile_at(index, row_tiles, column_tiles);
        float sum[BN / 2];
#pragma unroll
        for (int i = 0; i < BN / 2; ++i) sum[i] = 0;
#pragma unroll 1
        for (uint32_t block = 0; block < p.k_blocks; ++block, at.advance()) {
            pipeline.wait_full(at);
            const uint64_t a = tile::descriptor_advance(a_start, at.stage * kBytesStage);
            const uint64_t b = tile::descriptor_advance(b_start, at.stage * kBytesStage);
            ptx::pin_registers(sum);
            ptx::wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                ptx::wgmma_bf16<BN>(sum, tile::descriptor_advance(a, k * 32), tile::descriptor_advance(b, k * 32), 1);
            }
            ptx::wgmma_commit_group();
            ptx::wgmma_wait_group<0>();
            ptx::pin_registers(sum);
            if (me.leader) pipeline.release(at);
        }
        tile::store_accumulators<BN>(sum, static_cast<Out*>(p.out) + tile.batch * p.out_batch_stride, p.out_row_stride,
                                     tile.row + me.warpgroup * 64 + me.row, p.m, tile.column + me.column, p.n,
                                     p.paired_stores != 0);
    }
}
