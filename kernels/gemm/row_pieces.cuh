// The end of a product, row by row: four neighbouring sums of one output row a lane, from f32 to what is stored.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/convert.cuh"
#include "tile/quantize.cuh"
#include "tile/rows.cuh"
#include "tile/swiglu.cuh"

namespace ng::gemm {

// Where a piece belongs. `group` names its weights, `line` counts the rows of all batches.
struct PiecePlace {
    uint32_t group;
    uint32_t batch;
    uint32_t row;
    uint32_t column;
    uint64_t line;
    bool exists;
};

__device__ __forceinline__ void load_piece(const float* from, uint32_t count, float (&values)[4]) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) values[i] = i < count ? from[i] : 0.0f;
}

// What the output holds, for products that are added to it.
__device__ __forceinline__ void load_output(const NgFp8GemmParams& p, uint64_t element, uint32_t count, float (&old)[4]) {
    if (p.out_type == NG_GEMM_OUT_F32) {
        load_piece(tile::pointer<const float>(p.out) + element, count, old);
        return;
    }
    const auto* from = tile::pointer<const uint16_t>(p.out) + element;
    const bool half = p.out_type == NG_GEMM_OUT_F16;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        const uint16_t bits = i < count ? from[i] : 0;
        old[i] = half ? ptx::f32_from_f16(bits) : ptx::f32_from_bf16(bits);
    }
}

// `words` hold the piece's elements of `Bytes` bytes; `whole` promises that they all exist on an aligned address.
template <int Bytes>
__device__ __forceinline__ void store_piece(uint8_t* to, const uint32_t (&words)[Bytes], uint32_t count, bool whole) {
    if constexpr (Bytes == 4) {
        if (whole) *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    } else if constexpr (Bytes == 2) {
        if (whole) *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
    } else {
        if (whole) *reinterpret_cast<uint32_t*>(to) = words[0];
    }
    if (whole) return;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        if (i < count) {
            if constexpr (Bytes == 4) reinterpret_cast<uint32_t*>(to)[i] = words[i];
            if constexpr (Bytes == 2) reinterpret_cast<uint16_t*>(to)[i] = uint16_t(words[i / 2] >> (16 * (i % 2)));
            if constexpr (Bytes == 1) to[i] = uint8_t(words[0] >> (8 * i));
        }
    }
}

// Alpha, column scales and bias. `side` is how far behind the output's columns the weights' rows are.
__device__ __forceinline__ void scale_piece(const NgFp8GemmParams& p, float (&values)[4], const PiecePlace& at, uint32_t count,
                                            uint32_t side = 0) {
    if (p.alpha != 1.0f) {
#pragma unroll
        for (float& value : values) value = __fmul_rn(value, p.alpha);
    }
    float other[4];
    if (p.column_scales != 0) {
        const auto* scales = tile::pointer<const float>(p.column_scales);
        load_piece(scales + at.group * p.column_scales_group_stride + at.column + side, count, other);
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] = __fmul_rn(values[i], other[i]);
    }
    if (p.bias != 0) {
        load_piece(tile::pointer<const float>(p.bias) + at.group * p.bias_group_stride + at.column + side, count, other);
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] = __fadd_rn(values[i], other[i]);
    }
}

__device__ __forceinline__ void weigh_piece(const NgFp8GemmParams& p, float (&values)[4], const PiecePlace& at, uint32_t count) {
    if (p.row_weights == 0) return;
    const float weight = count != 0 ? tile::pointer<const float>(p.row_weights)[at.line] : 0.0f;
#pragma unroll
    for (float& value : values) value = __fmul_rn(value, weight);
}

// A warp's 128 columns of one row to e4m3 with their scale. All lanes arrive.
__device__ __forceinline__ void quantize_piece(const NgFp8GemmParams& p, float (&values)[4], const PiecePlace& at, uint32_t count,
                                               uint64_t element, bool whole) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) values[i] = i < count ? values[i] : 0.0f;
    float amax = tile::kSmallestAmax;
#pragma unroll
    for (const float value : values) {
        if (tile::is_finite(value)) amax = ptx::maximum(amax, fabsf(value));
    }
