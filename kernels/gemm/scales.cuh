// The way of FP8 scales to the math warps. Warps 1 to 3 of the producer warpgroup take k-blocks in turn: they read the
// scales of A and B ahead of time, form every product of two scales once per k-block and put it into the k-block's
// stage. A stage's full barrier counts the bytes of its copies, the thread that issued them and the warp that wrote
// its scales (kFullArrivals).
#pragma once
#include <stdint.h>

#include "ptx/convert.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/warp.cuh"
#include "tile/pipeline.cuh"

namespace ng::gemm {

constexpr uint32_t kScaleWarps = 3;
constexpr uint32_t kFullArrivals = 2;

// Scales of one operand: f32, or UE8M0 codes (powers of two in a byte). Address 0 stands for ones.
struct Scales {
    uint64_t address;
    bool codes;

    // What memory holds at this element. Kept as it is until it is used, so that nobody waits for it here.
    __device__ __forceinline__ uint32_t load(int64_t element) const {
        if (address == 0) return 0;
        if (codes) return reinterpret_cast<const uint8_t*>(address)[element];
        return reinterpret_cast<const uint32_t*>(address)[element];
    }

    // Code 0 is 2^-127, below the normal numbers; code 255 is NaN.
    __device__ __forceinline__ float value(uint32_t raw) const {
        if (address == 0) return 1.0f;
        if (!codes) return ptx::f32_from_bits(raw);
        if (raw == 0) return ptx::f32_from_bits(0x00400000u);
        return ptx::f32_from_bits(raw == 255 ? 0x7fffffffu : raw << 23);
    }
};

// Where a row's product stands: rows r and r + 8 of each 16 are neighbours, since one thread holds both in its
// accumulators.
__device__ __forceinline__ constexpr uint32_t scale_slot(uint32_t row) {
    return (row & ~15u) | (row & 7u) << 1 | (row >> 3 & 1u);
}

// One lane's part of the products of a tile: each of Rows scales of A (or, operands swapped, of tokens) by each of
// Blocks scales of B.
template <int Rows, int Blocks = 1>
struct ScaleProducts {
    static constexpr uint32_t kFloats = Rows * Blocks;
    static constexpr int kPerLane = (Rows + 31) / 32;
    uint32_t a[kPerLane];
    uint32_t b[Blocks];

    // `a_first` and `b_first` are elements; rows from `rows` and blocks from `blocks` on do not exist.
    __device__ __forceinline__ void load(const Scales& a_scales, int64_t a_first, int64_t a_stride, uint32_t rows,
                                         const Scales& b_scales, int64_t b_first, int64_t b_stride, uint32_t blocks) {
        uint32_t row = ptx::lane_id();
        int64_t element = a_first + row * a_stride;
#pragma unroll
        for (int i = 0; i < kPerLane; ++i, row += 32, element += 32 * a_stride) {
            a[i] = row < rows ? a_scales.load(element) : 0;
        }
#pragma unroll
        for (int i = 0; i < Blocks; ++i) b[i] = i < int(blocks) ? b_scales.load(b_first + i * b_stride) : 0;
    }

    // Of the rows of A's scales that `find(row)` gives, none where the number is negative.
    template <class Find>
    __device__ __forceinline__ void load_listed(const Scales& a_scales, int64_t a_first, int64_t a_stride, Find find,
                                                const Scales& b_scales, int64_t b_first, int64_t b_stride) {
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            const uint32_t row = find(i * 32 + ptx::lane_id());
            a[i] = int32_t(row) >= 0 ? a_scales.load(a_first + row * a_stride) : 0;
        }
#pragma unroll
        for (int i = 0; i < Blocks; ++i) b[i] = b_scales.load(b_first + i * b_stride);
    }

    // To [Blocks][Rows], rows in the order of scale_slot.
    __device__ __forceinline__ void store(const Scales& a_scales, const Scales& b_scales, float* to) const {
        const uint32_t lane = ptx::lane_id();
#pragma unroll
        for (int block = 0; block < Blocks; ++block) {
            const float scale = b_scales.value(b[block]);
#pragma unroll
            for (int i = 0; i < kPerLane; ++i) {
                const uint32_t row = i * 32 + lane;
                if (Rows % 32 == 0 || row < Rows) {
                    to[block * Rows + scale_slot(row)] = __fmul_rn(a_scales.value(a[i]), scale);
                }
            }
        }
    }
};

