// Rows of A that a list in memory names. TMA has no gather, so warps 1 to 3 of the producer warpgroup copy them in pieces
// of 16 bytes to where TMA would put them, 128-byte swizzle included, and form the products of scales (scales.cuh) with
// the scales of the same rows. A stage's full barrier counts as without a list: the copies of B, and a warp that has
// written.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "gemm/scales.cuh"
#include "ptx/copy.cuh"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/memory.cuh"
#include "ptx/registers.cuh"
#include "ptx/warp.cuh"
#include "tile/pipeline.cuh"

namespace ng::gemm {

// Of a row without a row of A: it is made of zeros.
constexpr uint32_t kNoRow = 0xFFFFFFFF;

// The row of A for a row of the product, counted over all groups. Entries that A does not have are reported if `reports`.
__device__ __forceinline__ uint32_t gathered_row(const NgFp8GemmParams& p, uint64_t row, bool reports) {
    const int32_t entry = reinterpret_cast<const int32_t*>(p.gather)[row];
    const uint32_t found = __umulhi(uint32_t(entry) * 2, p.gather_multiplier) >> p.gather_shift;
    if (entry >= 0 && found < p.a_rows) return found;
    if (entry != -1 && reports) ptx::report_status(reinterpret_cast<uint32_t*>(p.status), NG_STATUS_BAD_ROW);
    return kNoRow;
}

// What one of the scale warps does where rows are gathered; `walk` and `count` as of stream_scales. A's k-blocks start at
// `first_block`, its rows in a stage at `stages` + stage * StageBytes; the scales of further blocks of B lie
// `b_blocks_apart`. `store(values, .., to)` writes products of scales. Tight: few registers before much in flight.
//
// A warp announces a stage when its copies are there. They fly while it issues those of its next stage, unless that
// stage is still in use: then nobody shall wait for the stage before.
template <class Products, class Tile, int Rows, uint32_t StageBytes, bool Tight = false, int Stages, class Walk, class Count, class Store>
__device__ __forceinline__ void stream_gathered(const NgFp8GemmParams& p, const tile::Pipeline<Stages>& pipeline,
                                                uint32_t stages, float* products, uint32_t first_block,
                                                int64_t b_blocks_apart, Walk walk, Count count, Store store) {
    static_assert(Stages >= int(kScaleWarps), "a warp's next stage lies at most one round ahead");
    const Scales a_scales{p.a_scales, (p.flags & NG_GEMM_A_SCALES_UE8M0) != 0};
    const Scales b_scales{p.b_scales, (p.flags & NG_GEMM_B_SCALES_UE8M0) != 0};
    tile::PipelinePosition<Stages> at;
    at.stage = threadIdx.x / 32 - 1;
    uint32_t block = at.stage, step = 0;
    Tile tile;
    // The ring of stages does not stop at a tile's end.
    const auto reach = [&] {
        while (block >= count(tile)) {
            block -= count(tile);
            if (!walk(++step, tile)) return false;
        }
        return true;
    };
    if (!walk(step, tile) || !reach()) return;
    uint32_t flying = Stages;  // the stage that is not announced yet, if below
    const auto announce = [&] {
        ptx::fence_proxy_async_shared();
        ptx::warp_barrier();
        if (ptx::lane_id() == 0) ptx::mbarrier_arrive(pipeline.full(flying));
    };
    do {
        if (flying < Stages && ptx::any(!pipeline.is_empty(at))) {
            ptx::copy_wait_group<0>();
            announce();
            flying = Stages;
        }
        pipeline.wait_empty(at);
        // Found out anew: tall tiles have no register to keep it in.
        const uint32_t lane = ptx::opaque(threadIdx.x) % 32;
        // Eight lanes copy a row's 128 bytes, four rows at once. Rows 4 to 7 of each eight are swizzled by one bit more.
        const uint32_t chunk = lane % 8, of_four = lane / 8;
        const uint32_t lane_at = of_four * 128 + (chunk ^ of_four) * 16;
        const uint32_t k = (first_block + block) * 128 + chunk * 16;
        const uint8_t* const from = reinterpret_cast<const uint8_t*>(p.a_data) + k;
        const bool in_k = k < p.k;
        const uint32_t exist = tile.rows_from(tile.row, Rows);
        const uint64_t first = uint64_t(tile.batch) * p.rows + tile.row;
        const auto load = [&](Products& values) {
            const int64_t k_block = first_block + block;
            values.load_listed(
                a_scales, k_block * p.a_scales_block_stride, p.a_scales_row_stride,
                [&](uint32_t row) { return row < exist ? gathered_row(p, first + row, false) : kNoRow; }, b_scales,
                tile.group * p.b_scales_group_stride + tile.column / 128 * p.b_scales_row_stride +
                    k_block * p.b_scales_block_stride,
                b_blocks_apart);
        };
        Products values;
        if constexpr (!Tight) load(values);
        // Of parts of 64 rows without any nothing is multiplied.
        const uint32_t needed = Rows < 64 ? Rows : (exist + 63) & ~63u;
        uint32_t to = stages + at.stage * StageBytes + lane_at;
#pragma unroll 1
        for (uint32_t row = lane; row - lane < needed; row += 32, to += 32 * 128) {
            const uint32_t found = row < exist ? gathered_row(p, first + row, block == 0) : kNoRow;
            constexpr uint32_t kRound = Rows < 32 ? Rows : 32;
#pragma unroll(Tight ? 2 : 8)
            for (uint32_t i = 0; i < kRound / 4; ++i) {
                const uint32_t from_row = ptx::shuffle_index(found, i * 4 + of_four);
                ptx::copy_16((to ^ i % 2 * 64) + i * 512, from + uint64_t(from_row) * p.a_row_stride,
                             in_k && from_row != kNoRow);
            }
        }
        if constexpr (Tight) load(values);
        store(values, a_scales, b_scales, products + at.stage * Products::kFloats);
        ptx::copy_commit_group();
        if (flying < Stages) {
            ptx::copy_wait_group<1>();
            announce();
        }
        flying = at.stage;
        at.advance(kScaleWarps);
        block += kScaleWarps;
    } while (reach());
    if (flying < Stages) {
        ptx::copy_wait_group<0>();
        announce();
    }
}

}  // namespace ng::gemm