#pragma unroll
    for (uint32_t mask = 16; mask > 0; mask /= 2) amax = ptx::maximum(amax, ptx::shuffle_xor(amax, mask));
    const float scale = tile::scale_of(amax, (p.flags & NG_GEMM_SCALES_POWER_OF_TWO) != 0);
    const float inverse = ptx::reciprocal(scale);
    uint32_t codes[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        codes[i] = ptx::e4m3x2_from_f32(tile::scaled(values[2 * i], inverse), tile::scaled(values[2 * i + 1], inverse));
    }
    const uint32_t words[1] = {codes[0] | codes[1] << 16};
    store_piece<1>(tile::pointer<uint8_t>(p.out) + element, words, count, whole);
    if (at.column % 128 == 0 && count != 0) {
        tile::pointer<float>(p.out_scales)[int64_t(at.line) * p.out_scales_row_stride +
                                           at.column / 128 * p.out_scales_block_stride] = scale;
    }
}

__device__ __forceinline__ uint32_t piece_count(const NgFp8GemmParams& p, const PiecePlace& at) {
    return at.exists && at.column < p.n ? min(p.n - at.column, 4u) : 0;
}

__device__ __forceinline__ uint64_t piece_element(const NgFp8GemmParams& p, const PiecePlace& at) {
    return at.batch * p.out_batch_stride + at.row * p.out_row_stride + at.column;
}

// SwiGLU of the sums of four gates and of the ups of the same columns, p.n rows of weights behind them, to e4m3. All lanes
// arrive.
__device__ __forceinline__ void finish_swiglu(const NgFp8GemmParams& p, float (&gates)[4], float (&ups)[4], const PiecePlace& at) {
    const uint32_t count = piece_count(p, at);
    scale_piece(p, gates, at, count);
    scale_piece(p, ups, at, count, p.n);
#pragma unroll
    for (int i = 0; i < 4; ++i) gates[i] = tile::swiglu(gates[i], ups[i], p.clamp);
    weigh_piece(p, gates, at, count);
    quantize_piece(p, gates, at, count, piece_element(p, at), count == 4 && (p.flags & NG_GEMM_WIDE_STORES) != 0);
}

// alpha, column scales, bias, the old output, the row's weight, in this order, each rounded once; then the output's
// type. FP8 output needs the 128 columns of a scale in one warp (`Lanes` == 32). All lanes arrive, also those whose
// piece does not exist: a shuffle under a branch would cost the whole kernel its uniform registers.
template <uint32_t Lanes>
__device__ __forceinline__ void finish_piece(const NgFp8GemmParams& p, float (&values)[4], const PiecePlace& at) {
    const uint32_t count = piece_count(p, at);
    const uint64_t element = piece_element(p, at);
    scale_piece(p, values, at, count);
    if (p.flags & NG_GEMM_ACCUMULATE) {
        float other[4];
        load_output(p, element, count, other);
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] = __fadd_rn(values[i], other[i]);
    }
    weigh_piece(p, values, at, count);
    const bool whole = count == 4 && (p.flags & NG_GEMM_WIDE_STORES) != 0;
    auto* const out = tile::pointer<uint8_t>(p.out);
    switch (p.out_type) {
        case NG_GEMM_OUT_F32: {
            const uint32_t words[4] = {ptx::f32_to_bits(values[0]), ptx::f32_to_bits(values[1]),
                                       ptx::f32_to_bits(values[2]), ptx::f32_to_bits(values[3])};
            store_piece<4>(out + element * 4, words, count, whole);
            return;
        }
        case NG_GEMM_OUT_F16: {
            const uint32_t words[2] = {ptx::f16x2_from_f32(values[0], values[1]),
                                       ptx::f16x2_from_f32(values[2], values[3])};
            store_piece<2>(out + element * 2, words, count, whole);
            return;
        }
        case NG_GEMM_OUT_E4M3:
            if constexpr (Lanes == 32) quantize_piece(p, values, at, count, element, whole);
            return;
        default: {
            const uint32_t words[2] = {ptx::bf16x2_from_f32(values[0], values[1]),
                                       ptx::bf16x2_from_f32(values[2], values[3])};
            store_piece<2>(out + element * 2, words, count, whole);
        }
    }
}

}  // namespace ng::gemm
