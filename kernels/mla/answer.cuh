// What a warpgroup does with 64 rows by 256 columns of accumulators in the end.
#pragma once
#include <stdint.h>

#include "mla/decode.cuh"
#include "mla/softmax.cuh"
#include "ptx/warp.cuh"

namespace ng::mla {

// Each of four neighbouring lanes has a word of four 16-byte pieces; each gets the words of one.
__device__ __forceinline__ uint4 gather_quad(uint32_t (&words)[4], uint32_t lane) {
#pragma unroll
    for (int step = 1; step <= 2; ++step) {
        const bool upper = lane & step;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (i & step) continue;
            const uint32_t other = ptx::shuffle_xor(upper ? words[i] : words[i | step], step);
            (upper ? words[i] : words[i | step]) = other;
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

struct Answer {
    const Group& group;
    int32_t row;      // the thread's first within the group; the other is 8 further
    uint32_t column;  // the warpgroup's first
    uint32_t lane;

    // Partial results of a piece: sums, to be weighted by their reference.
    template <class Params>
    __device__ __forceinline__ void store_partial(const Params& p, int32_t slot, const float (&output)[128],
                                                  const float (&maximum)[2], const float (&sum)[2]) const {
        const int64_t first = static_cast<int64_t>(slot) * (kRows * p.cluster) + row;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            if (group.row + row + 8 * r >= group.rows) continue;
            const int64_t at = first + 8 * r;
            if (column == 0 && lane % 4 == 0)
                reinterpret_cast<float2*>(p.partial_statistics)[at] = make_float2(maximum[r], sum[r]);
            float* to = reinterpret_cast<float*>(p.partial_output) + at * NG_MLA_LATENT + column + 2 * (lane % 4);
#pragma unroll
            for (int i = 0; i < 32; ++i)
                *reinterpret_cast<float2*>(to + 8 * i) = make_float2(output[4 * i + 2 * r], output[4 * i + 2 * r + 1]);
        }
    }

    // The whole answer.
    template <bool F16, class Params>
    __device__ __forceinline__ void store(const Params& p, float (&output)[128], const float (&maximum)[2],
                                          const float (&sum)[2]) const {
        const Sequence& sequence = group.sequence;
        const int64_t first = static_cast<int64_t>(sequence.first) * p.heads + group.row + row;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int32_t at = group.row + row + 8 * r;
            const bool inside = at < group.rows;
            const int32_t head = at % p.heads;
            const float sink = p.sinks != 0 && inside ? reinterpret_cast<const float*>(p.sinks)[head] : -kInfinity;
            const float inverse = inverse_sum(sum[r], sink_weight(sink, maximum[r], p.scale_log2)) * p.value_scale;
            uint16_t* to = reinterpret_cast<uint16_t*>(p.output) + sequence.batch * p.output_batch_stride +
                           (first + 8 * r) * p.output_row_stride + column + 8 * (lane % 4);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                uint32_t words[4];
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    words[j] = pack<F16>(output[16 * i + 4 * j + 2 * r] * inverse, output[16 * i + 4 * j + 2 * r + 1] * inverse);
                const uint4 piece = gather_quad(words, lane);
                if (inside) *reinterpret_cast<uint4*>(to + 32 * i) = piece;
            }
            if (p.lse != 0 && inside && column == 0 && lane % 4 == 0)
                reinterpret_cast<float*>(p.lse)[sequence.batch * p.lse_batch_stride + head * p.lse_head_stride +
                                                (sequence.first + at / p.heads) * p.lse_token_stride] =
                    log_sum(maximum[r], sum[r], p.scale);
        }
    }
};

}  // namespace ng::mla
