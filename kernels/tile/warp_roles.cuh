// Where a thread stands in a block of one producer warpgroup followed by consumer warpgroups.
#pragma once
#include <stdint.h>

namespace ng::tile {

constexpr uint32_t kWarpgroup = 128;

struct Consumer {
    uint32_t warpgroup;  // 0 is the first consumer
    uint32_t row;        // of the thread's first accumulator within its warpgroup's 64 rows
    uint32_t column;     // of the thread's first accumulator
    bool leader;         // one lane per warp

    __device__ __forceinline__ Consumer() {
        const uint32_t thread = threadIdx.x - kWarpgroup;
        const uint32_t lane = thread % 32;
        warpgroup = thread / kWarpgroup;
        row = thread % kWarpgroup / 32 * 16 + lane / 4;
        column = lane % 4 * 2;
        leader = lane == 0;
    }
};

}  // namespace ng::tile
