// FP8 GEMM with block scales for few rows: out[M, N] = A[M, K] * B[N, K]^T with the operands swapped, so that weights
// fill the 64-row side of wgmma and BM tokens are its N. The time of such a product is the time of its weights' bytes:
// the ring of stages is as deep as shared memory allows, and arithmetic hides behind it.
//
// One output tile is BM tokens by BN weight rows (64 for each math warpgroup). A cluster of blocks may share a tile:
// each takes a contiguous part of K, then rank r finishes every size-th token from all partial sums, added in the
// order of the ranks. So the split changes how sums round; the tile does not: alone, a block gives the bits of the
// kernel that is not swapped.
//
// With two sides (SWIGLU) a tile has BN gates and the ups of the same columns, BN = 128: B has the N rows of gates first
// and those of ups behind them. A warpgroup takes 64 of each in turn, and the output is SwiGLU of both sums, quantised.
//
// Variants: BM (8, 16, 32 or 64 tokens), BN (64 or 128 weight rows), STAGES, BLOCKS (per multiprocessor), SWIGLU (0 where
// it is not given), THREADS, SHARED and GROUP_BYTES (of the launch).
#include "abi.h"
#include "gemm/early_weights.cuh"
#include "gemm/gather.cuh"
#include "gemm/row_pieces.cuh"
#include "gemm/scales.cuh"
#include "gemm/split_sums.cuh"
#include "ptx/cluster.cuh"
#include "ptx/fence.cuh"
#include "ptx/grid.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/groups.cuh"
#include "tile/pipeline.cuh"
#include "tile/rows.cuh"
#include "tile/warp_roles.cuh"

#ifndef SWIGLU
#define SWIGLU 0
#endif

using namespace ng;

namespace {

constexpr uint32_t kSides = SWIGLU ? 2 : 1;
constexpr uint32_t kBlockK = 128;
constexpr uint32_t kMathWarpgroups = BN / 64;
constexpr uint32_t kMathWarps = kMathWarpgroups * 4;
constexpr uint32_t kThreads = (1 + kMathWarpgroups) * tile::kWarpgroup;
constexpr uint32_t kBytesSide = BN * kBlockK;
constexpr uint32_t kBytesWeights = kSides * kBytesSide;
constexpr uint32_t kBytesTokens = BM * kBlockK;
constexpr uint32_t kBytesStage = kBytesWeights + kBytesTokens;
// Registers move from the producer to the math warps; the sum stays what the block was launched with.
constexpr int kProducerRegisters = 56;
constexpr int kMathRegisters = BN == 128 ? 224 : 200;
// K-blocks of one straight-line body.
constexpr uint32_t kBody = 4;
// Partial sums as rows of tokens. The padding sends the 4 x 8 words of a warp's store to 32 banks.
constexpr uint32_t kPartialRow = kSides * BN + 4;
static_assert(128 % BN == 0, "a tile must not straddle two weight scales");
static_assert(kSides == 1 || BN == 128, "a fresh scale is of one tile");

// Shared memory, from its start.
constexpr uint32_t kPartialAt = STAGES * kBytesStage;
constexpr uint32_t kProductsAt = kPartialAt + BM * kPartialRow * 4;
constexpr uint32_t kPipelineAt = kProductsAt + STAGES * kSides * BM * 4;
constexpr uint32_t kExchangeAt = kPipelineAt + tile::Pipeline<STAGES>::kBytes;
constexpr uint32_t kGroupsAt = kExchangeAt + gemm::SumExchange<kMathWarps>::kBytes;
static_assert(THREADS == kThreads && SHARED == kGroupsAt && GROUP_BYTES == tile::Groups::kBytesPerGroup, "the launch");

using tile::Tile;
using Work = tile::Work<BM, BN, ~0u>;

// Where the products of tokens' scales stand: thread q of each four holds tokens 2q and 2q + 1 of every eight, and
// reads those of two eights at once.
__device__ __forceinline__ constexpr uint32_t token_slot(uint32_t token) {
    return BM == 8 ? token : (token & ~15u) | (token & 6u) << 1 | (token >> 3 & 1u) << 1 | (token & 1u);
}

struct Products : gemm::ScaleProducts<BM, kSides> {
    __device__ __forceinline__ void store_tokens(const gemm::Scales& tokens, const gemm::Scales& weights, float* to) const {
#pragma unroll
        for (uint32_t side = 0; side < kSides; ++side) {
            const float weight = weights.value(b[side]);
#pragma unroll
            for (uint32_t i = 0; i < kPerLane; ++i) {
                const uint32_t token = i * 32 + ptx::lane_id();
                if (token < BM) to[side * BM + token_slot(token)] = __fmul_rn(tokens.value(a[i]), weight);
            }
        }
    }
};

using Position = tile::PipelinePosition<STAGES>;
using Sums = float[kSides][BM / 2];

// What a math warp needs to go through stages.
struct Math {
    tile::Pipeline<STAGES> pipeline;
    uint64_t weights;  // descriptors of stage 0
    uint64_t tokens;
    const float* products;  // this thread's first, of stage 0
    bool leader;

