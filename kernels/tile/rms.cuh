// RMS norm as in DeepSeek-V3's published model code: f32 statistics, the normalised value rounded to bf16, then multiplied
// by the weight and rounded again.
#pragma once
#include <stdint.h>

#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "tile/reduce.cuh"
#include "tile/rows.cuh"

namespace ng::tile {

// 1 / sqrt(mean(x^2) + epsilon), the same in every thread of the block.
__device__ __forceinline__ float inverse_rms(const uint16_t* x, uint32_t columns, float epsilon, bool vectorised) {
    float squares = 0.0f;
    for (uint32_t first = threadIdx.x * 8; first < columns; first += blockDim.x * 8) {
        float values[8];
        load_bf16x8(x, first, columns, vectorised, values);
#pragma unroll
        for (int i = 0; i < 8; ++i) squares = ptx::fused_multiply_add(values[i], values[i], squares);
    }
    const float mean = ptx::divide(block_sum(squares), float(columns));
    return ptx::reciprocal(ptx::square_root(mean + epsilon));
}

// The eight outputs from `first` on, as the bf16 values that they round to.
__device__ __forceinline__ void normalized(const uint16_t* x, const uint16_t* weight, uint32_t first, uint32_t columns,
                                           float factor, bool vectorised, float (&values)[8]) {
    float weights[8];
    load_bf16x8(x, first, columns, vectorised, values);
    load_bf16x8(weight, first, columns, vectorised, weights);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float rounded = ptx::f32_from_bf16(ptx::bf16_from_f32(values[i] * factor));
        values[i] = ptx::f32_from_bf16(ptx::bf16_from_f32(rounded * weights[i]));
    }
}

}  // namespace ng::tile
