// The end of a product: from the f32 sums of a warp to the output, whatever its type. Each step rounds once, in this
// order: alpha, column scales, bias, what the output held, row weights, the output's type.
//
// 16-bit and 8-bit outputs pass through a piece of shared memory that belongs to the warp: 16 rows of kRowBytes,
// swizzled, so that rows leave in runs of 64 or 128 bytes. f32 leaves from registers: four lanes fill a sector.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/matrix.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/warp.cuh"
#include "tile/groups.cuh"
#include "tile/quantize.cuh"
#include "tile/rows.cuh"
#include "tile/swiglu.cuh"
#include "tile/swizzle.cuh"

namespace ng::gemm {

// Of one warp: 16 rows of a tile, `first_row` the first, all N columns of it.
template <int N, uint32_t RowBytes>
struct Epilogue {
    static constexpr uint32_t kBytes = 16 * RowBytes;
    static constexpr uint32_t kLanesPerRow = RowBytes / 16;
    const NgFp8GemmParams& p;
    uint8_t* piece;
    uint32_t lane;

    __device__ __forceinline__ void run(float (&sum)[N / 2], const tile::Tile& tile, uint32_t first_row) const {
        const uint32_t row = first_row + lane / 4;
        const uint32_t column = tile.column + lane % 4 * 2;
        finish(sum, tile, column);
        float weight[2];
        load_weights(weight, tile, row);
        const int64_t element = tile.batch * p.out_batch_stride + first_row * p.out_row_stride + tile.column;
        const uint32_t rows = tile.rows_from(first_row, 16);
        const uint32_t columns = p.n - tile.column;
        if (p.out_type == NG_GEMM_OUT_F32) {
            store_f32(sum, weight, tile::pointer<float>(p.out) + element, rows, columns);
        } else if (p.out_type == NG_GEMM_OUT_E4M3) {
            if constexpr (N == 128) store_e4m3(sum, weight, tile, row, element, rows, columns);
        } else {
            store_half(sum, weight, tile::pointer<uint16_t>(p.out) + element, rows, columns);
        }
    }

    // The same with two sides: SwiGLU of `gate`, the first p.n rows of the weights, and `up`, the p.n rows behind them, to
    // e4m3. What comes before row weights is done to both.
    __device__ __forceinline__ void run_swiglu(float (&gate)[N / 2], float (&up)[N / 2], const tile::Tile& tile,
                                               uint32_t first_row) const {
        const uint32_t row = first_row + lane / 4;
        const uint32_t column = tile.column + lane % 4 * 2;
        finish(gate, tile, column);
        finish(up, tile, column, p.n);
#pragma unroll
        for (int i = 0; i < N / 2; ++i) gate[i] = tile::swiglu(gate[i], up[i], p.clamp);
        float weight[2];
        load_weights(weight, tile, row);
        const int64_t element = tile.batch * p.out_batch_stride + first_row * p.out_row_stride + tile.column;
        store_e4m3(gate, weight, tile, row, element, tile.rows_from(first_row, 16), p.n - tile.column);
    }

private:
    // Alpha, column scales and bias. `column` is the thread's first of the output, `side` how far behind it the weights'
    // row is.
    __device__ __forceinline__ void finish(float (&sum)[N / 2], const tile::Tile& tile, uint32_t column, uint32_t side = 0) const {
        if (p.alpha != 1.0f) {
#pragma unroll
            for (float& value : sum) value = __fmul_rn(value, p.alpha);
        }
        if (p.column_scales != 0) {
            const int64_t first = tile.group * p.column_scales_group_stride + column + side;
            with_columns(tile::pointer<const float>(p.column_scales) + first, p.n - column, [&](int i, float a, float b) {
                sum[i] = __fmul_rn(sum[i], a);
                sum[i + 1] = __fmul_rn(sum[i + 1], b);
                sum[i + 2] = __fmul_rn(sum[i + 2], a);
                sum[i + 3] = __fmul_rn(sum[i + 3], b);
            });
        }
        if (p.bias != 0) {
            const int64_t first = tile.group * p.bias_group_stride + column + side;
            with_columns(tile::pointer<const float>(p.bias) + first, p.n - column, [&](int i, float a, float b) {
                sum[i] = __fadd_rn(sum[i], a);
                sum[i + 1] = __fadd_rn(sum[i + 1], b);
                sum[i + 2] = __fadd_rn(sum[i + 2], a);
                sum[i + 3] = __fadd_rn(sum[i + 3], b);
            });
        }
    }

    // Of the thread's two rows.
    __device__ __forceinline__ void load_weights(float (&weight)[2], const tile::Tile& tile, uint32_t row) const {
        weight[0] = weight[1] = 1.0f;
        if (p.row_weights == 0) return;
        const float* const weights = tile::pointer<const float>(p.row_weights) + line(tile, row);
        if (row < tile.row_end) weight[0] = weights[0];
        if (row + 8 < tile.row_end) weight[1] = weights[8];
    }

    // Counts the rows of all batches.
    __device__ __forceinline__ int64_t line(const tile::Tile& tile, uint32_t row) const {
        return static_cast<int64_t>(tile.batch) * p.rows + row;
    }

