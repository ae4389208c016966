// What a warpgroup does with 512 columns by few rows of accumulators, columns on the 64-row side, in the end.
#pragma once
#include <stdint.h>

#include "mla/answer.cuh"
#include "mla/decode.cuh"
#include "mla/softmax.cuh"
#include "ptx/matrix.cuh"
#include "ptx/warp.cuh"

namespace ng::mla {

// Multiplies each row, a column of the accumulators, by its own.
template <int Rows>
__device__ __forceinline__ void rescale_columns(float (&output)[8][Rows / 2], const float* rescale, uint32_t lane) {
#pragma unroll
    for (int octet = 0; octet < Rows / 8; ++octet) {
        const float2 by = *reinterpret_cast<const float2*>(rescale + octet * 8 + lane % 4 * 2);
#pragma unroll
        for (int t = 0; t < 8; ++t) {
#pragma unroll
            for (int i = 0; i < 4; ++i) output[t][octet * 4 + i] *= i % 2 == 0 ? by.x : by.y;
        }
    }
}

template <int Rows>
struct FewAnswer {
    static constexpr int kOwn = Rows / 4;
    const Group& group;
    uint32_t warp, lane;
    float sum[kOwn], maximum[kOwn];

    // `statistics`: the sums of four warps, then the references.
    __device__ __forceinline__ FewAnswer(const Group& group, const float* statistics, uint32_t warp, uint32_t lane)
        : group(group), warp(warp), lane(lane) {
#pragma unroll
        for (int r = 0; r < kOwn; ++r) {
            const float* of_row = statistics + row(r);
            sum[r] = (of_row[0] + of_row[Rows]) + (of_row[2 * Rows] + of_row[3 * Rows]);
            maximum[r] = of_row[4 * Rows];
        }
    }

    __device__ __forceinline__ int32_t row(int own) const { return own / 2 * 8 + lane % 4 * 2 + own % 2; }

    // Partial results of a piece: sums, to be weighted by their reference. Eight lanes have 32 bytes of a row.
    template <class Params>
    __device__ __forceinline__ void store_partial(const Params& p, int32_t slot, const float (&output)[8][Rows / 2]) const {
#pragma unroll
        for (int r = 0; r < kOwn; ++r) {
            if (row(r) >= group.rows) continue;
            const int64_t at = static_cast<int64_t>(slot) * (kRows * p.cluster) + row(r);
            if (warp == 0 && lane < 4) reinterpret_cast<float2*>(p.partial_statistics)[at] = make_float2(maximum[r], sum[r]);
            float* to = reinterpret_cast<float*>(p.partial_output) + at * NG_MLA_LATENT + warp * 16 + lane / 4;
#pragma unroll
            for (int t = 0; t < 8; ++t) {
                to[t * 64] = output[t][r / 2 * 4 + r % 2];
                to[t * 64 + 8] = output[t][r / 2 * 4 + 2 + r % 2];
            }
        }
    }

    // The whole answer: eight rows by eight columns are transposed between the lanes, then a lane stores 16 bytes of a row.
    template <bool F16, class Params>
    __device__ __forceinline__ void store(const Params& p, const float (&output)[8][Rows / 2]) const {
        const Sequence& sequence = group.sequence;
        const int64_t first = static_cast<int64_t>(sequence.first) * p.heads;
#pragma unroll
        for (int octet = 0; octet < Rows / 8; ++octet) {
            float inverse[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int r = 2 * octet + i;
                const bool inside = row(r) < group.rows;
                const int32_t head = row(r) % p.heads;
                const float sink = p.sinks != 0 && inside ? reinterpret_cast<const float*>(p.sinks)[head] : -kInfinity;
                inverse[i] = inverse_sum(sum[r], sink_weight(sink, maximum[r], p.scale_log2)) * p.value_scale;
                if (p.lse != 0 && inside && warp == 0 && lane < 4)
                    reinterpret_cast<float*>(p.lse)[sequence.batch * p.lse_batch_stride + head * p.lse_head_stride +
                                                    (sequence.first + row(r) / p.heads) * p.lse_token_stride] =
                        log_sum(maximum[r], sum[r], p.scale);
            }
            const int32_t at = octet * 8 + lane / 4;
            uint16_t* to = reinterpret_cast<uint16_t*>(p.output) + sequence.batch * p.output_batch_stride +
                           (first + at) * p.output_row_stride + warp * 16 + lane % 4 / 2 * 64 + lane % 2 * 8;
#pragma unroll
            for (int t = 0; t < 8; t += 2) {
                uint32_t words[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float* pair = &output[t + i / 2][octet * 4 + i % 2 * 2];
                    words[i] = ptx::transpose_matrix(pack<F16>(pair[0] * inverse[0], pair[1] * inverse[1]));
                }
                const uint4 piece = gather_quad(words, lane);
                if (at < group.rows) *reinterpret_cast<uint4*>(to + t * 64) = piece;
            }
        }
    }
};

}  // namespace ng::mla
