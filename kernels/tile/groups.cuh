// How a product's output is cut into tiles, and which block computes which.
#pragma once
#include <stdint.h>

#include "abi.h"

namespace ng::tile {

// Tables in shared memory: the rows of each group and how many tiles come before it. Offsets that fall, are negative or
// pass `rows`, and counts outside 0..=rows, are pulled into range, so no tile leaves the operands.
struct Groups {
    static constexpr uint32_t kBytesPerGroup = 8;  // and for one more than there are
    uint32_t* bounds;  // [count + 1]
    uint32_t* tiles;   // [count + 1]
    uint32_t count;

    static __device__ __forceinline__ Groups in(void* shared, uint32_t count) {
        uint32_t* const words = static_cast<uint32_t*>(shared);
        return {words, words + count + 1, count};
    }

    // One warp; the block synchronises afterwards. `given` are `count` + 1 offsets of adjacent groups, or, `counted`, the
    // rows of each of `count` groups that start at row 0 of a matrix of their own. `status` may be null.
    __device__ __forceinline__ void build(const int32_t* given, uint32_t rows, uint32_t tile_rows, uint32_t* status,
                                          bool counted = false) const {
        constexpr uint32_t kAll = 0xFFFFFFFF;
        const uint32_t lane = threadIdx.x % 32;
        const int32_t limit = static_cast<int32_t>(rows);
        // Each lane takes a run of groups, so that its loads fly together and two scans do for all.
        const uint32_t run = (count + 31) / 32;
        const uint32_t begin = min(lane * run, count), end = min(begin + run, count);
        const int32_t* const ends = counted ? given : given + 1;
        const int32_t first = counted ? 0 : given[0];
        uint32_t before = min(max(first, 0), limit);
        bool bad = first < 0 || first > limit;
        if (lane == 0) {
            bounds[0] = before;
            tiles[0] = 0;
        }
        uint32_t top = before;
#pragma unroll 4
        for (uint32_t group = begin; group < end; ++group) {
            const int32_t end_given = ends[group];
            const uint32_t bound = min(max(end_given, 0), limit);
            bad |= static_cast<int64_t>(bound) != end_given;
            bounds[group + 1] = bound;
            top = max(top, bound);
        }
#pragma unroll
        for (uint32_t step = 1; step < 32; step *= 2) {
            const uint32_t other = __shfl_up_sync(kAll, top, step);
            if (lane >= step) top = max(top, other);
        }
        const uint32_t left = __shfl_up_sync(kAll, top, 1);
        if (lane > 0) before = left;
        uint32_t sum = 0;
        for (uint32_t group = begin; group < end; ++group) {
            uint32_t bound = bounds[group + 1];
            if (counted) before = 0;
            if (bound < before) {
                bad = true;
                bound = before;
                bounds[group + 1] = bound;
            }
            sum += (bound - before + tile_rows - 1) / tile_rows;
            tiles[group + 1] = sum;
            before = bound;
        }
        uint32_t total = sum;
#pragma unroll
        for (uint32_t step = 1; step < 32; step *= 2) {
            const uint32_t other = __shfl_up_sync(kAll, total, step);
            if (lane >= step) total += other;
        }
        for (uint32_t group = begin; group < end; ++group) tiles[group + 1] += total - sum;
        if (bad && status != nullptr) atomicOr(status, NG_STATUS_BAD_OFFSETS);
    }

    // The group that owns this tile.
    __device__ __forceinline__ uint32_t find(uint32_t tile) const {
        uint32_t low = 0, high = count;
        while (high - low > 1) {
            const uint32_t middle = (low + high) / 2;
            if (tiles[middle] <= tile) {
                low = middle;
            } else {
                high = middle;
            }
        }
        return low;
    }

