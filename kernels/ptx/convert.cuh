// Conversions between f32 and the narrow formats.
#pragma once
#include <stdint.h>

namespace ng::ptx {

__device__ __forceinline__ float f32_from_bits(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t f32_to_bits(float value) { return __float_as_uint(value); }

// A bf16 is the upper half of an f32, so widening is exact.
__device__ __forceinline__ float f32_from_bf16(uint16_t bits) { return f32_from_bits(uint32_t(bits) << 16); }
__device__ __forceinline__ float f32_from_bf16x2_low(uint32_t pair) { return f32_from_bits(pair << 16); }
__device__ __forceinline__ float f32_from_bf16x2_high(uint32_t pair) { return f32_from_bits(pair & 0xffff0000u); }

// Round to nearest even; `low` lands in the lower half.
__device__ __forceinline__ uint32_t bf16x2_from_f32(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ uint16_t bf16_from_f32(float value) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ uint32_t f16x2_from_f32(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ float f32_from_f16(uint16_t bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// Round to nearest even, magnitudes above 448 saturate, NaN becomes 0x7f; `low` lands in the lower byte.
__device__ __forceinline__ uint16_t e4m3x2_from_f32(float low, float high) {
    uint16_t pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
    return pair;
}

// Exact: every e4m3 value is an f16; NaN stays.
__device__ __forceinline__ uint32_t f16x2_from_e4m3x2(uint16_t codes) {
    uint32_t pair;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(codes));
    return pair;
}

}  // namespace ng::ptx
