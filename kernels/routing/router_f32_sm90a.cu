// Group-limited top-k routing as in DeepSeek-V3 (noaux_tc), a warp a token.
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/math.cuh"
#include "ptx/memory.cuh"
#include "ptx/warp.cuh"
#include "tile/rows.cuh"

using namespace ng;

namespace {

constexpr uint32_t kMaxExperts = 512;
constexpr uint32_t kPerLane = kMaxExperts / 32;
constexpr uint32_t kWarps = 4;
constexpr uint32_t kNone = 0xffffffffu;

__device__ __forceinline__ float negative_infinity() { return ptx::f32_from_bits(0xff800000u); }

__device__ __forceinline__ float sigmoid(float x) { return ptx::divide(1.0f, 1.0f + expf(-x)); }

__device__ __forceinline__ bool ahead(float value, uint32_t index, float other, uint32_t other_index) {
    return value > other || (value == other && index < other_index);
}

}  // namespace

// Shared memory holds each warp's biased scores, -inf for what may not be chosen.
extern "C" __global__ void __launch_bounds__(kWarps * 32) NG_ENTRY(const __grid_constant__ NgRouterParams p) {
    __shared__ float shared_biased[kWarps][kMaxExperts];
    ptx::grid_dependency_wait();
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint64_t token = uint64_t(blockIdx.x) * kWarps + warp;
    if (token >= p.tokens) return;
    const auto* logits = tile::pointer<const float>(p.logits) + token * p.logits_row_stride;
    const auto* bias = tile::pointer<const float>(p.bias);
    float* biased = shared_biased[warp];

    bool nan = false;
    for (uint32_t expert = lane; expert < p.experts; expert += 32) {
        float value = sigmoid(logits[expert]) + bias[expert];
        if (value != value) {
            nan = true;
            value = negative_infinity();
        }
        biased[expert] = value;
    }
    ptx::warp_barrier();

    // Lane g scores group g by its two best and ranks it among all.
    uint32_t kept = kNone;
    const uint32_t group_size = p.experts / p.groups;
    if (p.kept_groups < p.groups) {
        float score = negative_infinity();
        if (lane < p.groups) {
            float best = negative_infinity(), second = negative_infinity();
            // Each lane starts elsewhere in its group: equal steps would meet in one bank.
            uint32_t step = lane % group_size;
            for (uint32_t i = 0; i < group_size; ++i) {
                const float value = biased[lane * group_size + step];
                step = step + 1 == group_size ? 0 : step + 1;
                second = fmaxf(second, fminf(best, value));
                best = fmaxf(best, value);
            }
            // A lone +inf beside -inf would make NaN.
            score = group_size == 1 ? best : second == negative_infinity() ? second : best + second;
        }
        // Lanes without a group come after all groups, of which not all are kept.
        uint32_t rank = 0;
        for (uint32_t group = 0; group < p.groups; ++group) {
            const float other = ptx::shuffle_index(score, group);
            rank += ahead(other, group, score, lane) ? 1 : 0;
        }
        kept = ptx::ballot(rank < p.kept_groups);
    }

    float candidates[kPerLane];
#pragma unroll
    for (uint32_t i = 0; i < kPerLane; ++i) {
        const uint32_t expert = i * 32 + lane;
        candidates[i] = negative_infinity();
        if (expert < p.experts && (kept >> (expert / group_size) & 1)) candidates[i] = biased[expert];
    }

    // Lane s keeps slot s.
    uint32_t chosen = kNone;
    for (uint32_t slot = 0; slot < p.slots; ++slot) {
        float best = negative_infinity();
        uint32_t index = kNone;
#pragma unroll
        for (uint32_t i = 0; i < kPerLane; ++i) {
            // Strictly greater: the first of equals stays, and -inf is never taken.
            if (candidates[i] > best) {
                best = candidates[i];
                index = i * 32 + lane;
            }
        }
#pragma unroll
        for (uint32_t mask = 1; mask < 32; mask *= 2) {
            const float other = ptx::shuffle_xor(best, mask);
            const uint32_t other_index = ptx::shuffle_xor(index, mask);
            if (ahead(other, other_index, best, index)) {
                best = other;
                index = other_index;
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < kPerLane; ++i) {
            if (i * 32 + lane == index) candidates[i] = negative_infinity();
        }
        if (lane == slot) chosen = index;
    }

    // Weights are the scores without bias.
    const bool routed = chosen != kNone;
    float weight = routed ? sigmoid(logits[chosen]) : 0.0f;
    if (p.normalize) {
        float sum = 0.0f;
        for (uint32_t slot = 0; slot < p.slots; ++slot) sum += ptx::shuffle_index(weight, slot);
        weight = ptx::divide(weight, sum + 1e-20f);
    }
    if (lane < p.slots) {
        tile::pointer<float>(p.weights)[token * p.slots + lane] = weight * p.scale;
        tile::pointer<int32_t>(p.ids)[token * p.slots + lane] = int32_t(chosen);
    }
    auto* status = tile::pointer<uint32_t>(p.status);
    if (nan) ptx::report_status(status, NG_STATUS_NAN_SCORE);
    if (lane < p.slots && chosen == kNone) ptx::report_status(status, NG_STATUS_UNROUTED);
}
