// Rotary embedding of 64 columns by eight lanes, as in DeepSeek-V3's model code: pairs of neighbours go in, the rotated
// first and second members come out as two halves.
#pragma once
#include <stdint.h>

#include "ptx/convert.cuh"
#include "tile/rows.cuh"

namespace ng::tile {

constexpr uint32_t kRopeColumns = 64;
constexpr uint32_t kRopeLanes = 8;

// Four pairs of neighbours, the `piece`-th of eight: their rotated first members and second members.
__device__ __forceinline__ void rotate_pairs(const float (&pairs)[8], const float* cosines, const float* sines,
                                             uint32_t piece, float (&first)[4], float (&second)[4]) {
    const float4 cosine = reinterpret_cast<const float4*>(cosines)[piece];
    const float4 sine = reinterpret_cast<const float4*>(sines)[piece];
    const float c[4] = {cosine.x, cosine.y, cosine.z, cosine.w};
    const float s[4] = {sine.x, sine.y, sine.z, sine.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        first[i] = pairs[2 * i] * c[i] - pairs[2 * i + 1] * s[i];
        second[i] = pairs[2 * i + 1] * c[i] + pairs[2 * i] * s[i];
    }
}

// `piece` is this lane's part, 0..8: input columns 8 * piece on, output columns 4 * piece on of both halves.
__device__ __forceinline__ void rotate(const uint16_t* x, const float* cosines, const float* sines, uint32_t piece,
                                       bool vectorised, uint16_t* out) {
    float pairs[8], first[4], second[4];
    load_bf16x8(x, piece * 8, kRopeColumns, vectorised, pairs);
    rotate_pairs(pairs, cosines, sines, piece, first, second);
    uint16_t* low = out + piece * 4;
    uint16_t* high = low + kRopeColumns / 2;
    if (vectorised) {
        *reinterpret_cast<uint2*>(low) =
            make_uint2(ptx::bf16x2_from_f32(first[0], first[1]), ptx::bf16x2_from_f32(first[2], first[3]));
        *reinterpret_cast<uint2*>(high) =
            make_uint2(ptx::bf16x2_from_f32(second[0], second[1]), ptx::bf16x2_from_f32(second[2], second[3]));
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            low[i] = ptx::bf16_from_f32(first[i]);
            high[i] = ptx::bf16_from_f32(second[i]);
        }
    }
}

// What a row with an unusable position gets.
__device__ __forceinline__ void clear_rotated(uint32_t piece, uint16_t* out) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out[piece * 4 + i] = 0;
        out[piece * 4 + kRopeColumns / 2 + i] = 0;
    }
}

}  // namespace ng::tile
