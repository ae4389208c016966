// Running softmax of one row, shared by the attention kernels and the combination of their pieces.
#pragma once
#include <stdint.h>

#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"

namespace ng::mla {

constexpr float kInfinity = __builtin_huge_valf();

// Overflowed scores become the largest finite ones, so that they compare; NaN stays.
__device__ __forceinline__ float finite(float x) {
    constexpr float kLargest = 3.402823466e38f;
    if (x > kLargest) return kLargest;
    if (x < -kLargest) return -kLargest;
    return x;
}

__device__ __forceinline__ float quad_max(float x) {
    x = ptx::maximum(x, ptx::shuffle_xor(x, 1));
    return ptx::maximum(x, ptx::shuffle_xor(x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
    x += ptx::shuffle_xor(x, 1);
    return x + ptx::shuffle_xor(x, 2);
}

// exp2((x - reference) * scale), where a reference of -inf (nothing seen yet) counts as zero.
// The difference comes first: the largest score then has weight one however large it is.
__device__ __forceinline__ float weight(float x, float reference, float scale_log2) {
    return ptx::exp2_approximate((x - (reference == -kInfinity ? 0.0f : reference)) * scale_log2);
}

// A row that saw no key has the sum zero and the answer zero.
__device__ __forceinline__ float inverse_sum(float sum, float sink = 0.0f) {
    return sum == 0.0f ? 0.0f : ptx::reciprocal(sum + sink);
}

// What an attention sink adds to a sum of weights that are relative to `reference`.
__device__ __forceinline__ float sink_weight(float sink, float reference, float scale_log2) {
    constexpr float kLog2E = 1.442695040888963f;
    return ptx::exp2_approximate(sink * kLog2E - (reference == -kInfinity ? 0.0f : finite(reference * scale_log2)));
}

// Two columns of the output.
template <bool F16>
__device__ __forceinline__ uint32_t pack(float low, float high) {
    return F16 ? ptx::f16x2_from_f32(low, high) : ptx::bf16x2_from_f32(low, high);
}

// Natural logarithm of the sum of exp(scale * score); -inf for a row that saw no key.
__device__ __forceinline__ float log_sum(float maximum, float sum, float scale) {
    constexpr float kLn2 = 0.693147180559945f;
    return sum == 0.0f ? -kInfinity : maximum * scale + ptx::log2_approximate(sum) * kLn2;
}

}  // namespace ng::mla
