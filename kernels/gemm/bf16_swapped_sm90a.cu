// GEMM of 16-bit floats for few rows: out[M, N] = A[M, K] * B[N, K]^T with the operands swapped, so that weights fill the
// 64-row side of wgmma and BM tokens are its N. The time of such a product is the time of its weights' bytes: the ring
// of stages is deep, and arithmetic hides behind it.
//
// One output tile is BM tokens by BN weight rows. A cluster of blocks may share a tile: each takes a contiguous part of K,
// then rank r finishes every size-th token from all partial sums, added in the order of the ranks. So the split changes
// how sums round; the tile does not: alone, a block gives the bits of the kernel that is not swapped.
//
// B may have either dimension adjacent, A has adjacent columns. Types are bf16 or f16, known at run time.
//
// Variants: BM (16, 32 or 64 tokens), BN (64 weight rows), STAGES, BLOCKS (per multiprocessor), THREADS, SHARED and
// GROUP_BYTES (of the launch).
#include "abi.h"
#include "gemm/early_weights.cuh"
#include "gemm/half_loop.cuh"
#include "gemm/row_pieces.cuh"
#include "gemm/split_sums.cuh"
#include "ptx/cluster.cuh"
#include "ptx/grid.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "tile/groups.cuh"
#include "tile/pipeline.cuh"
#include "tile/warp_roles.cuh"

using namespace ng;

