// Sums over the lanes of a warp up to each.
#pragma once
#include <stdint.h>

#include "ptx/warp.cuh"

namespace ng::mla {

__device__ __forceinline__ uint32_t scan_warp(uint32_t value) {
    const uint32_t lane = ptx::lane_id();
#pragma unroll
    for (uint32_t delta = 1; delta < 32; delta *= 2) {
        const uint32_t other = ptx::shuffle_up(value, delta);
        if (lane >= delta) value += other;
    }
    return value;
}

}  // namespace ng::mla
