// Sums of products whose K is split among the blocks of a cluster.
#pragma once
#include <stdint.h>

#include "ptx/cluster.cuh"
#include "ptx/warp.cuh"

namespace ng::gemm {

// Four neighbouring sums of one token over all ranks, in their order.
__device__ __forceinline__ void total_piece(float (&values)[4], const float* partial, uint32_t word, uint32_t ranks) {
    if (ranks == 1) {
        const float4 only = *reinterpret_cast<const float4*>(partial + word);
        values[0] = only.x, values[1] = only.y, values[2] = only.z, values[3] = only.w;
        return;
    }
    const uint32_t from = ptx::shared_address(partial + word);
    float4 parts[8];
#pragma unroll
    for (uint32_t other = 0; other < 8; ++other) {
        parts[other] = make_float4(0, 0, 0, 0);
        if (other < ranks) parts[other] = ptx::cluster_load_f32x4(ptx::cluster_address(from, other));
    }
    values[0] = parts[0].x, values[1] = parts[0].y, values[2] = parts[0].z, values[3] = parts[0].w;
#pragma unroll
    for (uint32_t other = 1; other < 8; ++other) {
        if (other < ranks) {
            values[0] = __fadd_rn(values[0], parts[other].x);
            values[1] = __fadd_rn(values[1], parts[other].y);
            values[2] = __fadd_rn(values[2], parts[other].z);
            values[3] = __fadd_rn(values[3], parts[other].w);
        }
    }
}

}  // namespace ng::gemm