namespace {

constexpr uint32_t kMathWarps = 4;
constexpr uint32_t kThreads = 2 * tile::kWarpgroup;
constexpr uint32_t kBytesWeights = gemm::kHalfPartBytes;
constexpr uint32_t kBytesStage = kBytesWeights + BM * gemm::kHalfBlockK * 2;
constexpr int kProducerRegisters = 40;
constexpr int kMathRegisters = 208;
// Partial sums as rows of tokens. The padding sends the 4 x 8 words of a warp's store to 32 banks.
constexpr uint32_t kPartialRow = BN + 4;
static_assert(BN == gemm::kHalfPart, "one copy of weights");

// Shared memory, from its start.
constexpr uint32_t kPartialAt = STAGES * kBytesStage;
constexpr uint32_t kPipelineAt = kPartialAt + BM * kPartialRow * 4;
constexpr uint32_t kExchangeAt = kPipelineAt + tile::Pipeline<STAGES>::kBytes;
constexpr uint32_t kGroupsAt = kExchangeAt + gemm::SumExchange<kMathWarps>::kBytes;
static_assert(THREADS == kThreads && SHARED == kGroupsAt && GROUP_BYTES == tile::Groups::kBytesPerGroup, "the launch");

using Loop = gemm::HalfLoop<BM, STAGES, kBytesStage>;
using tile::Tile;
using Work = tile::Work<BM, BN, ~0u>;

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) NG_ENTRY(const __grid_constant__ NgFp8GemmParams p) {
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t ranks = ptx::cluster_size();
    const uint32_t base = ptx::shared_address(shared);
    const tile::Pipeline<STAGES> pipeline{base + kPipelineAt};
    const gemm::SumExchange<kMathWarps> exchange{base + kExchangeAt, ranks};
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.a);
        ptx::prefetch_tensormap(&p.b);
        exchange.init();
        pipeline.init(kMathWarps);
    }
    const bool transposed = (p.flags & NG_GEMM_B_TRANSPOSED) != 0;
    if (threadIdx.x == 32) {
        const gemm::KPart part(p.k, gemm::kHalfBlockK);
        gemm::prefetch_weights<STAGES>(
            Work::known(shared + kGroupsAt, p), part, [&](const Tile& tile, uint32_t k_block) {
                const uint32_t k = k_block * gemm::kHalfBlockK;
                ptx::tma_prefetch_3d(&p.b, transposed ? tile.column : k, transposed ? k : tile.column, tile.group);
            });
    }
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();
    const gemm::KPart part(p.k, gemm::kHalfBlockK);
    const uint32_t first_block = part.first, own_blocks = part.blocks;
    const Work work = Work::prepare(shared + kGroupsAt, p);
    if (ranks > 1) ptx::cluster_barrier();
    const auto tile_at = [&](uint32_t step, Tile& tile) {
        return work.at((blockIdx.x + step * gridDim.x) / ranks, tile);
    };

    if (threadIdx.x < tile::kWarpgroup) {
        ptx::set_max_registers_decrease<kProducerRegisters>();
        if (threadIdx.x != 0) return;
        tile::PipelinePosition<STAGES> at;
        Tile tile;
        for (uint32_t step = 0; tile_at(step, tile); ++step) {
            // Weights that no later tile wants make room in L2 for what others do.
            const uint64_t policy = tile.row_end - tile.row <= BM ? ptx::kEvictFirst : ptx::kEvictNormal;
            for (uint32_t block = 0; block < own_blocks; ++block, at.advance()) {
                const uint32_t k = (first_block + block) * gemm::kHalfBlockK;
                pipeline.wait_empty(at);
                const uint32_t full = pipeline.full(at.stage);
                const uint32_t stage = base + at.stage * kBytesStage;
                ptx::mbarrier_arrive_expect_tx(full, kBytesStage);
                ptx::tma_load_3d_hinted(stage, &p.b, full, transposed ? tile.column : k, transposed ? k : tile.column,
                                        tile.group, policy);
                ptx::tma_load_3d_hinted(stage + kBytesWeights, &p.a, full, k, tile.row, tile.batch, ptx::kEvictLast);
            }
        }
        return;
    }

    ptx::set_max_registers_increase<kMathRegisters>();
    const tile::Consumer me;
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t warp = threadIdx.x / 32 - 4;
    Loop loop{pipeline, base, base + kBytesWeights, me.leader, {}};
    float* const partial = reinterpret_cast<float*>(shared + kPartialAt);
    // Weights take A's place in the instruction.
    const uint32_t form = (p.flags & NG_GEMM_F16) | (p.flags & NG_GEMM_B_TRANSPOSED ? NG_GEMM_A_TRANSPOSED : 0u);
    Tile tile;
    uint32_t step = 0;
    for (; tile_at(step, tile); ++step) {
        Loop::Sums sums;
#pragma unroll
        for (float& sum : sums) sum = 0.0f;
        gemm::with_half_form<false>(form, [&](auto form) { loop.run(sums, own_blocks, form); });

        // The sums are transposed: this thread holds weight rows `me.row` and 8 more of tokens `me.column` and 1 more
        // of every eight.
        exchange.before_write(step);
        float* const mine = partial + me.column * kPartialRow + me.row;
#pragma unroll
        for (int i = 0; i < BM / 2; ++i) mine[(i / 4 * 8 + i % 2) * kPartialRow + i / 2 % 2 * 8] = sums[i];
        exchange.before_read(step);

        constexpr uint32_t kLanes = BN / 4;  // of a token
        constexpr uint32_t kTokensAtOnce = kMathWarps * 32 / kLanes;
        const uint32_t piece = lane % kLanes * 4;
#pragma unroll 1
        for (uint32_t first = 0; first < BM; first += kTokensAtOnce) {
            const uint32_t token = (first + warp * (32 / kLanes) + lane / kLanes) * ranks + part.rank;
            const uint32_t row = tile.row + token;
            const bool exists = token < BM && row < tile.row_end;
            float values[4] = {0, 0, 0, 0};
            if (exists) gemm::total_piece(values, partial, token * kPartialRow + piece, ranks);
            gemm::finish_piece<kLanes>(
                p, values, {tile.group, tile.batch, row, tile.column + piece, uint64_t(tile.batch) * p.rows + row, exists});
        }
        exchange.after_read();
    }
    exchange.before_exit(step);
}
