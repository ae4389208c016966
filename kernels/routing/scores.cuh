// Scores of experts: fast ones that rank, and exact ones of the few that are chosen.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "routing/pairs.cuh"
#include "tile/rows.cuh"

namespace ng::routing {

constexpr float kLog2E = 1.44269504f;
// Exact scores carry this power of two, so that those whose sum is near its floor keep their bits.
constexpr int32_t kLift = 56;
// 1e-20 * 2^56.
constexpr Pair kSumFloor = {7.20575917512178421e-4f, 2.28671006e-11f};

// A number that orders as floats do, -0 and +0 alike; 0 is below all of them.
__device__ __forceinline__ uint32_t order_of(float value) {
    const uint32_t bits = ptx::f32_to_bits(__fadd_rn(value, 0.0f));
    return bits ^ (uint32_t(int32_t(bits) >> 31) | 0x80000000u);
}

__device__ __forceinline__ float value_of(uint32_t order) {
    return ptx::f32_from_bits(order ^ (uint32_t(int32_t(~order) >> 31) | 0x80000000u));
}

__device__ __forceinline__ float load_logit(const NgRouterParams& p, uint64_t at) {
    if (p.logit_type == NG_FLOAT_F32) return tile::pointer<const float>(p.logits)[at];
    return ptx::f32_from_bf16(tile::pointer<const uint16_t>(p.logits)[at]);
}

__device__ __forceinline__ float4 load_logits4(const NgRouterParams& p, uint64_t at) {
    if (p.logit_type == NG_FLOAT_F32) return *reinterpret_cast<const float4*>(tile::pointer<const float>(p.logits) + at);
    const uint2 packed = *reinterpret_cast<const uint2*>(tile::pointer<const uint16_t>(p.logits) + at);
    return make_float4(ptx::f32_from_bf16x2_low(packed.x), ptx::f32_from_bf16x2_high(packed.x),
                       ptx::f32_from_bf16x2_low(packed.y), ptx::f32_from_bf16x2_high(packed.y));
}

// Infinite logits count as the largest numbers.
__device__ __forceinline__ float finite(float logit) { return fminf(fmaxf(logit, -3.40282347e38f), 3.40282347e38f); }

__device__ __forceinline__ Pair difference(float a, float b) {
    const Pair sum = two_sum(a, -b);
    return {sum.high, sum.high > -390.0f ? sum.low : 0.0f};
}

// Rank by these: 8 roundings off, of 1 or of the score if it is larger.
__device__ __forceinline__ float sigmoid_fast(float x) {
    return ptx::reciprocal_approximate(1.0f + ptx::exp2_approximate(x * -kLog2E));
}

__device__ __forceinline__ float sqrt_softplus_fast(float x) {
    const float t = ptx::exp2_approximate(fabsf(x) * -kLog2E);
    const float u = t * ptx::reciprocal_approximate(2.0f + t);
    const float v = u * u;
    float tail = 1.0f / 13.0f;
#pragma unroll
    for (int odd = 11; odd >= 1; odd -= 2) tail = ptx::fused_multiply_add(v, tail, 1.0f / float(odd));
    return ptx::square_root(fmaxf(x, 0.0f) + 2.0f * u * tail);
}

// The score times 2^kLift.
__device__ __forceinline__ Pair sigmoid(float x) {
    const Pair t = exponential({-fabsf(x), 0.0f}, 0);
    const Pair below = add({1.0f, 0.0f}, t);
    const Pair above = x < 0.0f ? exponential({x, 0.0f}, kLift) : Pair{ptx::f32_from_bits(uint32_t(127 + kLift) << 23), 0.0f};
    return divide(above, below);
}

// sqrt(ln(1 + e^x)) times 2^kLift: e^(x/2) sqrt(ln(1 + t) / t) with t = e^x where x is negative, else
// sqrt(x + ln(1 + t)) with t = e^-x.
__device__ __forceinline__ Pair sqrt_softplus(float x) {
    const Pair t = exponential({-fabsf(x), 0.0f}, 0);
    const Pair ratio = logarithm_ratio(t);
    const bool negative = x < 0.0f;
    const Pair inside = negative ? ratio : add({x, 0.0f}, multiply(t, ratio));
    const Pair root = square_root(inside);
    if (!negative) return scaled(root, kLift);
    return multiply(root, exponential({0.5f * x, 0.0f}, kLift));
}

// The largest logit of a row and the sum of exp(logit - largest) over all that are not NaN.
struct Total {
    float largest;
    Pair sum;
};

__device__ __forceinline__ Total softmax_total(const NgRouterParams& p, uint64_t row, uint32_t lane) {
    uint32_t most = 0;
    for (uint32_t expert = lane; expert < p.experts; expert += 32) {
        const float x = load_logit(p, row + expert);
        if (x == x) most = max(most, order_of(x));
    }
    Total total = {finite(value_of(ptx::warp_maximum(most))), {0.0f, 0.0f}};
    for (uint32_t expert = lane; expert < p.experts; expert += 32) {
        const float x = load_logit(p, row + expert);
        if (x == x) total.sum = add(total.sum, exponential(difference(finite(x), total.largest), 0));
    }
    total.sum = warp_sum(total.sum, 32);
    return total;
}

}  // namespace ng::routing
