// Contiguous groups of rows, given by offsets on the device, cut into tiles.
#pragma once
#include <stdint.h>

#include "abi.h"

namespace ng::tile {

// Tables in shared memory: the rows of each group and how many tiles come before it.
// Offsets that fall, are negative or pass `rows` are pulled into range, so no tile leaves the operands.
struct Groups {
    static constexpr uint32_t kBytesPerGroup = 8;  // and for one more than there are
    uint32_t* bounds;  // [count + 1]
    uint32_t* tiles;   // [count + 1]
    uint32_t count;

    static __device__ __forceinline__ Groups in(void* shared, uint32_t count) {
        uint32_t* const words = static_cast<uint32_t*>(shared);
        return {words, words + count + 1, count};
    }

    // One warp; the block synchronises afterwards. `status` may be null.
    __device__ __forceinline__ void build(const int32_t* offsets, uint32_t rows, uint32_t tile_rows, uint32_t* status) const {
        constexpr uint32_t kAll = 0xFFFFFFFF;
        const uint32_t lane = threadIdx.x % 32;
        const int32_t limit = static_cast<int32_t>(rows);
        const int32_t first = offsets[0];
        uint32_t carried_bound = min(max(first, 0), limit);
        uint32_t carried_tiles = 0;
        bool bad = first < 0 || first > limit;
        if (lane == 0) {
            bounds[0] = carried_bound;
            tiles[0] = 0;
        }
        for (uint32_t begin = 0; begin < count; begin += 32) {
            const uint32_t group = begin + lane;
            const int32_t given = group < count ? offsets[group + 1] : 0;
            uint32_t bound = max(min(max(given, 0), limit), static_cast<int32_t>(carried_bound));
#pragma unroll
            for (uint32_t step = 1; step < 32; step *= 2) {
                const uint32_t other = __shfl_up_sync(kAll, bound, step);
                if (lane >= step) bound = max(bound, other);
            }
            bad |= group < count && static_cast<int64_t>(bound) != given;
            const uint32_t previous = __shfl_up_sync(kAll, bound, 1);
            const uint32_t start = lane == 0 ? carried_bound : previous;
            uint32_t sum = (bound - start + tile_rows - 1) / tile_rows;
#pragma unroll
            for (uint32_t step = 1; step < 32; step *= 2) {
                const uint32_t other = __shfl_up_sync(kAll, sum, step);
                if (lane >= step) sum += other;
            }
            sum += carried_tiles;
            if (group < count) {
                bounds[group + 1] = bound;
                tiles[group + 1] = sum;
            }
            carried_bound = __shfl_sync(kAll, bound, 31);
            carried_tiles = __shfl_sync(kAll, sum, 31);
        }
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

}  // namespace ng::tile
