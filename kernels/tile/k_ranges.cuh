// Ranges of K, given by offsets on the device, in blocks of 128.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/memory.cuh"
#include "ptx/warp.cuh"

namespace ng::tile {

// A table in shared memory. Offsets that fall, leave 0..k or are no multiple of 128 are pulled into range (the last ones
// down), so no block leaves the operands or lies in two ranges.
struct KRanges {
    static constexpr uint32_t kBytesPerGroup = 4;  // and for one more than there are
    uint32_t* bounds;                              // [count + 1]

    // One warp; the block synchronises afterwards. `status` may be null.
    __device__ __forceinline__ void build(const int32_t* offsets, uint32_t count, uint32_t k, uint32_t* status) const {
        const uint32_t lane = ptx::lane_id();
        const int32_t limit = static_cast<int32_t>(k);
        uint32_t carried = 0;
        bool bad = false;
        for (uint32_t begin = 0; begin <= count; begin += 32) {
            const uint32_t index = begin + lane;
            const int32_t given = index <= count ? offsets[index] : 0;
            uint32_t bound = max(static_cast<uint32_t>(min(max(given, 0), limit)) / 128, carried);
#pragma unroll
            for (uint32_t step = 1; step < 32; step *= 2) {
                const uint32_t other = ptx::shuffle_up(bound, step);
                if (lane >= step) bound = max(bound, other);
            }
            if (index <= count) {
                bounds[index] = bound;
                bad |= static_cast<int64_t>(bound) * 128 != given;
            }
            carried = ptx::shuffle_index(bound, 31);
        }
        if (bad && status != nullptr) ptx::report_status(status, NG_STATUS_BAD_OFFSETS);
    }

    // The whole of K as the only range; its last block may be ragged. One thread.
    __device__ __forceinline__ void build_one(uint32_t k) const {
        bounds[0] = 0;
        bounds[1] = (k + 127) / 128;
    }

    __device__ __forceinline__ uint32_t first(uint32_t range) const { return bounds[range]; }
    __device__ __forceinline__ uint32_t count(uint32_t range) const { return bounds[range + 1] - bounds[range]; }
};

}  // namespace ng::tile
