// The running softmax of two rows in the accumulators of a warpgroup: 64 rows by 64 tokens of scores.
//
// A row's weights are 2^(score * scale - reference) for any reference that keeps them small: it follows the largest score
// only where that has grown by more than 2^8, so that what was accumulated is seldom multiplied again.
#pragma once
#include <stdint.h>

#include "mla/softmax.cuh"
#include "ptx/matrix.cuh"
#include "ptx/warp.cuh"
#include "tile/swizzle.cuh"

namespace ng::mla {

// Scaled scores from here on lose what one rounded multiply-add would: their difference is taken first.
constexpr float kLargeScore = 4096.0f;
constexpr float kGrowth = 8.0f;

// Rows g and g + 8 of a warp, in the lanes 4g to 4g + 3, are number 0 and 1 of a thread.
struct RowPair {
    float maximum[2] = {-kInfinity, -kInfinity};  // the raw score that weights are relative to
    float sum[2] = {0.0f, 0.0f};

    // Whether another reference means work for any row of the warp.
    __device__ __forceinline__ bool differs(const float (&to)[2]) const {
        return ptx::any(to[0] != maximum[0] || to[1] != maximum[1]);
    }

    // Takes another reference; what was accumulated must be multiplied by `rescale`.
    __device__ __forceinline__ void follow(const float (&to)[2], float scale_log2, float (&rescale)[2]) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            rescale[r] = weight(maximum[r], to[r], scale_log2);
            sum[r] *= rescale[r];
            maximum[r] = to[r];
        }
    }
};

template <int Count>
__device__ __forceinline__ void rescale_rows(float (&values)[Count], const float (&rescale)[2]) {
#pragma unroll
    for (int i = 0; i < Count; ++i) values[i] *= rescale[i / 2 % 2];
}

// Hides tokens: bit t of `usable` says whether token t counts, and a row sees the first `ends`. Scores that overflowed
// become finite, which tells them from hidden ones.
__device__ __forceinline__ void hide(float (&scores)[32], uint64_t usable, const int32_t (&ends)[2], uint32_t lane) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int32_t end = ends[r];
        uint64_t mask = end <= 0 ? 0 : end >= 64 ? usable : usable & ((1ull << end) - 1);
        mask >>= 2 * (lane % 4);
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const int key = 8 * (i / 2) + i % 2;
            float& score = scores[4 * (i / 2) + 2 * r + i % 2];
            score = mask >> key & 1 ? finite(score) : -kInfinity;
        }
    }
}

// The references after these scores, from those before; where scores are large, they and `addends` are made to fit
// score * scale + addend all the same. `hidden` says that hide() was here.
__device__ __forceinline__ void raise(float (&scores)[32], const float (&before)[2], float scale_log2, bool hidden,
                                      float (&reference)[2], float (&addend)[2]) {
    float largest[2] = {scores[0], scores[2]};
#pragma unroll
    for (int i = 1; i < 16; ++i) {
#pragma unroll
        for (int r = 0; r < 2; ++r) largest[r] = ptx::maximum(largest[r], scores[4 * (i / 2) + 2 * r + i % 2]);
    }
    bool common = true;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        largest[r] = quad_max(largest[r]);
        common = common && fabsf(ptx::maximum(largest[r], before[r]) * scale_log2) < kLargeScore;
    }
    const bool large = ptx::any(!common);
    if (large && !hidden) {
#pragma unroll
        for (int i = 0; i < 32; ++i) scores[i] = finite(scores[i]);
#pragma unroll
        for (int r = 0; r < 2; ++r) largest[r] = finite(ptx::maximum(largest[r], -kInfinity));
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const bool grown = (largest[r] - before[r]) * scale_log2 > kGrowth;
        reference[r] = grown ? largest[r] : before[r];
        addend[r] = reference[r] == -kInfinity ? 0.0f : -reference[r] * scale_log2;
    }
    if (large) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            if (fabsf(addend[r]) < kLargeScore) continue;
            addend[r] = 0.0f;
#pragma unroll
            for (int i = 0; i < 16; ++i) scores[4 * (i / 2) + 2 * r + i % 2] -= reference[r];
        }
    }
}

// Scores to weights, added to the rows' sums and packed as operand A of four products over 16 tokens.
template <bool F16>
__device__ __forceinline__ void weigh(float (&scores)[32], const float (&addend)[2], float scale_log2, RowPair& rows,
                                      uint32_t (&packed)[4][4]) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        scores[i] = ptx::exp2_approximate(ptx::fused_multiply_add(scores[i], scale_log2, addend[i / 2 % 2]));
        rows.sum[i / 2 % 2] += scores[i];
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int j = 0; j < 4; ++j) packed[k][j] = pack<F16>(scores[8 * k + 2 * j], scores[8 * k + 2 * j + 1]);
    }
}

// The same operand in shared memory: a tile of 64 rows of 128 bytes with the 128-byte swizzle.
__device__ __forceinline__ void store_weights(uint32_t tile, uint32_t warp, uint32_t lane, const uint32_t (&packed)[4][4]) {
    const uint32_t row = 16 * warp + lane % 16;
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k)
        ptx::stmatrix_x4(tile + tile::swizzle_128(row * 128 + (2 * k + lane / 16) * 16), packed[k][0], packed[k][1],
                         packed[k][2], packed[k][3]);
}

}  // namespace ng::mla
