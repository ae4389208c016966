// Partial attentions over parts of the same keys, joined by the logarithms of their sums.
//
// A thread owns the columns of one row that one access of 16 bytes brings (or one column, where rows are not aligned for
// that) and goes through the parts in their order; all of a row's threads compute the same weights.
#include "abi.h"
#include "mla/softmax.cuh"
#include "ptx/convert.cuh"
#include "ptx/grid.cuh"
#include "ptx/math.cuh"

using namespace ng;

namespace {

constexpr float kLog2e = 1.44269504088896f;
constexpr float kLn2 = 0.693147180559945f;

template <uint32_t Type, int Count>
__device__ __forceinline__ void load(const uint8_t* from, float (&to)[Count]) {
    constexpr int kBytes = Type == NG_FLOAT_F32 ? 4 : 2;
    constexpr int kWords = Count * kBytes / 4;
    if constexpr (Count == 1) {
        if constexpr (Type == NG_FLOAT_F32) to[0] = *reinterpret_cast<const float*>(from);
        const auto bits = [&] { return *reinterpret_cast<const uint16_t*>(from); };
        if constexpr (Type == NG_FLOAT_BF16) to[0] = ptx::f32_from_bf16(bits());
        if constexpr (Type == NG_FLOAT_F16) to[0] = ptx::f32_from_f16(bits());
    } else {
        static_assert(kWords == 4, "16 bytes");
        const uint4 all = *reinterpret_cast<const uint4*>(from);
        const uint32_t words[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (Type == NG_FLOAT_F32) {
                to[i] = ptx::f32_from_bits(words[i]);
            } else if constexpr (Type == NG_FLOAT_BF16) {
                to[2 * i] = ptx::f32_from_bf16x2_low(words[i]);
                to[2 * i + 1] = ptx::f32_from_bf16x2_high(words[i]);
            } else {
                to[2 * i] = ptx::f32_from_f16(static_cast<uint16_t>(words[i]));
                to[2 * i + 1] = ptx::f32_from_f16(static_cast<uint16_t>(words[i] >> 16));
            }
        }
    }
}

template <int Count>
__device__ __forceinline__ void store(uint8_t* to, uint32_t type, const float (&values)[Count]) {
    if (type == NG_FLOAT_F32) {
        if constexpr (Count == 1) {
            *reinterpret_cast<float*>(to) = values[0];
        } else {
#pragma unroll
            for (int i = 0; i < Count; i += 4)
                reinterpret_cast<float4*>(to)[i / 4] = make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]);
        }
        return;
    }
    const auto pair = [type](float low, float high) {
        return type == NG_FLOAT_BF16 ? ptx::bf16x2_from_f32(low, high) : ptx::f16x2_from_f32(low, high);
    };
    if constexpr (Count == 1) {
        *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(pair(values[0], 0.0f));
    } else {
#pragma unroll
        for (int i = 0; i < Count; i += 4)
            reinterpret_cast<uint2*>(to)[i / 4] =
                make_uint2(pair(values[i], values[i + 1]), pair(values[i + 2], values[i + 3]));
    }
}

// One thread's columns of one row.
template <uint32_t Type, int Count>
__device__ __forceinline__ void merge(const NgMergeParams& p, uint32_t row, uint32_t column) {
    constexpr int64_t kBytes = Type == NG_FLOAT_F32 ? 4 : 2;
    const int64_t head = row % p.heads;
    const int64_t token = row / p.heads;

    const float* lse = reinterpret_cast<const float*>(p.lse) + head * p.lse_head_stride + token * p.lse_token_stride;
    float maximum = -mla::kInfinity;
    for (uint32_t part = 0; part < p.parts; ++part) maximum = ptx::maximum(maximum, lse[part * p.lse_part_stride]);

    const uint8_t* from = reinterpret_cast<const uint8_t*>(p.partial) +
                          (token * p.partial_token_stride + head * p.partial_head_stride + column) * kBytes;
    float sums[Count] = {};
    float sum = 0.0f;
#pragma unroll 4
    for (uint32_t part = 0; part < p.parts; ++part) {
        const float logarithm = lse[part * p.lse_part_stride];
        // A part without keys may hold anything.
        if (logarithm == -mla::kInfinity) continue;
        const float weight = ptx::exp2_approximate((logarithm - maximum) * kLog2e);
        float values[Count];
        load<Type>(from + part * p.partial_part_stride * kBytes, values);
        sum += weight;
#pragma unroll
        for (int i = 0; i < Count; ++i) sums[i] = ptx::fused_multiply_add(weight, values[i], sums[i]);
    }

    const float total = sum == 0.0f ? -mla::kInfinity : maximum + ptx::log2_approximate(sum) * kLn2;
    if (p.out_lse != 0 && column == 0)
        reinterpret_cast<float*>(p.out_lse)[head * p.out_lse_head_stride + token * p.out_lse_token_stride] = total;
    float scale = mla::inverse_sum(sum);
    if (p.sinks != 0 && sum != 0.0f) {
        const float sink = reinterpret_cast<const float*>(p.sinks)[head];
        scale *= ptx::reciprocal(1.0f + ptx::exp2_approximate((sink - total) * kLog2e));
    }
#pragma unroll
    for (int i = 0; i < Count; ++i) sums[i] *= scale;
    const int64_t out_bytes = p.out_type == NG_FLOAT_F32 ? 4 : 2;
    store<Count>(reinterpret_cast<uint8_t*>(p.out) +
                     (token * p.out_token_stride + head * p.out_head_stride + column) * out_bytes,
                 p.out_type, sums);
}

// A block takes as many whole rows as it has threads for, and of longer rows one.
template <uint32_t Type, int Count>
__device__ __forceinline__ void merge_rows(const NgMergeParams& p) {
    const uint32_t pieces = p.columns / Count;
    const uint32_t inside = threadIdx.x / pieces;
    const uint32_t row = blockIdx.x * p.block_rows + inside;
    if (inside >= p.block_rows || row >= p.rows) return;
    for (uint32_t piece = threadIdx.x % pieces; piece < pieces; piece += NG_MERGE_THREADS)
        merge<Type, Count>(p, row, piece * Count);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(NG_MERGE_THREADS) NG_ENTRY(const __grid_constant__ NgMergeParams p) {
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();
    if (p.vectorised == 0) {
        switch (p.partial_type) {
            case NG_FLOAT_BF16: return merge_rows<NG_FLOAT_BF16, 1>(p);
            case NG_FLOAT_F16: return merge_rows<NG_FLOAT_F16, 1>(p);
            default: return merge_rows<NG_FLOAT_F32, 1>(p);
        }
    }
    switch (p.partial_type) {
        case NG_FLOAT_BF16: return merge_rows<NG_FLOAT_BF16, 8>(p);
        case NG_FLOAT_F16: return merge_rows<NG_FLOAT_F16, 8>(p);
        default: return merge_rows<NG_FLOAT_F32, 4>(p);
    }
}
