// Rows of bf16 and FP8, eight consecutive elements a thread.
#pragma once
#include <stdint.h>

#include "ptx/convert.cuh"

namespace ng::tile {

template <class T>
__device__ __forceinline__ T* pointer(uint64_t address) {
    return reinterpret_cast<T*>(address);
}

// Elements first..first+8 of a row of `count`, zero past its end. `vectorised` promises that the row is 16-byte aligned
// and `count` a multiple of 8, so that a piece is inside or outside as a whole.
__device__ __forceinline__ void load_bf16x8(const uint16_t* row, uint32_t first, uint32_t count, bool vectorised,
                                            float (&values)[8]) {
    if (vectorised) {
        uint4 packed = make_uint4(0, 0, 0, 0);
        if (first < count) packed = *reinterpret_cast<const uint4*>(row + first);
        const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            values[2 * i] = ptx::f32_from_bf16x2_low(words[i]);
            values[2 * i + 1] = ptx::f32_from_bf16x2_high(words[i]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) values[i] = first + i < count ? ptx::f32_from_bf16(row[first + i]) : 0.0f;
    }
}

// Rounds `values` to bf16 and stores what lies inside the row.
__device__ __forceinline__ void store_bf16x8(uint16_t* row, uint32_t first, uint32_t count, bool vectorised,
                                             const float (&values)[8]) {
    if (vectorised) {
        if (first < count) {
            *reinterpret_cast<uint4*>(row + first) = make_uint4(
                ptx::bf16x2_from_f32(values[0], values[1]), ptx::bf16x2_from_f32(values[2], values[3]),
                ptx::bf16x2_from_f32(values[4], values[5]), ptx::bf16x2_from_f32(values[6], values[7]));
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (first + i < count) row[first + i] = ptx::bf16_from_f32(values[i]);
        }
    }
}

// The same for FP8 codes, two to a word of `codes`; vectorised rows are 8-byte aligned here.
__device__ __forceinline__ void store_e4m3x8(uint8_t* row, uint32_t first, uint32_t count, bool vectorised,
                                             const uint16_t (&codes)[4]) {
    if (vectorised) {
        if (first < count) {
            *reinterpret_cast<uint2*>(row + first) = make_uint2(codes[0] | uint32_t(codes[1]) << 16,
                                                                codes[2] | uint32_t(codes[3]) << 16);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (first + i < count) row[first + i] = uint8_t(codes[i / 2] >> (8 * (i % 2)));
        }
    }
}

}  // namespace ng::tile
