// The choice of experts, a warp a token: scores, bias, groups, the k best in order, their weights.
// A lane owns consecutive experts of one group in registers, in ascending order over the lanes, so that the first lane
// of equals has the lowest expert. A slot costs one maximum over the warp, of numbers that order as the scores do, and a
// look at the lane's other experts.
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "routing/scores.cuh"

using namespace ng;

namespace {

constexpr uint32_t kWarps = 4;
static_assert(THREADS == kWarps * 32, "threads");
constexpr uint32_t kNone = 0xffffffffu;
constexpr uint32_t kFour = 4;

// This lane's experts: order 0 is one that may not be taken.
struct Lane {
    uint32_t order[LANE_EXPERTS];

    // The best and where it is, the first of equals.
    __device__ __forceinline__ void first(uint32_t& most, uint32_t& index) const {
        most = 0;
        index = 0;
#pragma unroll
        for (uint32_t four = 0; four < LANE_EXPERTS; four += kFour) {
            // Fours of their own shorten the chain.
            uint32_t here = order[four], at = four;
#pragma unroll
            for (uint32_t i = 1; i < kFour; ++i) {
                const bool ahead = order[four + i] > here;
                here = ahead ? order[four + i] : here;
                at = ahead ? four + i : at;
            }
            const bool ahead = here > most;
            most = ahead ? here : most;
            index = ahead ? at : index;
        }
    }