// Where a column's scale stands: one thread finds those of its columns in two neighbouring octets as 16 bytes.
__device__ __forceinline__ constexpr uint32_t column_scale_slot(uint32_t column) {
    return (column & ~15u) | (column >> 1 & 3u) << 2 | (column >> 3 & 1u) << 1 | (column & 1u);
}

// One lane's part of a scale for each of Rows rows of A and of Columns rows of B: products of pairs are too many to
// pass through memory.
template <int Rows, int Columns>
struct ScaleVectors {
    static_assert(Rows % 32 == 0 && Columns % 32 == 0, "whole rounds of a warp");
    static constexpr uint32_t kFloats = Rows + Columns;
    uint32_t a[Rows / 32];
    uint32_t b[Columns / 32];

    // As of ScaleProducts; columns from `columns` on do not exist.
    __device__ __forceinline__ void load(const Scales& a_scales, int64_t a_first, int64_t a_stride, uint32_t rows,
                                         const Scales& b_scales, int64_t b_first, int64_t b_stride, uint32_t columns) {
        load_part(a, a_scales, a_first, a_stride, rows);
        load_part(b, b_scales, b_first, b_stride, columns);
    }

    // To Rows floats in the order of scale_slot, then Columns floats in that of column_scale_slot.
    __device__ __forceinline__ void store(const Scales& a_scales, const Scales& b_scales, float* to) const {
        const uint32_t lane = ptx::lane_id();
#pragma unroll
        for (int i = 0; i < Rows / 32; ++i) to[scale_slot(i * 32 + lane)] = a_scales.value(a[i]);
#pragma unroll
        for (int i = 0; i < Columns / 32; ++i) to[Rows + column_scale_slot(i * 32 + lane)] = b_scales.value(b[i]);
    }

private:
    template <int Count>
    static __device__ __forceinline__ void load_part(uint32_t (&to)[Count], const Scales& scales, int64_t first,
                                                     int64_t stride, uint32_t exist) {
        const uint32_t lane = ptx::lane_id();
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            const uint32_t index = i * 32 + lane;
            to[i] = index < exist ? scales.load(first + index * stride) : 0;
        }
    }
};

// What one of the scale warps does in its life. `walk(step, tile)` gives the tiles of this thread block one after the
// other, false past the last; `count(tile)` is its number of k-blocks. `load(values, tile, block)` starts reading,
// `store(values, stage)` writes to the stage once it is free. Depth k-blocks of a warp are in flight, thrice as many in
// all.
template <class Values, class Tile, int Depth = 2, int Stages, class Walk, class Count, class Load, class Store>
__device__ __forceinline__ void stream_scales(const tile::Pipeline<Stages>& pipeline, Walk walk, Count count, Load load,
                                              Store store) {
    static_assert(Stages >= int(kScaleWarps), "a warp's next stage lies at most one round ahead");
    const uint32_t warp = threadIdx.x / 32 - 1;
    const bool leader = ptx::lane_id() == 0;
    tile::PipelinePosition<Stages> at;
    at.stage = warp;
    Tile tile;
    uint32_t step = 0, block = warp;
    bool more = walk(step, tile);
    // The k-block may lie beyond this tile: the ring of stages does not stop at a tile's end.
    const auto find = [&] {
        while (more && block >= count(tile)) {
            block -= count(tile);
            more = walk(++step, tile);
        }
        return more;
    };
    Values values[Depth];
    bool pending[Depth];
#pragma unroll
    for (int i = 0; i < Depth; ++i) {
        pending[i] = find();
        if (pending[i]) load(values[i], tile, block);
        block += kScaleWarps;
    }
    while (true) {
#pragma unroll
        for (int i = 0; i < Depth; ++i) {
            if (!pending[i]) return;
            pipeline.wait_empty(at);
            store(values[i], at.stage);
            ptx::warp_barrier();
            if (leader) ptx::mbarrier_arrive(pipeline.full(at.stage));
            at.advance(kScaleWarps);
            pending[i] = find();
            if (pending[i]) load(values[i], tile, block);
            block += kScaleWarps;
        }
    }
}

}  // namespace ng::gemm
