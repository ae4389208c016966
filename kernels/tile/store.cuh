// Stores of wgmma accumulators.
#pragma once
#include <stdint.h>

#include "ptx/convert.cuh"

namespace ng::tile {

struct Bf16 {
    uint16_t bits;
};

__device__ __forceinline__ void store_pair(float* to, float first, float second) {
    *reinterpret_cast<float2*>(to) = make_float2(first, second);
}

__device__ __forceinline__ void store_pair(Bf16* to, float first, float second) {
    *reinterpret_cast<uint32_t*>(to) = ptx::bf16x2_from_f32(first, second);
}

__device__ __forceinline__ void store_one(float* to, float value) { *to = value; }

__device__ __forceinline__ void store_one(Bf16* to, float value) {
    to->bits = ptx::bf16_from_f32(value);
}

// Writes this warp's 16 rows of a [64, N] accumulator. `row` and `column` are those of the thread's first element;
// rows at or past `row_end` and columns at or past `column_end` belong to somebody else.
template <int N, class Out>
__device__ __forceinline__ void store_accumulators(const float (&values)[N / 2], Out* out, int64_t row_stride, uint32_t row,
                                                   uint32_t row_end, uint32_t column, uint32_t column_end, bool paired) {
    const bool whole = paired && (column & ~7u) + N <= column_end;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const uint32_t this_row = row + 8 * half;
        if (this_row >= row_end) continue;
        Out* const line = out + static_cast<int64_t>(this_row) * row_stride;
        if (whole) {
#pragma unroll
            for (int octet = 0; octet < N / 8; ++octet) {
                store_pair(line + column + 8 * octet, values[4 * octet + 2 * half], values[4 * octet + 2 * half + 1]);
            }
            continue;
        }
#pragma unroll
        for (int octet = 0; octet < N / 8; ++octet) {
            const uint32_t at = column + 8 * octet;
            if (at < column_end) store_one(line + at, values[4 * octet + 2 * half]);
            if (at + 1 < column_end) store_one(line + at + 1, values[4 * octet + 2 * half + 1]);
        }
    }
}

}  // namespace ng::tile
