// Softmax of rows whose keys come in blocks of 64, for the two warpgroups of the sparse attention.
//
// Weights are 2^(score * scale - reference). The reference of a row follows its maximum only when that has grown by more
// than kSlack: accumulators are rescaled seldom, and a weight is at most 2^kSlack, which f32 sums and bf16 weights bear.
#pragma once
#include <stdint.h>

#include "mla/softmax.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"

namespace ng::mla {

constexpr float kSlack = 8.0f;
// Beyond it one step of the scaled reference is a factor that shows: differences are then taken before they are scaled.
constexpr float kLargeReference = 16777216.0f;

struct Reference {
    float score = -kInfinity;  // none yet
    float scaled = 0.0f;       // in powers of two

    __device__ __forceinline__ bool large() const { return fabsf(scaled) >= kLargeReference; }

    __device__ __forceinline__ void set(float to, float scale_log2) {
        score = to;
        scaled = to == -kInfinity ? 0.0f : finite(to * scale_log2);
    }

    // Takes a block's maximum; returns what all that was accumulated before must be multiplied by.
    __device__ __forceinline__ float raise(float maximum, float scale_log2) {
        if (!(maximum > score) || (maximum - score) * scale_log2 <= kSlack) return 1.0f;
        const Reference before = *this;
        set(maximum, scale_log2);
        if (before.score == -kInfinity) return 1.0f;
        return ptx::exp2_approximate(before.above(*this, scale_log2));
    }

    // How far it lies above another, in powers of two, where weights are relative to either: to the score of a large one,
    // since its multiple is rounded to more than a power, and to the rounded multiple of others.
    __device__ __forceinline__ float above(const Reference& other, float scale_log2) const {
        if (large()) {
            return other.large() ? (score - other.score) * scale_log2
                                 : ptx::fused_multiply_add(score, scale_log2, -other.scaled);
        }
        return other.large() ? ptx::fused_multiply_add(-other.score, scale_log2, scaled) : scaled - other.scaled;
    }
};

// The two rows of a thread's accumulators of 64 columns: elements with bit 1 belong to the second.
struct RowPair {
    Reference reference[2];
    float sum[2] = {0.0f, 0.0f};
    float maximum[2] = {-kInfinity, -kInfinity};

    // Masks the scores of keys without a bit and gives the block's maximum of each row.
    __device__ __forceinline__ void mask(float (&scores)[32], uint2 keys, uint32_t lane, float (&top)[2]) {
        if ((keys.x & keys.y) != 0xFFFFFFFF) hide(scores, keys, lane);
        find(scores, top);
        // An overflow: such scores count as the largest finite ones.
        if (ptx::any(fabsf(top[0]) == kInfinity || fabsf(top[1]) == kInfinity)) {
#pragma unroll
            for (int i = 0; i < 32; ++i) scores[i] = finite(scores[i]);
            hide(scores, keys, lane);
            find(scores, top);
        }
#pragma unroll
        for (int row = 0; row < 2; ++row) maximum[row] = ptx::maximum(maximum[row], top[row]);
    }

    // Scores become weights, and join the sums.
    __device__ __forceinline__ void weigh(float (&scores)[32], float scale_log2) {
        if (ptx::any(reference[0].large() || reference[1].large())) {
            float first[2], then[2];
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                const bool large = reference[row].large();
                first[row] = large ? reference[row].score : 0.0f;
                then[row] = large ? 0.0f : reference[row].scaled;
            }
#pragma unroll
            for (int i = 0; i < 32; ++i)
                scores[i] = ptx::exp2_approximate(
                    ptx::fused_multiply_add(scores[i] - first[i % 4 / 2], scale_log2, -then[i % 4 / 2]));
        } else {
#pragma unroll
            for (int i = 0; i < 32; ++i)
                scores[i] = ptx::exp2_approximate(
                    ptx::fused_multiply_add(scores[i], scale_log2, -reference[i % 4 / 2].scaled));
        }
#pragma unroll
        for (int i = 0; i < 32; ++i) sum[i % 4 / 2] += scores[i];
    }

    // Whether any row of the warp changes by these factors, which then apply to all that was accumulated.
    template <int Count>
    __device__ __forceinline__ void rescale(float (&output)[Count], float first, float second) {
        if (!ptx::any(first != 1.0f || second != 1.0f)) return;
        sum[0] *= first;
        sum[1] *= second;
#pragma unroll
        for (int i = 0; i < Count; ++i) output[i] *= i % 4 >= 2 ? second : first;
    }

private:
    static __device__ __forceinline__ void hide(float (&scores)[32], uint2 keys, uint32_t lane) {
        const uint32_t low = keys.x >> (lane % 4 * 2), high = keys.y >> (lane % 4 * 2);
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const uint32_t bit = 1u << (i / 4 % 4 * 8 + i % 2);
            if (!((i < 16 ? low : high) & bit)) scores[i] = -kInfinity;
        }
    }

    static __device__ __forceinline__ void find(const float (&scores)[32], float (&top)[2]) {
        top[0] = top[1] = -kInfinity;
#pragma unroll
        for (int i = 0; i < 32; ++i) top[i % 4 / 2] = ptx::maximum(top[i % 4 / 2], scores[i]);
        top[0] = quad_max(top[0]);
        top[1] = quad_max(top[1]);
    }
};

// The sixteen keys from `first` of a tile of weights, as the left operand of the second product.
__device__ __forceinline__ void pack(const float (&weights)[32], int first, uint32_t (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
        a[i] = ptx::bf16x2_from_f32(weights[first / 2 + 2 * i], weights[first / 2 + 2 * i + 1]);
}

// What a row is divided by: the sum of its weights, and a sink's. A row that saw no key answers zero.
__device__ __forceinline__ float inverse_with_sink(float sum, float scaled_reference, const float* sink) {
    constexpr float kLog2E = 1.4426950408889634f;
    if (sum == 0.0f) return 0.0f;
    return ptx::reciprocal(sink ? sum + ptx::exp2_approximate(*sink * kLog2E - scaled_reference) : sum);
}

// Natural logarithm of a sum of weights with their reference.
__device__ __forceinline__ float log_of(float sum, float scaled_reference) {
    constexpr float kLn2 = 0.693147180559945f;
    return sum == 0.0f ? -kInfinity : (scaled_reference + ptx::log2_approximate(sum)) * kLn2;
}

}  // namespace ng::mla
