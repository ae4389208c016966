// FP8 GEMM with block scales: out[M, N] = A[M, K] * B[N, K]^T for rows in any NgGemmMode.
//
// A carries a scale per row and 128 of K, B one per 128x128 block. The tensor core sums FP8 products in fewer bits than
// f32, so every 128 of K is scaled and added to f32 registers.
//
// Roles: the first thread copies tiles of A and B into a ring of stages, the other warps of its warpgroup put products
// of scales beside them (scales.cuh), one or two warpgroups of math (main_loop.cuh) sum and store (epilogue.cuh). A
// cluster of two blocks takes two tiles that follow each other along M: each copies half of their common B into both.
// Both go through the same k-blocks in the same stages, also when one of them has no rows; then the other copies B alone.
//
// With two sides (SWIGLU) a tile is BM rows by BN columns of gates and the same columns of ups, BM = 128: B has the N rows
// of gates first and those of ups behind them, and the output is SwiGLU of both sums, quantised.
//
// Variants: BM (64, 128 or 256 rows), BN (64 or 128 columns; it divides 128, so a tile has one B scale per k-block),
// STAGES, BLOCKS (per multiprocessor), CLUSTER (1 or 2), SWIGLU, A_E5M2 and B_E5M2 (0, and e4m3, where they are not
// given), and of the launch THREADS, SHARED and GROUP_BYTES.
#include "abi.h"
#include "gemm/epilogue.cuh"
#include "gemm/gather.cuh"
#include "gemm/main_loop.cuh"
#include "gemm/scales.cuh"
#include "ptx/cluster.cuh"
#include "ptx/grid.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "tile/groups.cuh"
#include "tile/notices.cuh"
#include "tile/pipeline.cuh"
#include "tile/warp_roles.cuh"

#ifndef A_E5M2
#define A_E5M2 0
#endif
#ifndef SWIGLU
#define SWIGLU 0
#endif
#ifndef B_E5M2
#define B_E5M2 0
#endif

using namespace ng;

namespace {

constexpr uint32_t kSides = SWIGLU ? 2 : 1;
// Two waves of a warpgroup leave few registers to the others.
constexpr bool kTall = BM * kSides == 256;
using Loop = gemm::MainLoop<BM, BN, STAGES, CLUSTER, A_E5M2, B_E5M2, kSides>;
// Two blocks of 64 rows share a multiprocessor's memory.
constexpr uint32_t kPieceRow = BM == 64 ? 64 : 128;
using Epilogue = gemm::Epilogue<BN, kPieceRow>;
using Products = gemm::ScaleProducts<BM, kSides>;
using Pipeline = tile::Pipeline<STAGES>;
// A cluster's tiles follow each other along M.
using Work = tile::Work<BM * CLUSTER, BN, (BM * CLUSTER >= 256 ? 8 : 16)>;

constexpr uint32_t kBlockK = 128;
constexpr uint32_t kPartRows = 64;  // of A in one copy; parts without rows are not copied
constexpr uint32_t kPartBytes = kPartRows * kBlockK;
constexpr uint32_t kShareRows = BN / CLUSTER;  // of B in one copy
constexpr uint32_t kShareBytes = kShareRows * kBlockK;
constexpr uint32_t kMathWarps = Loop::kWarpgroups * 4;
constexpr uint32_t kThreads = (1 + Loop::kWarpgroups) * tile::kWarpgroup;
// Registers move from the producer to the math warps; the sum stays what the block was launched with.
constexpr int kProducerRegisters = kTall ? 40 : 56;
constexpr int kMathRegisters = kTall ? 232 : BM == 64 ? 200 : 224;

// Of scales in registers. The k-blocks of tall tiles last so long that three hide a load.
constexpr int kDepth = kTall ? 1 : 2;

// Shared memory, from its start.
constexpr uint32_t kPiecesAt = STAGES * Loop::kBytesStage;
constexpr uint32_t kProductsAt = kPiecesAt + kMathWarps * Epilogue::kBytes;
constexpr uint32_t kNoticesAt = kProductsAt + STAGES * Products::kFloats * 4;
constexpr uint32_t kPipelineAt = kNoticesAt + tile::Notices::kBytes;
constexpr uint32_t kGroupsAt = kPipelineAt + Pipeline::kBytes;
static_assert(128 % BN == 0, "a tile must not straddle two B scales");
static_assert(CLUSTER == 1 || CLUSTER == 2, "blocks that share B");
static_assert(THREADS == kThreads && SHARED == kGroupsAt && GROUP_BYTES == tile::Groups::kBytesPerGroup, "the launch");

// Tiles of this block, one a step.
struct Walk {
    Work work;