    __device__ __forceinline__ void load_scales(float (&scales)[BM / 4], Position at, uint32_t side) const {
        const float* const from = products + (at.stage * kSides + side) * BM;
        if constexpr (BM == 8) {
            const float2 pair = *reinterpret_cast<const float2*>(from);
            scales[0] = pair.x;
            scales[1] = pair.y;
        } else {
#pragma unroll
            for (int i = 0; i < BM / 4; i += 4) {
                const float4 four = *reinterpret_cast<const float4*>(from + i * 4);
                scales[i] = four.x;
                scales[i + 1] = four.y;
                scales[i + 2] = four.z;
                scales[i + 3] = four.w;
            }
        }
    }

    __device__ __forceinline__ void multiply(float (&product)[BM / 2], Position at, uint32_t side) const {
        const uint64_t a = tile::descriptor_advance(weights, at.stage * kBytesStage + side * kBytesSide);
        const uint64_t b = tile::descriptor_advance(tokens, at.stage * kBytesStage);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            ptx::wgmma_e4m3<BM>(product, tile::descriptor_advance(a, 32 * k), tile::descriptor_advance(b, 32 * k), k != 0);
        }
        ptx::wgmma_commit_group();
    }

    // `Blocks` k-blocks without a branch that wgmma registers would cross: while the tensor core works on a side of one,
    // the side before is scaled and added. Two sets of registers take turns.
    template <int Blocks>
    __device__ __forceinline__ void run(Sums& sums, Position& at) const {
        constexpr int kSteps = Blocks * kSides;
        float product[2][BM / 2];
        float scales[2][BM / 4];
        Position before = at;
        const auto promote = [&](int step) {
            const int set = step % 2, side = step % kSides;
            ptx::pin_registers(product[set]);
            if (side == kSides - 1) {
                ptx::warp_barrier();
                if (leader) pipeline.release(before);
            }
#pragma unroll
            for (int i = 0; i < BM / 2; ++i) {
                sums[side][i] = __fmaf_rn(product[set][i], scales[set][i / 4 * 2 + i % 2], sums[side][i]);
            }
        };
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            const int side = step % kSides;
            if (side == 0) pipeline.wait_full(at);
            multiply(product[step % 2], at, side);
            load_scales(scales[step % 2], at, side);
            if (step > 0) {
                ptx::wgmma_wait_group<1>();
                promote(step - 1);
            }
            if (side == kSides - 1) {
                before = at;
                at.advance();
            }
        }
        ptx::wgmma_wait_group<0>();
        promote(kSteps - 1);
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) NG_ENTRY(const __grid_constant__ NgFp8GemmParams p) {
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t ranks = ptx::cluster_size();
    const uint32_t base = ptx::shared_address(shared);
    const tile::Pipeline<STAGES> pipeline{base + kPipelineAt};
    const gemm::SumExchange<kMathWarps> exchange{base + kExchangeAt, ranks};
    float* const products = reinterpret_cast<float*>(shared + kProductsAt);
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.a);
        ptx::prefetch_tensormap(&p.b);
        exchange.init();
        pipeline.init(kMathWarps, gemm::kFullArrivals);
    }
    if (threadIdx.x == 32) {
        const gemm::KPart part(p.k, kBlockK);
        gemm::prefetch_weights<STAGES>(
            Work::known(shared + kGroupsAt, p), part, [&](const Tile& tile, uint32_t k_block) {
#pragma unroll
                for (uint32_t side = 0; side < kSides; ++side) {
                    ptx::tma_prefetch_3d(&p.b, k_block * kBlockK, tile.column + side * p.n, tile.group);
                }
            });
    }
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();
    const gemm::KPart part(p.k, kBlockK);
    const uint32_t first_block = part.first, own_blocks = part.blocks;
    const Work work = Work::prepare(shared + kGroupsAt, p);
    if (ranks > 1) ptx::cluster_barrier();
    const auto tile_at = [&](uint32_t step, Tile& tile) {
        if (!work.at((blockIdx.x + step * gridDim.x) / ranks, tile)) return false;
        tile.k_blocks = own_blocks;
        return true;
    };

    Position at;
    if (threadIdx.x < tile::kWarpgroup) {
        ptx::set_max_registers_decrease<kProducerRegisters>();
        if (threadIdx.x >= 32 && p.gather != 0) {
            gemm::stream_gathered<Products, Tile, BM, kBytesStage>(
                p, pipeline, base + kBytesWeights, products, first_block,
                kSides == 1 ? 0 : p.n / 128 * p.b_scales_row_stride, tile_at,
                [](const Tile& tile) { return tile.k_blocks; },
                [](const Products& values, const gemm::Scales& tokens, const gemm::Scales& weights, float* to) {
                    values.store_tokens(tokens, weights, to);
                });
            return;
        }
        if (threadIdx.x >= 32) {
            const gemm::Scales a_scales{p.a_scales, (p.flags & NG_GEMM_A_SCALES_UE8M0) != 0};
            const gemm::Scales b_scales{p.b_scales, (p.flags & NG_GEMM_B_SCALES_UE8M0) != 0};
            gemm::stream_scales<Products, Tile>(
                pipeline, tile_at, [](const Tile& tile) { return tile.k_blocks; },
                [&](Products& values, const Tile& tile, uint32_t block) {
                    const int64_t k_block = first_block + block;
                    values.load(a_scales,
                                tile.batch * p.a_scales_batch_stride + tile.row * p.a_scales_row_stride +
                                    k_block * p.a_scales_block_stride,
                                p.a_scales_row_stride, tile.rows_from(tile.row, BM), b_scales,
                                tile.group * p.b_scales_group_stride + tile.column / 128 * p.b_scales_row_stride +
                                    k_block * p.b_scales_block_stride,
                                kSides == 1 ? 0 : p.n / 128 * p.b_scales_row_stride, kSides);
                },
                [&](const Products& values, uint32_t stage) {
                    values.store_tokens(a_scales, b_scales, products + stage * kSides * BM);
                });
            return;
        }
        if (threadIdx.x != 0) return;
        Tile tile;
        for (uint32_t step = 0; tile_at(step, tile); ++step) {
            // Weights that no later tile wants make room in L2 for what others do.
            const uint64_t policy = tile.row_end - tile.row <= BM ? ptx::kEvictFirst : ptx::kEvictNormal;
            for (uint32_t block = 0; block < tile.k_blocks; ++block, at.advance()) {
                const uint32_t k = (first_block + block) * kBlockK;
                pipeline.wait_empty(at);
                const uint32_t full = pipeline.full(at.stage);
                const uint32_t stage = base + at.stage * kBytesStage;
                ptx::mbarrier_arrive_expect_tx(full, p.gather != 0 ? kBytesWeights : kBytesStage);
#pragma unroll
                for (uint32_t side = 0; side < kSides; ++side) {
                    ptx::tma_load_3d_hinted(stage + side * kBytesSide, &p.b, full, k, tile.column + side * p.n, tile.group, policy);
                }
                // Other warps copy rows that a list names.
                if (p.gather == 0) {
                    ptx::tma_load_3d_hinted(stage + kBytesWeights, &p.a, full, k, tile.row, tile.batch, ptx::kEvictLast);
                }
            }
        }
        return;
    }

    ptx::set_max_registers_increase<kMathRegisters>();
    const tile::Consumer me;
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t warp = threadIdx.x / 32 - 4;
    const uint32_t warpgroup = ptx::warp_uniform(me.warpgroup);
    const Math math{pipeline, tile::descriptor_k_major_128(base + warpgroup * 64 * kBlockK),
                    tile::descriptor_k_major_128(base + kBytesWeights), products + lane % 4 * (BM == 8 ? 2 : 4), me.leader};
    float* const partial = reinterpret_cast<float*>(shared + kPartialAt);
    Tile tile;
    uint32_t step = 0;
    for (; tile_at(step, tile); ++step) {
        Sums sums;
#pragma unroll
        for (uint32_t side = 0; side < kSides; ++side) {
#pragma unroll
            for (float& sum : sums[side]) sum = 0;
        }
        uint32_t left = tile.k_blocks;
#pragma unroll 1
        for (; left >= kBody; left -= kBody) math.run<kBody>(sums, at);
        if (left & 2) math.run<2>(sums, at);
        if (left & 1) math.run<1>(sums, at);

        // The sums are transposed: this thread holds weight rows `me.row` and 8 more of tokens `me.column` and 1 more
        // of every eight.
        exchange.before_write(step);
        float* const mine = partial + me.column * kPartialRow + me.warpgroup * 64 + me.row;
#pragma unroll
        for (uint32_t side = 0; side < kSides; ++side) {
#pragma unroll
            for (int i = 0; i < BM / 2; ++i) mine[(i / 4 * 8 + i % 2) * kPartialRow + side * BN + i / 2 % 2 * 8] = sums[side][i];
        }
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
            const gemm::PiecePlace place{tile.group, tile.batch, row, tile.column + piece,
                                         uint64_t(tile.batch) * p.rows + row, exists};
            if constexpr (kSides == 1) {
                gemm::finish_piece<kLanes>(p, values, place);
            } else {
                float ups[4] = {0, 0, 0, 0};
                if (exists) gemm::total_piece(ups, partial, token * kPartialRow + BN + piece, ranks);
                gemm::finish_swiglu(p, values, ups, place);
            }
        }
        exchange.after_read();
    }
    exchange.before_exit(step);
}
