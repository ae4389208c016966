// From f32 sums to a gradient: times alpha, plus what the output held, rounded to its type, each step once.
//
// Two lanes exchange halves of two octets, so that each holds four columns in a row: 16 bytes of f32, 8 of bf16. Four
// lanes then fill 64 or 32 bytes of a row, whole sectors, with no pass through shared memory.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/convert.cuh"
#include "ptx/memory.cuh"
#include "ptx/warp.cuh"

namespace ng::gemm {

__device__ __forceinline__ float4 load_four(const float* from) { return *reinterpret_cast<const float4*>(from); }

__device__ __forceinline__ float4 load_four(const uint16_t* from) {
    const uint2 pairs = *reinterpret_cast<const uint2*>(from);
    return make_float4(ptx::f32_from_bf16x2_low(pairs.x), ptx::f32_from_bf16x2_high(pairs.x),
                       ptx::f32_from_bf16x2_low(pairs.y), ptx::f32_from_bf16x2_high(pairs.y));
}

__device__ __forceinline__ float load_one(const float* from) { return *from; }
__device__ __forceinline__ float load_one(const uint16_t* from) { return ptx::f32_from_bf16(*from); }

__device__ __forceinline__ void store_four(float* to, float4 values) { *reinterpret_cast<float4*>(to) = values; }

__device__ __forceinline__ void store_four(uint16_t* to, float4 values) {
    *reinterpret_cast<uint2*>(to) =
        make_uint2(ptx::bf16x2_from_f32(values.x, values.y), ptx::bf16x2_from_f32(values.z, values.w));
}

__device__ __forceinline__ void store_one(float* to, float value) { *to = value; }
__device__ __forceinline__ void store_one(uint16_t* to, float value) { *to = ptx::bf16_from_f32(value); }

// After it, sums 8p + 4h .. 8p + 4h + 3 are columns 16p + gradient_column() .. + 3 of row half h.
template <int Count>
__device__ __forceinline__ void gather_columns(float (&sum)[Count]) {
    const bool odd = ptx::lane_id() % 2 != 0;
#pragma unroll
    for (int pair = 0; pair < Count; pair += 8) {
        float first[4], second[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float received = ptx::shuffle_xor(odd ? sum[pair + i] : sum[pair + 4 + i], 1);
            first[i] = odd ? received : sum[pair + i];
            second[i] = odd ? sum[pair + 4 + i] : received;
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            sum[pair + 4 * half] = first[2 * half];
            sum[pair + 4 * half + 1] = first[2 * half + 1];
            sum[pair + 4 * half + 2] = second[2 * half];
            sum[pair + 4 * half + 3] = second[2 * half + 1];
        }
    }
}

__device__ __forceinline__ uint32_t gradient_column() {
    const uint32_t lane = ptx::lane_id();
    return (lane & 1) * 8 + (lane & 2) * 2;
}

// One row half of gathered sums. `line` is the thread's first element, of which `left` exist in its row. All loads are
// on their way before the first sum.
template <int N, class Out>
__device__ __forceinline__ void store_line(float (&sum)[N / 2], int half, Out* line, int32_t left, bool wide, bool accumulate) {
    if (accumulate) {
        float old[N / 4];
#pragma unroll
        for (int pair = 0; pair < N / 16; ++pair) {
            const int32_t at = pair * 16;
            float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (wide && at + 3 < left) {
                four = load_four(line + at);
            } else {
                if (at < left) four.x = load_one(line + at);
                if (at + 1 < left) four.y = load_one(line + at + 1);
                if (at + 2 < left) four.z = load_one(line + at + 2);
                if (at + 3 < left) four.w = load_one(line + at + 3);
            }
            old[pair * 4] = four.x;
            old[pair * 4 + 1] = four.y;
            old[pair * 4 + 2] = four.z;
            old[pair * 4 + 3] = four.w;
        }
#pragma unroll
        for (int pair = 0; pair < N / 16; ++pair) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float& to = sum[pair * 8 + half * 4 + i];
                to = __fadd_rn(to, old[pair * 4 + i]);
            }
        }
    }
#pragma unroll
    for (int pair = 0; pair < N / 16; ++pair) {
        const int32_t at = pair * 16;
        const float* const from = sum + pair * 8 + half * 4;
        if (wide && at + 3 < left) {
            store_four(line + at, make_float4(from[0], from[1], from[2], from[3]));
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (at + i < left) store_one(line + at + i, from[i]);
            }
        }
    }
}

// This warp's 16 rows of a tile. `row` is the thread's first of them, `column` the tile's first.
template <int N>
__device__ __forceinline__ void store_gradient(float (&sum)[N / 2], const NgFp8GemmParams& p, uint32_t batch, uint32_t row,
                                               uint32_t column) {
    if (p.alpha != 1.0f) {
#pragma unroll
        for (float& value : sum) value = __fmul_rn(value, p.alpha);
    }
    gather_columns(sum);
    const bool wide = (p.flags & NG_GEMM_WIDE_STORES) != 0;
    const bool accumulate = (p.flags & NG_GEMM_ACCUMULATE) != 0;
    column += gradient_column();
    const int32_t left = p.n - column;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (row + 8 * half >= p.rows) continue;
        const int64_t element = batch * p.out_batch_stride + (row + 8 * half) * p.out_row_stride + column;
        if (p.out_type == NG_GEMM_OUT_F32) {
            store_line<N>(sum, half, reinterpret_cast<float*>(p.out) + element, left, wide, accumulate);
        } else {
            store_line<N>(sum, half, reinterpret_cast<uint16_t*>(p.out) + element, left, wide, accumulate);
        }
    }
}

// Brings the cache lines of 64 rows of a tile near, so that adding to them later does not wait for memory. `thread`: of
// the warpgroup.
template <int N>
__device__ __forceinline__ void prefetch_gradient(const NgFp8GemmParams& p, uint32_t batch, uint32_t row, uint32_t column,
                                                  uint32_t thread) {
    constexpr uint32_t kLines = N * 4 / 128;
    const uint32_t size = p.out_type == NG_GEMM_OUT_F32 ? 4 : 2;
    const uint32_t bytes = min(p.n - column, uint32_t(N)) * size;
    const int64_t first = batch * p.out_batch_stride + column;
#pragma unroll
    for (uint32_t i = thread; i < 64 * kLines; i += 128) {
        const uint32_t this_row = row + i / kLines, at = i % kLines * 128;
        if (this_row < p.rows && at < bytes) ptx::prefetch_l2(p.out + (first + this_row * p.out_row_stride) * size + at);
    }
}

}  // namespace ng::gemm