    static __device__ __forceinline__ uint32_t rank() { return blockIdx.x % CLUSTER; }

    __device__ __forceinline__ bool operator()(uint32_t step, tile::Tile& tile) const {
        if (!work.at(blockIdx.x / CLUSTER + step * (gridDim.x / CLUSTER), tile)) return false;
        tile.row += rank() * BM;
        return true;
    }
};

__device__ __forceinline__ void copy_tiles(const NgFp8GemmParams& p, const Pipeline& pipeline, tile::Notices notices,
                                           const Walk& walk, uint32_t base) {
    tile::PipelinePosition<STAGES> at;
    tile::Tile tile;
    for (uint32_t step = 0; notices.put(walk(step, tile), tile); ++step) {
        const uint32_t parts = (tile.rows_from(tile.row, BM) + kPartRows - 1) / kPartRows;
        const bool shared = CLUSTER == 2 && tile.row - walk.rank() * BM + BM < tile.row_end;
        const bool copies_b = parts != 0;
        // Other warps copy rows that a list names.
        const uint32_t copied = p.gather != 0 ? 0 : parts;
        const uint32_t bytes = copied * kPartBytes + (copies_b ? Loop::kBytesStage - Loop::kBytesA : 0);
        for (uint32_t block = 0; block < tile.k_blocks; ++block, at.advance()) {
            pipeline.wait_empty(at);
            const uint32_t full = pipeline.full(at.stage);
            const uint32_t a = base + at.stage * Loop::kBytesStage;
            const uint32_t b = a + Loop::kBytesA;
            const uint32_t k = block * kBlockK;
            ptx::mbarrier_arrive_expect_tx(full, bytes);
#pragma unroll
            for (uint32_t part = 0; part < BM / kPartRows; ++part) {
                if (part < copied) {
                    ptx::tma_load_3d(a + part * kPartBytes, &p.a, full, k, tile.row + part * kPartRows, tile.batch);
                }
            }
            if (shared) {
#pragma unroll
                for (uint32_t side = 0; side < kSides; ++side) {
                    const uint32_t share = side * CLUSTER + walk.rank();
                    ptx::tma_load_3d_multicast(b + share * kShareBytes, &p.b, full, k,
                                               tile.column + side * p.n + walk.rank() * kShareRows, tile.group,
                                               (1 << CLUSTER) - 1);
                }
            } else if (copies_b) {
#pragma unroll
                for (uint32_t share = 0; share < kSides * CLUSTER; ++share) {
                    ptx::tma_load_3d(b + share * kShareBytes, &p.b, full, k,
                                     tile.column + share / CLUSTER * p.n + share % CLUSTER * kShareRows, tile.group);
                }
            }
        }
    }
}

__device__ __forceinline__ void write_products(const NgFp8GemmParams& p, const Pipeline& pipeline, const Walk& walk,
                                               float* products, uint32_t base) {
    // Of the parameters, not of the tile: the tall tiles have no register left for it.
    const auto count = [&](const tile::Tile&) { return (p.k + kBlockK - 1) / kBlockK; };
    if (p.gather != 0) {
        gemm::stream_gathered<Products, tile::Tile, BM, Loop::kBytesStage, kTall>(
            p, pipeline, base, products, 0, kSides == 1 ? 0 : p.n / 128 * p.b_scales_row_stride, walk, count,
            [](const Products& values, const gemm::Scales& a_scales, const gemm::Scales& b_scales, float* to) {
                values.store(a_scales, b_scales, to);
            });
        return;
    }
    const gemm::Scales a_scales{p.a_scales, (p.flags & NG_GEMM_A_SCALES_UE8M0) != 0};
    const gemm::Scales b_scales{p.b_scales, (p.flags & NG_GEMM_B_SCALES_UE8M0) != 0};
    gemm::stream_scales<Products, tile::Tile, kDepth>(
        pipeline, walk, count,
        [&](Products& values, const tile::Tile& tile, uint32_t block) {
            values.load(a_scales,
                        // A group is a batch of A wherever there is a stride.
                        tile.group * p.a_scales_batch_stride + tile.row * p.a_scales_row_stride +
                            block * p.a_scales_block_stride,
                        p.a_scales_row_stride, tile.rows_from(tile.row, BM), b_scales,
                        tile.group * p.b_scales_group_stride + tile.column / 128 * p.b_scales_row_stride +
                            block * p.b_scales_block_stride,
                        kSides == 1 ? 0 : p.n / 128 * p.b_scales_row_stride, kSides);
        },
        [&](const Products& values, uint32_t stage) {
            values.store(a_scales, b_scales, products + stage * Products::kFloats);
        });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) NG_ENTRY(const __grid_constant__ NgFp8GemmParams p) {
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t base = ptx::shared_address(shared);
    const Pipeline pipeline{base + kPipelineAt};
    float* const products = reinterpret_cast<float*>(shared + kProductsAt);
    tile::Notices notices(shared + kNoticesAt);
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.a);
        ptx::prefetch_tensormap(&p.b);
        pipeline.init(kMathWarps * CLUSTER, gemm::kFullArrivals);
        notices.init(kMathWarps);
    }
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();

    const Walk walk{Work::prepare(shared + kGroupsAt, p)};
    // No block arrives at barriers of another before they are made.
    if constexpr (CLUSTER > 1) ptx::cluster_barrier();

    if (threadIdx.x < tile::kWarpgroup) {
        ptx::set_max_registers_decrease<kProducerRegisters>();
        if (threadIdx.x >= 32) {
            write_products(p, pipeline, walk, products, base);
        } else if (threadIdx.x == 0) {
            copy_tiles(p, pipeline, notices, walk, base);
        }
    } else {
        ptx::set_max_registers_increase<kMathRegisters>();
        const tile::Consumer me;
        const uint32_t warpgroup = ptx::shuffle_index(me.warpgroup, 0);
        Loop loop(pipeline, base, products, warpgroup, me.row);
        while (notices.wait()) {
            uint32_t waves = 0;
#pragma unroll
            for (int part = 0; part < Loop::kParts; ++part) {
                waves += notices.has_row(warpgroup * 64 + part * 64 * Loop::kWarpgroups);
            }
            waves *= kSides;
            Loop::Sums sums;
            loop.run(sums, (p.k + kBlockK - 1) / kBlockK, waves);
            const tile::Tile tile = notices.tile();
            // Found out anew: while the tensor core works, every register counts.
            uint32_t thread[1] = {threadIdx.x};
            ptx::pin_registers(thread);
            const uint32_t warp = thread[0] / 32 - 4;
            const Epilogue epilogue{p, shared + kPiecesAt + warp * Epilogue::kBytes, thread[0] % 32};
            uint32_t row = tile.row + warpgroup * 64 + warp % 4 * 16;
            if constexpr (kSides == 2) {
                if (ptx::any(row < tile.row_end)) epilogue.run_swiglu(sums[0], sums[1], tile, row);
            } else {
                // One epilogue in the code, however many parts.
#pragma unroll 1
                for (; waves != 0; --waves, row += 64 * Loop::kWarpgroups) {
                    if (ptx::any(row < tile.row_end)) epilogue.run(sums[0], tile, row);
#pragma unroll
                    for (int wave = 1; wave < Loop::kWaves; ++wave) {
#pragma unroll
                        for (int i = 0; i < BN / 2; ++i) sums[wave - 1][i] = sums[wave][i];
                    }
                }
            }
            notices.release();
        }
    }
    // Its barriers and its shared memory belong to the other block too.
    if constexpr (CLUSTER > 1) {
        ptx::warp_barrier();
        ptx::cluster_barrier();
    }
}
