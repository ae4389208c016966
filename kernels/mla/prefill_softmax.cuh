// The running softmax of a tile of 64 x 128 scores in a warpgroup's registers: each thread has two rows, 32 scores of each.
#pragma once
#include <stdint.h>

#include "mla/softmax.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"

namespace ng::mla {

constexpr int kTileScores = 64;

// One of a thread's two rows; `Half` says which. Accumulator i belongs to row i / 2 % 2.
struct PrefillRow {
    float maximum = -kInfinity;  // of the raw scores
    float sum = 0.0f;            // this thread's share
    float rescale = 1.0f;        // what all that was summed before the last tile must be multiplied by

    // What scaled scores are compared with. Everything uses this one rounding of it, so that it cancels.
    __device__ __forceinline__ float reference(float scale_log2) const {
        return maximum == -kInfinity ? 0.0f : maximum * scale_log2;
    }
};

// Scores that the row may not see become -inf. `visible` counts keys of this tile, `lane` is the thread's in its warp.
__device__ __forceinline__ void mask(float (&scores)[kTileScores], int32_t visible0, int32_t visible1, uint32_t lane) {
    const int32_t first = 2 * static_cast<int32_t>(lane % 4);
#pragma unroll
    for (int i = 0; i < kTileScores; ++i) {
        const int32_t key = first + 8 * (i / 4) + i % 2;
        if (key >= (i % 4 >= 2 ? visible1 : visible0)) scores[i] = -kInfinity;
    }
}

// Turns scores into weights.
__device__ __forceinline__ void tile_softmax(float (&scores)[kTileScores], PrefillRow& row0, PrefillRow& row1, float scale_log2) {
    // Beyond this, what is left of a scaled score after its reference is subtracted is rounding error of either.
    constexpr float kHuge = 1048576.0f;
    constexpr float kLargest = 3.402823466e38f;
    float maxima[4] = {scores[0], scores[1], scores[2], scores[3]};
#pragma unroll
    for (int i = 4; i < kTileScores; ++i) maxima[i % 4] = ptx::maximum(maxima[i % 4], scores[i]);
    const float before0 = row0.maximum * scale_log2, before1 = row1.maximum * scale_log2;
    const float old0 = row0.maximum, old1 = row1.maximum;
    row0.maximum = ptx::maximum(old0, quad_max(ptx::maximum(maxima[0], maxima[1])));
    row1.maximum = ptx::maximum(old1, quad_max(ptx::maximum(maxima[2], maxima[3])));
    float reference0 = row0.reference(scale_log2), reference1 = row1.reference(scale_log2);
    row0.rescale = ptx::exp2_approximate(before0 - reference0);
    row1.rescale = ptx::exp2_approximate(before1 - reference1);

    const bool huge0 = fabsf(reference0) >= kHuge, huge1 = fabsf(reference1) >= kHuge;
    if (ptx::any(huge0 || huge1)) {
        // Differences first, of what overflowed and became the largest finite score too.
        const auto finite = [](float x) { return x > kLargest ? kLargest : x; };
        if (huge0) {
            row0.maximum = finite(row0.maximum);
            row0.rescale = ptx::exp2_approximate((old0 - row0.maximum) * scale_log2);
            reference0 = 0.0f;
        }
        if (huge1) {
            row1.maximum = finite(row1.maximum);
            row1.rescale = ptx::exp2_approximate((old1 - row1.maximum) * scale_log2);
            reference1 = 0.0f;
        }
#pragma unroll
        for (int i = 0; i < kTileScores; ++i) {
            if (i % 4 >= 2 ? huge1 : huge0) scores[i] = finite(scores[i]) - (i % 4 >= 2 ? row1 : row0).maximum;
        }
    }

#pragma unroll
    for (int i = 0; i < kTileScores; ++i)
        scores[i] = ptx::exp2_approximate(
            ptx::fused_multiply_add(scores[i], scale_log2, i % 4 >= 2 ? -reference1 : -reference0));
    float sums[4] = {scores[0], scores[1], scores[2], scores[3]};
#pragma unroll
    for (int i = 4; i < kTileScores; ++i) sums[i % 4] += scores[i];
    row0.sum = ptx::fused_multiply_add(row0.sum, row0.rescale, sums[0] + sums[1]);
    row1.sum = ptx::fused_multiply_add(row1.sum, row1.rescale, sums[2] + sums[3]);
}

}  // namespace ng::mla
