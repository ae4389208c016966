// Numbers as unevaluated sums of two floats, with about 30 good bits: what a weight needs so that only its last rounding
// is seen. No approximate instruction takes part, so that a card and any model of it give the same bits.
#pragma once
#include <stdint.h>

#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"

namespace ng::routing {

// `high` is the rounded sum.
struct Pair {
    float high, low;
};

// The intrinsics are never contracted into fused multiply-adds, which would undo the error terms.
__device__ __forceinline__ Pair two_sum(float a, float b) {
    const float sum = __fadd_rn(a, b);
    const float other = __fsub_rn(sum, a);
    return {sum, __fadd_rn(__fsub_rn(a, __fsub_rn(sum, other)), __fsub_rn(b, other))};
}

// The same where |a| is at least |b|, or a is 0.
__device__ __forceinline__ Pair ordered_sum(float a, float b) {
    const float sum = __fadd_rn(a, b);
    return {sum, __fsub_rn(b, __fsub_rn(sum, a))};
}

// Symmetric: a + b and b + a have the same bits.
__device__ __forceinline__ Pair add(Pair a, Pair b) {
    const Pair sum = two_sum(a.high, b.high);
    return ordered_sum(sum.high, __fadd_rn(sum.low, __fadd_rn(a.low, b.low)));
}

__device__ __forceinline__ Pair multiply(Pair a, Pair b) {
    const float high = __fmul_rn(a.high, b.high);
    const float error = ptx::fused_multiply_add(a.high, b.high, -high);
    return ordered_sum(high, ptx::fused_multiply_add(a.high, b.low, ptx::fused_multiply_add(a.low, b.high, error)));
}

__device__ __forceinline__ Pair divide(Pair a, Pair b) {
    const float inverse = ptx::reciprocal(b.high);
    const float high = __fmul_rn(a.high, inverse);
    const float rest = ptx::fused_multiply_add(-high, b.high, a.high);
    return ordered_sum(high, __fmul_rn(ptx::fused_multiply_add(-high, b.low, __fadd_rn(rest, a.low)), inverse));
}

__device__ __forceinline__ Pair square_root(Pair a) {
    const float high = ptx::square_root(a.high);
    const float rest = __fadd_rn(ptx::fused_multiply_add(-high, high, a.high), a.low);
    return ordered_sum(high, ptx::divide(rest, __fadd_rn(high, high)));
}

// times 2^exponent; 0 below the normal powers.
__device__ __forceinline__ Pair scaled(Pair a, int32_t exponent) {
    const float power = ptx::f32_from_bits(exponent < -126 ? 0u : uint32_t(exponent + 127) << 23);
    return {__fmul_rn(a.high, power), __fmul_rn(a.low, power)};
}

// The sum over all lanes, the same bits in each; lanes from `count` on hold zeros.
__device__ __forceinline__ Pair warp_sum(Pair value, uint32_t count) {
    for (uint32_t mask = 1; mask < count; mask *= 2) {
        const Pair other = {ptx::shuffle_xor(value.high, mask), ptx::shuffle_xor(value.low, mask)};
        value = add(value, other);
    }
    // Lanes beyond the tree know a part of it.
    return {ptx::shuffle_index(value.high, 0), ptx::shuffle_index(value.low, 0)};
}

// exp(a) times 2^exponent, for a up to 0; exactly 0 below -390 (NaN too).
__device__ __forceinline__ Pair exponential(Pair a, int32_t exponent) {
    if (!(a.high > -390.0f)) return {0.0f, 0.0f};
    const float n = rintf(__fmul_rn(a.high, 1.44269504f));
    // ln 2 in three pieces, of which the first two have so few bits that their products with n are exact.
    const float first = ptx::fused_multiply_add(n, -0.693145751953125f, a.high);
    const Pair rest = two_sum(first, __fmul_rn(n, -1.42860676533018704e-06f));
    const Pair r = ordered_sum(rest.high, __fadd_rn(rest.low, a.low));
    const float x = r.high;
    // From x^3 / 6 on, single floats suffice.
    float tail = ptx::fused_multiply_add(x, 2.48015873e-5f, 1.98412698e-4f);
    tail = ptx::fused_multiply_add(x, tail, 1.38888889e-3f);
    tail = ptx::fused_multiply_add(x, tail, 8.33333333e-3f);
    tail = ptx::fused_multiply_add(x, tail, 4.16666667e-2f);
    tail = ptx::fused_multiply_add(x, tail, 1.66666667e-1f);
    const float square = __fmul_rn(x, x);
    const float square_error =
        ptx::fused_multiply_add(x, r.low, __fmul_rn(0.5f, ptx::fused_multiply_add(x, x, -square)));
    const Pair one = ordered_sum(1.0f, x);
    const Pair both = ordered_sum(one.high, __fmul_rn(0.5f, square));
    const float low = __fadd_rn(__fadd_rn(one.low, both.low), __fadd_rn(r.low, square_error));
    const Pair sum = ordered_sum(both.high, ptx::fused_multiply_add(__fmul_rn(square, x), tail, low));
    return scaled(sum, int32_t(n) + exponent);
}

// ln(1 + t) / t for t of 0..1, by the series of the inverse hyperbolic tangent of t / (2 + t).
__device__ __forceinline__ Pair logarithm_ratio(Pair t) {
    const Pair below = add({2.0f, 0.0f}, t);
    const Pair u = divide(t, below);
    const float v = __fmul_rn(u.high, u.high);
    float tail = 1.0f / 19.0f;
#pragma unroll
    for (int odd = 17; odd >= 3; odd -= 2) tail = ptx::fused_multiply_add(v, tail, 1.0f / float(odd));
    const Pair front = divide({2.0f, 0.0f}, below);
    return multiply(front, ordered_sum(1.0f, __fmul_rn(v, tail)));
}

}  // namespace ng::routing
