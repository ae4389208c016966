// Sums over a block in an order that depends on nothing but the block's size.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/warp.cuh"

namespace ng::tile {

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (uint32_t mask = 1; mask < 32; mask *= 2) value += ptx::shuffle_xor(value, mask);
    return value;
}

// Every thread gets the sum. Once a kernel.
__device__ __forceinline__ float block_sum(float value) {
    __shared__ float partial[NG_ROW_THREADS / 32];
    value = warp_sum(value);
    if (ptx::lane_id() == 0) partial[threadIdx.x / 32] = value;
    ptx::block_barrier();
    float sum = 0.0f;
    for (uint32_t warp = 0; warp < blockDim.x / 32; ++warp) sum += partial[warp];
    return sum;
}

}  // namespace ng::tile
