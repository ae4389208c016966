// Running softmax of one row, shared by the attention kernel and the combination of its splits.
#pragma once
#include <stdint.h>

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

struct RowState {
    float maximum = -kInfinity;
    float sum = 0.0f;

    // Takes a new candidate for the maximum; returns what all that was accumulated before must be multiplied by.
    __device__ __forceinline__ float raise(float candidate, float scale_log2) {
        const float before = maximum;
        maximum = ptx::maximum(maximum, candidate);
        const float rescale = weight(before, maximum, scale_log2);
        sum *= rescale;
        return rescale;
    }

    __device__ __forceinline__ float add(float score, float scale_log2) {
        const float p = weight(score, maximum, scale_log2);
        sum += p;
        return p;
    }
};

// A row that saw no key has the sum zero and the answer zero.
__device__ __forceinline__ float inverse_sum(float sum) { return sum == 0.0f ? 0.0f : ptx::reciprocal(sum); }

// Natural logarithm of the sum of exp(scale * score); -inf for a row that saw no key.
__device__ __forceinline__ float log_sum(float maximum, float sum, float scale) {
    constexpr float kLn2 = 0.693147180559945f;
    return sum == 0.0f ? -kInfinity : maximum * scale + ptx::log2_approximate(sum) * kLn2;
}

}  // namespace ng::mla
