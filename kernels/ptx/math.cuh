// Arithmetic whose rounding must not depend on compiler flags.
#pragma once
#include <stdint.h>

namespace ng::ptx {

__device__ __forceinline__ float divide(float numerator, float denominator) {
    float quotient;
    asm("div.rn.f32 %0, %1, %2;" : "=f"(quotient) : "f"(numerator), "f"(denominator));
    return quotient;
}

__device__ __forceinline__ float reciprocal(float value) {
    float result;
    asm("rcp.rn.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

// 1 ulp, and no branch.
__device__ __forceinline__ float reciprocal_approximate(float value) {
    float result;
    asm("rcp.approx.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

__device__ __forceinline__ float square_root(float value) {
    float result;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

// Base-2 exponential, 2 ulp.
__device__ __forceinline__ float exp2_approximate(float value) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

__device__ __forceinline__ float log2_approximate(float value) {
    float result;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

// The larger operand; a NaN operand loses.
__device__ __forceinline__ float maximum(float a, float b) {
    float result;
    asm("max.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
}

// a * b + c, one rounding.
__device__ __forceinline__ float fused_multiply_add(float a, float b, float c) {
    float result;
    asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(result) : "f"(a), "f"(b), "f"(c));
    return result;
}

}  // namespace ng::ptx