    // One vector along N, two neighbours of each octet. Of the thread's columns `left` exist, as int32; the others get
    // what the last one has.
    template <class Use>
    __device__ __forceinline__ void with_columns(const float* from, int32_t left, Use use) const {
        if (left <= 0) return;
#pragma unroll
        for (int octet = 0; octet < N / 8; ++octet) {
            const int32_t at = octet * 8;
            use(octet * 4, from[min(at, left - 1)], from[min(at + 1, left - 1)]);
        }
    }

    __device__ __forceinline__ void store_f32(float (&sum)[N / 2], const float (&weight)[2], float* out, uint32_t rows,
                                              uint32_t columns) const {
        const bool pairs = (p.flags & NG_GEMM_PAIRED_STORES) != 0;
        const auto each = [&](auto pair, auto single) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const uint32_t row = lane / 4 + 8 * half;
                float* const line = out + row * p.out_row_stride + lane % 4 * 2;
                const int32_t left = row < rows ? columns - lane % 4 * 2 : 0;
#pragma unroll
                for (int octet = 0; octet < N / 8; ++octet) {
                    const int32_t at = octet * 8;
                    float* const values = sum + octet * 4 + half * 2;
                    if (pairs && at + 1 < left) pair(line + octet * 8, values);
                    if (!pairs || at + 1 == left) {
                        if (at < left) single(line + octet * 8, values);
                        if (at + 1 < left) single(line + octet * 8 + 1, values + 1);
                    }
                }
            }
        };
        if (p.flags & NG_GEMM_ACCUMULATE) {
            each([](const float* from, float* to) {
                const float2 old = *reinterpret_cast<const float2*>(from);
                to[0] = __fadd_rn(to[0], old.x);
                to[1] = __fadd_rn(to[1], old.y);
            }, [](const float* from, float* to) { *to = __fadd_rn(*to, *from); });
        }
        if (p.row_weights != 0) {
#pragma unroll
            for (int i = 0; i < N / 2; ++i) sum[i] = __fmul_rn(sum[i], weight[i / 2 % 2]);
        }
        each([](float* to, const float* from) { *reinterpret_cast<float2*>(to) = make_float2(from[0], from[1]); },
             [](float* to, const float* from) { *to = *from; });
    }

    // bf16 or f16, RowBytes / 2 columns at a time.
    __device__ __forceinline__ void store_half(const float (&sum)[N / 2], const float (&weight)[2], uint16_t* out,
                                               uint32_t rows, uint32_t columns) const {
        constexpr uint32_t kColumns = RowBytes / 2 < N ? RowBytes / 2 : N;
        const bool f16 = p.out_type == NG_GEMM_OUT_F16;
        const auto narrow = [&](float a, float b) { return f16 ? ptx::f16x2_from_f32(a, b) : ptx::bf16x2_from_f32(a, b); };
        const auto widen = [&](uint32_t bits) {
            return f16 ? make_float2(ptx::f32_from_f16(uint16_t(bits)), ptx::f32_from_f16(uint16_t(bits >> 16)))
                       : make_float2(ptx::f32_from_bf16x2_low(bits), ptx::f32_from_bf16x2_high(bits));
        };
        // Matrices of a pair of octets: rows 0-7 and 8-15 of the first, the same of the second.
        const uint32_t matrix_row = lane % 16;
        const uint32_t matrix = ptx::shared_address(piece) + tile::swizzle<RowBytes>(matrix_row * RowBytes + lane / 16 * 16);
#pragma unroll
        for (uint32_t first = 0; first < N; first += kColumns) {
            if (first >= columns) break;
            const uint32_t here = min(columns - first, kColumns);
            if (p.flags & NG_GEMM_ACCUMULATE) {
                load_piece<2>(reinterpret_cast<const uint8_t*>(out + first), rows, here);
                ptx::warp_barrier();
            }
#pragma unroll
            for (uint32_t octet = 0; octet < kColumns / 8; octet += 2) {
                const float* const from = sum + (first / 8 + octet) * 4;
                float values[8];
#pragma unroll
                for (int i = 0; i < 8; ++i) values[i] = from[i];
                // A multiple of 32 bytes below the swizzle's span: xor adds it.
                const uint32_t at = matrix ^ octet * 16;
                if (p.flags & NG_GEMM_ACCUMULATE) {
                    uint32_t old[4];
                    ptx::ldmatrix_x4(at, old);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float2 pair = widen(old[i]);
                        values[2 * i] = __fadd_rn(values[2 * i], pair.x);
                        values[2 * i + 1] = __fadd_rn(values[2 * i + 1], pair.y);
                    }
                }
                if (p.row_weights != 0) {
#pragma unroll
                    for (int i = 0; i < 8; ++i) values[i] = __fmul_rn(values[i], weight[i / 2 % 2]);
                }
                ptx::stmatrix_x4(at, narrow(values[0], values[1]), narrow(values[2], values[3]),
                                 narrow(values[4], values[5]), narrow(values[6], values[7]));
            }
            ptx::warp_barrier();
            store_piece<2>(reinterpret_cast<uint8_t*>(out + first), rows, here);
            ptx::warp_barrier();
        }
    }

    // A row's 128 columns lie in four lanes, which find its scale together.
    __device__ __forceinline__ void store_e4m3(float (&sum)[N / 2], const float (&weight)[2], const tile::Tile& tile,
                                               uint32_t row, int64_t element, uint32_t rows, uint32_t columns) const {
        float inverse[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float amax = tile::kSmallestAmax;
#pragma unroll
            for (int i = 2 * half; i < N / 2; i += 4) {
#pragma unroll
                for (int j = i; j < i + 2; ++j) {
                    if (p.row_weights != 0) sum[j] = __fmul_rn(sum[j], weight[half]);
                    const uint32_t column = j / 4 * 8 + lane % 4 * 2 + j % 2;
                    if (column < columns && tile::is_finite(sum[j])) amax = ptx::maximum(amax, fabsf(sum[j]));
                }
            }
            amax = ptx::maximum(amax, ptx::shuffle_xor(amax, 1));
            amax = ptx::maximum(amax, ptx::shuffle_xor(amax, 2));
            const float scale = tile::scale_of(amax, (p.flags & NG_GEMM_SCALES_POWER_OF_TWO) != 0);
            inverse[half] = ptx::reciprocal(scale);
            if (lane % 4 == 0 && lane / 4 + 8 * half < rows) {
                tile::pointer<float>(p.out_scales)[line(tile, row + 8 * half) * p.out_scales_row_stride +
                                                   tile.column / 128 * p.out_scales_block_stride] = scale;
            }
        }
        auto* const out = tile::pointer<uint8_t>(p.out) + element;
#pragma unroll
        for (uint32_t first = 0; first < N; first += RowBytes) {
            if (first >= columns) break;
#pragma unroll
            for (uint32_t octet = 0; octet < RowBytes / 8; ++octet) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const float* const from = sum + (first / 8 + octet) * 4 + 2 * half;
                    const uint32_t at = (lane / 4 + 8 * half) * RowBytes + octet * 8 + lane % 4 * 2;
                    *reinterpret_cast<uint16_t*>(piece + tile::swizzle<RowBytes>(at)) = ptx::e4m3x2_from_f32(
                        tile::scaled(from[0], inverse[half]), tile::scaled(from[1], inverse[half]));
                }
            }
            ptx::warp_barrier();
            store_piece<1>(out + first, rows, min(columns - first, RowBytes));
            ptx::warp_barrier();
        }
    }

    // From the piece to global memory: 16 bytes a lane where they exist and are aligned, else an element a lane.
    template <uint32_t Size>
    __device__ __forceinline__ void store_piece(uint8_t* out, uint32_t rows, uint32_t columns) const {
        each_part<Size>(out, rows, columns, [&](uint32_t at, uint8_t* to) {
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(piece + at);
        }, [&](uint32_t at, uint8_t* to) { copy_element<Size>(to, piece + at); });
    }

    template <uint32_t Size>
    __device__ __forceinline__ void load_piece(const uint8_t* out, uint32_t rows, uint32_t columns) const {
        each_part<Size>(const_cast<uint8_t*>(out), rows, columns, [&](uint32_t at, const uint8_t* from) {
            *reinterpret_cast<uint4*>(piece + at) = *reinterpret_cast<const uint4*>(from);
        }, [&](uint32_t at, const uint8_t* from) { copy_element<Size>(piece + at, from); });
    }

    template <uint32_t Size>
    static __device__ __forceinline__ void copy_element(uint8_t* to, const uint8_t* from) {
        if constexpr (Size == 2) {
            *reinterpret_cast<uint16_t*>(to) = *reinterpret_cast<const uint16_t*>(from);
        } else {
            *to = *from;
        }
    }

    template <uint32_t Size, class Wide, class Element>
    __device__ __forceinline__ void each_part(uint8_t* out, uint32_t rows, uint32_t columns, Wide wide, Element element) const {
        const uint32_t bytes = columns * Size;
        const int64_t stride = p.out_row_stride * Size;
        // Without wide stores, or for the odd end of a row.
        uint32_t done = 0;
        if (p.flags & NG_GEMM_WIDE_STORES) {
            done = bytes / 16 * 16;
            const uint32_t at = lane % kLanesPerRow * 16;
            if (at < done) {
#pragma unroll
                for (uint32_t row = lane / kLanesPerRow; row < 16; row += 32 / kLanesPerRow) {
                    if (row < rows) wide(tile::swizzle<RowBytes>(row * RowBytes + at), out + row * stride + at);
                }
            }
        }
        if (done == bytes) return;
#pragma unroll 1
        for (uint32_t row = 0; row < rows; ++row) {
#pragma unroll 1
            for (uint32_t at = done + lane * Size; at < bytes; at += 32 * Size) {
                element(tile::swizzle<RowBytes>(row * RowBytes + at), out + row * stride + at);
            }
        }
    }
};

}  // namespace ng::gemm
