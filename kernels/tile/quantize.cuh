// FP8 quantisation of groups of 128 consecutive elements: 16 lanes hold a group, eight elements each.
#pragma once
#include <stdint.h>

#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"

namespace ng::tile {

constexpr float kLargestE4m3 = 448.0f;
// As published (act_quant): keeps the scale of an all-zero group away from zero.
constexpr float kSmallestAmax = 1e-4f;
constexpr uint32_t kInfinityBits = 0x7f800000u;

__device__ __forceinline__ bool is_finite(float value) {
    return (ptx::f32_to_bits(value) & 0x7fffffffu) < kInfinityBits;
}

// The scale of a group whose largest finite magnitude is `amax`, which is at least kSmallestAmax.
__device__ __forceinline__ float scale_of(float amax, bool power_of_two) {
    const float scale = ptx::divide(amax, kLargestE4m3);
    if (!power_of_two) return scale;
    // A carry out of the mantissa steps to the next power unless the mantissa was zero.
    return ptx::f32_from_bits((ptx::f32_to_bits(scale) + 0x007fffffu) & 0xff800000u);
}

// What is converted to a code of a group with the scale 1 / `inverse`.
__device__ __forceinline__ float scaled(float value, float inverse) {
    return is_finite(value) ? value * inverse : ptx::f32_from_bits(0x7fffffffu);
}

// The scale of this lane's group. Infinities and NaN do not count: they become NaN codes and leave their neighbours
// alone. All lanes of the warp must arrive.
__device__ __forceinline__ float group_scale(const float (&values)[8], bool power_of_two) {
    float amax = kSmallestAmax;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (is_finite(values[i])) amax = ptx::maximum(amax, fabsf(values[i]));
    }
#pragma unroll
    for (uint32_t mask = 1; mask < 16; mask *= 2) amax = ptx::maximum(amax, ptx::shuffle_xor(amax, mask));
    return scale_of(amax, power_of_two);
}

// Codes of value * (1 / scale), both roundings in f32.
__device__ __forceinline__ void encode(const float (&values)[8], float scale, uint16_t (&codes)[4]) {
    const float inverse = ptx::reciprocal(scale);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        codes[i] = ptx::e4m3x2_from_f32(scaled(values[2 * i], inverse), scaled(values[2 * i + 1], inverse));
    }
}

}  // namespace ng::tile
