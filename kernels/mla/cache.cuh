// Tokens of the latent cache in any of its layouts, eight columns a lane: lanes 0..64 have the latent columns, eight more
// the rotated ones.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "tile/quantize.cuh"
#include "tile/rows.cuh"

namespace ng::mla {

constexpr uint32_t kLatent = 512;
constexpr uint32_t kRope = 64;
constexpr uint32_t kColumns = kLatent + kRope;
constexpr uint32_t kPieces = kColumns / 8;
constexpr uint32_t kLatentPieces = kLatent / 8;
// Of a token with scales: where they are, and where the rotated columns are.
constexpr uint32_t kScalesAt = kLatent;
constexpr uint32_t kRopeAt = kLatent + 16;

__device__ __forceinline__ uint32_t token_bytes(uint32_t layout) {
    switch (layout) {
        case NG_CACHE_FP8_BLOCKS: return kRopeAt + 2 * kRope;
        case NG_CACHE_FP8_FLAT: return kColumns;
        default: return 2 * kColumns;
    }
}

__device__ __forceinline__ uint32_t half_pair(float low, float high, bool f16) {
    return f16 ? ptx::f16x2_from_f32(low, high) : ptx::bf16x2_from_f32(low, high);
}

__device__ __forceinline__ uint4 half_octet(const float (&v)[8], bool f16) {
    return make_uint4(half_pair(v[0], v[1], f16), half_pair(v[2], v[3], f16), half_pair(v[4], v[5], f16),
                      half_pair(v[6], v[7], f16));
}

__device__ __forceinline__ void widen(const uint4& octet, bool f16, float (&values)[8]) {
    const uint32_t words[4] = {octet.x, octet.y, octet.z, octet.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        values[2 * i] = f16 ? ptx::f32_from_f16(uint16_t(words[i])) : ptx::f32_from_bf16x2_low(words[i]);
        values[2 * i + 1] = f16 ? ptx::f32_from_f16(uint16_t(words[i] >> 16)) : ptx::f32_from_bf16x2_high(words[i]);
    }
}

// Eight 16-bit values, which `vectorised` promises to be aligned.
__device__ __forceinline__ uint4 load_octet(const uint16_t* from, bool vectorised) {
    if (vectorised) return *reinterpret_cast<const uint4*>(from);
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = from[2 * i] | uint32_t(from[2 * i + 1]) << 16;
    return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ __forceinline__ void store_octet(uint16_t* to, bool vectorised, const uint4& octet) {
    if (vectorised) {
        *reinterpret_cast<uint4*>(to) = octet;
        return;
    }
    const uint32_t words[4] = {octet.x, octet.y, octet.z, octet.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i] = uint16_t(words[i / 2] >> (16 * (i % 2)));
}

// Codes of value / scale; what is not finite becomes NaN.
__device__ __forceinline__ uint32_t code_pair(float low, float high, float scale) {
    const auto scaled = [&](float value) {
        return tile::is_finite(value) ? ptx::divide(value, scale) : ptx::f32_from_bits(0x7fffffffu);
    };
    return ptx::e4m3x2_from_f32(scaled(low), scaled(high));
}

__device__ __forceinline__ uint32_t code_quad(const float* v, float scale) {
    return code_pair(v[0], v[1], scale) | code_pair(v[2], v[3], scale) << 16;
}

// The scale of the 128 columns that 16 lanes hold, a power of two of at least 2^-13. All lanes of the warp must arrive.
__device__ __forceinline__ float block_scale(const float (&values)[8]) {
    float amax = tile::kLargestE4m3 / 8192.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (tile::is_finite(values[i])) amax = ptx::maximum(amax, fabsf(values[i]));
    }
#pragma unroll
    for (uint32_t mask = 1; mask < 16; mask *= 2) amax = ptx::maximum(amax, ptx::shuffle_xor(amax, mask));
    return tile::scale_of(amax, true);
}

// Four codes as floats, the lowest byte first.
__device__ __forceinline__ void decode_quad(uint32_t codes, float (&values)[4]) {
    const uint32_t low = ptx::f16x2_from_e4m3x2(uint16_t(codes)), high = ptx::f16x2_from_e4m3x2(uint16_t(codes >> 16));
    values[0] = ptx::f32_from_f16(uint16_t(low));
    values[1] = ptx::f32_from_f16(uint16_t(low >> 16));
    values[2] = ptx::f32_from_f16(uint16_t(high));
    values[3] = ptx::f32_from_f16(uint16_t(high >> 16));
}

}  // namespace ng::mla