    __device__ __forceinline__ void remove(uint32_t index) {
#pragma unroll
        for (uint32_t i = 0; i < LANE_EXPERTS; ++i) order[i] = i == index ? 0 : order[i];
    }
};

struct Place {
    uint32_t group, base, count;
};

// Where this lane's experts are.
__device__ __forceinline__ Place place_of(const NgRouterParams& p, uint32_t lane) {
    const uint32_t group = lane / p.group_lanes;
    const uint32_t first = lane % p.group_lanes * p.lane_experts;
    const bool used = group < p.groups && first < p.group_size;
    return {group, group * p.group_size + first, used ? min(p.lane_experts, p.group_size - first) : 0};
}

__device__ __forceinline__ void load(const NgRouterParams& p, uint64_t row, const Place& place,
                                     float (&x)[LANE_EXPERTS]) {
#pragma unroll
    for (uint32_t i = 0; i < LANE_EXPERTS; i += kFour) {
        if (p.vectorised) {
            float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (i < place.count) four = routing::load_logits4(p, row + place.base + i);
            x[i] = four.x, x[i + 1] = four.y, x[i + 2] = four.z, x[i + 3] = four.w;
        } else {
#pragma unroll
            for (uint32_t j = i; j < i + kFour; ++j) {
                x[j] = j < place.count ? routing::load_logit(p, row + place.base + j) : 0.0f;
            }
        }
    }
}

// Replaces logits by scores with their bias; NaN stays.
__device__ __forceinline__ void score(const NgRouterParams& p, uint64_t row, uint32_t lane, const Place& place,
                                      float (&x)[LANE_EXPERTS]) {
    if (p.scoring == NG_SCORING_SIGMOID) {
#pragma unroll
        for (float& value : x) value = routing::sigmoid_fast(value);
    } else if (p.scoring == NG_SCORING_SQRT_SOFTPLUS) {
#pragma unroll
        for (float& value : x) value = routing::sqrt_softplus_fast(value);
    } else if (p.scoring == NG_SCORING_SOFTMAX) {
        const routing::Total total = routing::softmax_total(p, row, lane);
        const float inverse = ptx::reciprocal(total.sum.high);
#pragma unroll
        for (float& value : x) {
            const float below = fminf(fmaxf(value, -3.40282347e38f), 3.40282347e38f) - total.largest;
            value = value == value ? ptx::exp2_approximate(below * routing::kLog2E) * inverse : value;
        }
    }
    if (p.bias != 0) {
        const float* bias = tile::pointer<const float>(p.bias) + place.base;
#pragma unroll
        for (uint32_t i = 0; i < LANE_EXPERTS; ++i) x[i] += i < place.count ? bias[i] : 0.0f;
    }
}

// Whether this lane's group is among those kept.
__device__ __forceinline__ bool keeps(const NgRouterParams& p, uint32_t lane, const Place& place, const Lane& mine) {
    uint32_t best = 0, second = 0;
#pragma unroll
    for (uint32_t i = 0; i < LANE_EXPERTS; ++i) {
        second = max(second, min(best, mine.order[i]));
        best = max(best, mine.order[i]);
    }
    // Lane g collects what the lanes of group g have.
    uint32_t group_best = 0, group_second = 0;
    for (uint32_t part = 0; part < p.group_lanes; ++part) {
        const uint32_t from = (lane * p.group_lanes + part) % 32;
        const uint32_t other = ptx::shuffle_index(best, from), next = ptx::shuffle_index(second, from);
        group_second = max(max(group_second, next), min(group_best, other));
        group_best = max(group_best, other);
    }
    uint32_t rank_by = group_best;
    if (p.pair_score && p.group_size > 1) {
        // One expert alone is no pair.
        rank_by = group_second == 0 ? 0
                                    : routing::order_of(routing::value_of(group_best) + routing::value_of(group_second));
    }
    // How many groups come first; lanes without a group count nobody's.
    uint32_t before = 0;
    for (uint32_t group = 0; group < p.groups; ++group) {
        const uint32_t other = ptx::shuffle_index(rank_by, group);
        before += other > rank_by || (other == rank_by && group < lane) ? 1 : 0;
    }
    const uint32_t kept = ptx::ballot(lane < p.groups && before < p.kept_groups);
    return place.group < p.groups && (kept >> place.group & 1) != 0;
}

// The experts of slot `lane`.
__device__ __forceinline__ uint32_t choose(const NgRouterParams& p, uint64_t row, uint32_t lane, bool& nan) {
    const Place place = place_of(p, lane);
    float x[LANE_EXPERTS];
    load(p, row, place, x);
    if (p.scored) score(p, row, lane, place, x);
    // Logits in the order of scores that are never -inf may be -inf themselves.
    const bool lowest = !p.scored && p.scoring != NG_SCORING_LOGITS;
    Lane mine;
#pragma unroll
    for (uint32_t i = 0; i < LANE_EXPERTS; ++i) {
        const bool number = x[i] == x[i];
        const bool open = number && (lowest || x[i] > ptx::f32_from_bits(0xff800000u));
        nan |= i < place.count && !number;
        mine.order[i] = i < place.count && open ? routing::order_of(x[i]) : 0;
    }
    uint32_t most, index;
    mine.first(most, index);
    if (p.kept_groups < p.groups && !keeps(p, lane, place, mine)) most = 0;

    uint32_t chosen = kNone;
    for (uint32_t slot = 0; slot < p.slots; ++slot) {
        const uint32_t top = ptx::warp_maximum(most);
        if (top == 0) break;
        const uint32_t winner = __ffs(ptx::ballot(most == top)) - 1;
        const uint32_t expert = ptx::shuffle_index(place.base + index, winner);
        if (lane == slot) chosen = expert;
        if (lane == winner) {
            mine.remove(index);
            mine.first(most, index);
        }
    }
    return chosen;
}

// The weight of the expert that this lane has, 0 of none.
__device__ __forceinline__ float weigh(const NgRouterParams& p, uint64_t row, uint32_t lane, uint32_t chosen, bool& nan) {
    float x = 0.0f;
    bool counts = chosen != kNone;
    if (counts) {
        x = routing::load_logit(p, row + chosen);
        // Only a table chooses such.
        if (x != x) {
            nan = true;
            counts = false;
        }
    }
    x = routing::finite(x);
    const bool normalised = p.weighting != NG_WEIGHTS_SCORES;
    routing::Pair value = {0.0f, 0.0f}, sum = {1.0f, 0.0f};
    float scale = p.scale;
    if (p.weighting == NG_WEIGHTS_SOFTMAX || p.scoring == NG_SCORING_SOFTMAX) {
        float largest = 0.0f;
        if (normalised) {
            largest = routing::value_of(ptx::warp_maximum(counts ? routing::order_of(x) : 0));
        } else {
            const routing::Total total = routing::softmax_total(p, row, lane);
            largest = total.largest;
            sum = total.sum;
        }
        if (counts) value = routing::exponential(routing::difference(x, largest), 0);
        if (normalised) sum = routing::warp_sum(value, p.slots);
    } else if (p.scoring == NG_SCORING_LOGITS) {
        value = {counts ? x : 0.0f, 0.0f};
        if (normalised) sum = routing::warp_sum(value, p.slots);
    } else {
        if (counts) value = p.scoring == NG_SCORING_SIGMOID ? routing::sigmoid(x) : routing::sqrt_softplus(x);
        if (normalised) {
            sum = routing::add(routing::warp_sum(value, p.slots), routing::kSumFloor);
        } else {
            scale *= ptx::f32_from_bits(uint32_t(127 - routing::kLift) << 23);
        }
    }
    if (!counts) return 0.0f;
    const routing::Pair quotient = routing::divide(value, sum);
    const float high = __fmul_rn(quotient.high, scale);
    if (routing::finite(high) != high) return routing::finite(high);
    const float rest = ptx::fused_multiply_add(quotient.high, scale, -high);
    return __fadd_rn(high, ptx::fused_multiply_add(quotient.low, scale, rest));
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS) NG_ENTRY(const __grid_constant__ NgRouterParams p) {
    ptx::grid_dependency_wait();
    const uint32_t lane = threadIdx.x % 32;
    const uint64_t token = uint64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
    if (token >= p.tokens) return;
    uint32_t report = 0;
    bool routed = true;
    if (p.token_count != 0) {
        const int32_t count = *tile::pointer<const int32_t>(p.token_count);
        routed = int64_t(token) < int64_t(count);
        if (count < 0 || uint32_t(count) > p.tokens) report |= NG_STATUS_BAD_LENGTH;
    }
    uint32_t chosen = kNone;
    float weight = 0.0f;
    if (routed) {
        const uint64_t row = token * p.logits_row_stride;
        bool nan = false;
        if (p.table != 0) {
            const int32_t entry = tile::pointer<const int32_t>(p.table_rows)[token];
            if (uint32_t(entry) >= p.vocabulary) {
                report |= NG_STATUS_BAD_TOKEN;
            } else if (lane < p.slots) {
                const int32_t expert = tile::pointer<const int32_t>(p.table)[uint64_t(entry) * p.slots + lane];
                if (uint32_t(expert) < p.experts) {
                    chosen = uint32_t(expert);
                } else if (expert != -1) {
                    report |= NG_STATUS_BAD_EXPERT;
                }
            }
        } else {
            chosen = choose(p, row, lane, nan);
        }
        weight = weigh(p, row, lane, chosen, nan);
        if (nan) report |= NG_STATUS_NAN_SCORE;
        if (lane < p.slots && chosen == kNone) report |= NG_STATUS_UNROUTED;
    }
    if (lane < p.slots) {
        tile::pointer<float>(p.weights)[token * p.slots + lane] = weight;
        tile::pointer<int32_t>(p.ids)[token * p.slots + lane] = int32_t(chosen);
    }
    report = ptx::warp_uniform(report);
    if (report != 0 && lane == 0) ptx::report_status(tile::pointer<uint32_t>(p.status), report);
}