    __device__ __forceinline__ uint32_t row_begin(uint32_t group) const { return bounds[group]; }
    __device__ __forceinline__ uint32_t row_end(uint32_t group) const { return bounds[group + 1]; }
    __device__ __forceinline__ uint32_t tiles_before(uint32_t group) const { return tiles[group]; }
};

struct Tile {
    uint32_t row;      // first row of its batch
    uint32_t row_end;  // end of the group
    uint32_t column;
    uint32_t group;  // of weights
    uint32_t batch;  // of A and of the output
    uint32_t k_blocks;

    // Rows from `first` on that exist, at most `most`.
    __device__ __forceinline__ uint32_t rows_from(uint32_t first, uint32_t most) const {
        return first < row_end ? min(row_end - first, most) : 0;
    }
};

// Every tile of a product of any NgGemmMode with groups of rows, in an order that keeps operands in the L2 cache: bands
// of `Band` tiles of rows, in which rows vary fastest, so that neighbours share a tile of B.
template <uint32_t Rows, uint32_t Columns, uint32_t Band>
struct Work {
    const NgFp8GemmParams& p;
    Groups groups;
    uint32_t row_tiles, columns, total;

    // What the parameters alone tell: all but the total of modes with tables.
    static __device__ __forceinline__ Work known(void* shared, const NgFp8GemmParams& p) {
        Work work{p, Groups::in(shared, p.groups), (p.rows + Rows - 1) / Rows, (p.n + Columns - 1) / Columns, 0};
        work.total = (p.mode == NG_GEMM_BATCHED ? work.row_tiles * p.groups : work.row_tiles) * work.columns;
        return work;
    }

    // All threads of the block; it has a barrier. `shared` holds the tables where a mode has device data.
    static __device__ __forceinline__ Work prepare(void* shared, const NgFp8GemmParams& p) {
        Work work{p, Groups::in(shared, p.groups), (p.rows + Rows - 1) / Rows, (p.n + Columns - 1) / Columns, 0};
        if (work.tabled() && threadIdx.x < 32) {
            work.groups.build(reinterpret_cast<const int32_t*>(p.offsets), p.rows, Rows,
                              blockIdx.x == 0 ? reinterpret_cast<uint32_t*>(p.status) : nullptr,
                              p.mode == NG_GEMM_MASKED);
        }
        __syncthreads();
        uint32_t row_tiles = work.row_tiles;
        if (p.mode == NG_GEMM_BATCHED) row_tiles *= p.groups;
        if (work.tabled()) row_tiles = work.groups.tiles_before(p.groups);
        work.total = __shfl_sync(0xFFFFFFFF, row_tiles * work.columns, 0);
        return work;
    }

    __device__ __forceinline__ bool tabled() const { return p.mode == NG_GEMM_CONTIGUOUS || p.mode == NG_GEMM_MASKED; }

    // False past the last.
    __device__ __forceinline__ bool at(uint32_t index, Tile& tile) const {
        if (index >= total) return false;
        uint32_t first_row = 0, count = row_tiles, before = 0;
        tile.group = 0;
        tile.row_end = p.rows;
        if (tabled()) {
            tile.group = groups.find(index / columns);
            before = groups.tiles_before(tile.group);
            count = groups.tiles_before(tile.group + 1) - before;
            if (p.mode == NG_GEMM_CONTIGUOUS) first_row = groups.row_begin(tile.group);
            tile.row_end = groups.row_end(tile.group);
        } else if (p.mode == NG_GEMM_BATCHED) {
            tile.group = index / (row_tiles * columns);
            before = tile.group * row_tiles;
        }
        uint32_t local = index - before * columns;
        const uint32_t band = local / (Band * columns);
        local -= band * Band * columns;
        const uint32_t height = min(Band, count - band * Band);
        tile.row = first_row + (band * Band + local % height) * Rows;
        tile.column = local / height * Columns;
        tile.batch = p.mode == NG_GEMM_CONTIGUOUS ? 0 : tile.group;
        tile.k_blocks = (p.k + 127) / 128;
        return true;
    }
};

}  // namespace ng::tile
