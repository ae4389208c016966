// GEMM of 16-bit floats: out[M, N] = A[M, K] * B[N, K]^T for bf16 or f16 and rows in any NgGemmMode, f32 sums.
//
// Either dimension of either operand may be the adjacent one: the tensor core takes both. Types and layouts are known at
// run time; a tile's k-blocks run in a loop made for theirs (half_loop.cuh).
//
// Roles: the first thread copies tiles of A and B into a ring of stages, one or two warpgroups of math sum and store
// (epilogue.cuh).
//
// Variants: BM (64 or 128 rows), BN (64, 128 or 256 columns), STAGES, BLOCKS (per multiprocessor), and of the launch
// THREADS, SHARED and GROUP_BYTES.
#include "abi.h"
#include "gemm/epilogue.cuh"
#include "gemm/half_loop.cuh"
#include "ptx/grid.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "tile/groups.cuh"
#include "tile/notices.cuh"
#include "tile/pipeline.cuh"
#include "tile/warp_roles.cuh"

using namespace ng;

namespace {

constexpr uint32_t kMathWarpgroups = BM / 64;
constexpr uint32_t kMathWarps = kMathWarpgroups * 4;
constexpr uint32_t kThreads = (1 + kMathWarpgroups) * tile::kWarpgroup;
constexpr uint32_t kPartsA = BM / gemm::kHalfPart;
constexpr uint32_t kPartsB = BN / gemm::kHalfPart;
constexpr uint32_t kBytesA = kPartsA * gemm::kHalfPartBytes;
constexpr uint32_t kBytesStage = kBytesA + kPartsB * gemm::kHalfPartBytes;
// Registers move from the producer to the math warps; the sum stays what the block was launched with.
constexpr int kProducerRegisters = 40;
constexpr int kMathRegisters = BM == 128 ? 232 : 208;

using Loop = gemm::HalfLoop<BN, STAGES, kBytesStage>;
// Two blocks of 64 rows share a multiprocessor's memory.
constexpr uint32_t kPieceRow = BM == 64 ? 64 : 128;
// Of 64 columns at a time: one epilogue in the code, however wide the tile.
constexpr int kFinished = 64;
using Epilogue = gemm::Epilogue<kFinished, kPieceRow>;
using Pipeline = tile::Pipeline<STAGES>;
using Work = tile::Work<BM, BN, 16>;

// Shared memory, from its start.
constexpr uint32_t kPiecesAt = STAGES * kBytesStage;
constexpr uint32_t kNoticesAt = kPiecesAt + kMathWarps * Epilogue::kBytes;
constexpr uint32_t kPipelineAt = kNoticesAt + tile::Notices::kBytes;
constexpr uint32_t kGroupsAt = kPipelineAt + Pipeline::kBytes;
static_assert(THREADS == kThreads && SHARED == kGroupsAt && GROUP_BYTES == tile::Groups::kBytesPerGroup, "the launch");

__device__ __forceinline__ void copy_tiles(const NgFp8GemmParams& p, const Pipeline& pipeline, tile::Notices notices,
                                           const Work& work, uint32_t base) {
    const bool a_transposed = (p.flags & NG_GEMM_A_TRANSPOSED) != 0;
    const bool b_transposed = (p.flags & NG_GEMM_B_TRANSPOSED) != 0;
    const auto copy = [](uint32_t to, const NgTensorMap& from, uint32_t full, bool transposed, uint32_t k, uint32_t row,
                         uint32_t batch) {
        ptx::tma_load_3d(to, &from, full, transposed ? row : k, transposed ? k : row, batch);
    };
    tile::PipelinePosition<STAGES> at;
    tile::Tile tile;
    for (uint32_t index = blockIdx.x; notices.put(work.at(index, tile), tile); index += gridDim.x) {
        // Parts of A without rows are not copied.
        const uint32_t parts = (tile.rows_from(tile.row, BM) + gemm::kHalfPart - 1) / gemm::kHalfPart;
        for (uint32_t k = 0; k < p.k; k += gemm::kHalfBlockK, at.advance()) {
            pipeline.wait_empty(at);
            const uint32_t full = pipeline.full(at.stage);
            const uint32_t a = base + at.stage * kBytesStage;
            ptx::mbarrier_arrive_expect_tx(full, (parts + kPartsB) * gemm::kHalfPartBytes);
#pragma unroll
            for (uint32_t part = 0; part < kPartsA; ++part) {
                if (part < parts) {
                    copy(a + part * gemm::kHalfPartBytes, p.a, full, a_transposed, k, tile.row + part * gemm::kHalfPart,
                         tile.batch);
                }
            }
#pragma unroll
            for (uint32_t part = 0; part < kPartsB; ++part) {
                copy(a + kBytesA + part * gemm::kHalfPartBytes, p.b, full, b_transposed, k,
                     tile.column + part * gemm::kHalfPart, tile.group);
            }
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) NG_ENTRY(const __grid_constant__ NgFp8GemmParams p) {
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t base = ptx::shared_address(shared);
    const Pipeline pipeline{base + kPipelineAt};
    tile::Notices notices(shared + kNoticesAt);
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.a);
        ptx::prefetch_tensormap(&p.b);
        pipeline.init(kMathWarps);
        notices.init(kMathWarps);
    }
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();

    const Work work = Work::prepare(shared + kGroupsAt, p);
    if (threadIdx.x < tile::kWarpgroup) {
        ptx::set_max_registers_decrease<kProducerRegisters>();
        if (threadIdx.x == 0) copy_tiles(p, pipeline, notices, work, base);
        return;
    }
    ptx::set_max_registers_increase<kMathRegisters>();
    const tile::Consumer me;
    const uint32_t warpgroup = ptx::warp_uniform(me.warpgroup);
    const uint32_t warp = threadIdx.x / 32 - 4;
    const Epilogue epilogue{p, shared + kPiecesAt + warp * Epilogue::kBytes, threadIdx.x % 32};
    Loop loop{pipeline, base + warpgroup * gemm::kHalfPartBytes, base + kBytesA, me.leader, {}};
    for (; notices.wait(); notices.release()) {
        const uint32_t k_blocks = (p.k + gemm::kHalfBlockK - 1) / gemm::kHalfBlockK;
        if (!notices.has_row(warpgroup * 64)) {
            loop.skip(k_blocks);
            continue;
        }
        Loop::Sums sums;
#pragma unroll
        for (float& sum : sums) sum = 0.0f;
        gemm::with_half_form(p.flags, [&](auto form) { loop.run(sums, k_blocks, form); });
        tile::Tile tile = notices.tile();
        const uint32_t row = tile.row + warpgroup * 64 + warp % 4 * 16;
        if (!ptx::any(row < tile.row_end)) continue;
        const uint32_t end = min(tile.column + BN, p.n);
#pragma unroll 1
        for (; tile.column < end; tile.column += kFinished) {
            float part[kFinished / 2];
#pragma unroll
            for (int i = 0; i < kFinished / 2; ++i) part[i] = sums[i];
            epilogue.run(part, tile, row);
#pragma unroll
            for (int i = kFinished / 2; i < BN / 2; ++i) sums[i - kFinished / 2] = sums[i];
        }
    }
}
