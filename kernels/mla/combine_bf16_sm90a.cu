// Joins the pieces of each group of rows: partial outputs, weighted by their references, in the order of the pieces. One
// warp per row; QUERY_F16 says what the output is.
#include "abi.h"
#include "mla/decode.cuh"
#include "mla/softmax.cuh"
#include "ptx/convert.cuh"
#include "ptx/grid.cuh"

using namespace ng;

namespace {

// The slots of a group's partial results: `first`, and then every `step`.
struct Slots {
    int32_t group, first, step, count;

    __device__ __forceinline__ Slots(const NgMlaCombineParams& p, int32_t at) : group(at), first(0), step(1), count(0) {
        if (p.cuts == 0) {
            first = at * p.pieces;
            return;
        }
        // The group that worker `at` begins and does not end.
        const int2* cuts = reinterpret_cast<const int2*>(p.cuts) + at;
        const int2 from = cuts[0], to = cuts[1];
        group = to.x;
        if (to.y == 0 || (from.x == to.x && from.y > 0)) return;
        first = 2 * at + 1;
        for (count = 2; cuts[count].x == group && cuts[count].y > 0; ++count) {
        }
    }

    // The first worker's piece is its last, the others' pieces are their first.
    __device__ __forceinline__ int64_t slot(const NgMlaCombineParams& p, int32_t i) const {
        return p.cuts == 0 || i == 0 ? first + i : first - 1 + 2 * i;
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(128) NG_ENTRY(const __grid_constant__ NgMlaCombineParams p) {
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();
    const int32_t rows_each = mla::kRows * p.cluster;
    const int32_t chunks = rows_each / 4;
    Slots slots(p, blockIdx.x / chunks);
    if (p.cuts != 0 && slots.count == 0) return;
    const mla::Group group(p, slots.group);
    if (p.cuts == 0) {
        if (group.blocks == 0) return;
        const int32_t share = mla::piece_blocks(p, group.blocks);
        slots.count = (group.blocks + share - 1) / share;
        if (slots.count < 2) return;
    }
    const int32_t within = blockIdx.x % chunks * 4 + threadIdx.x / 32;
    const int32_t row = group.row + within;
    const uint32_t lane = threadIdx.x % 32;
    if (row >= group.rows) return;

    const float2* statistics = reinterpret_cast<const float2*>(p.partial_statistics) + within;
    float maximum = -mla::kInfinity;
    for (int32_t i = 0; i < slots.count; ++i)
        maximum = ptx::maximum(maximum, statistics[slots.slot(p, i) * rows_each].x);

    float sum = 0.0f;
    float output[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) output[i] = 0.0f;
    for (int32_t i = 0; i < slots.count; ++i) {
        const int64_t slot = slots.slot(p, i) * rows_each;
        const float2 part = statistics[slot];
        if (part.y == 0.0f) continue;
        const float scale = mla::weight(part.x, maximum, p.scale_log2);
        sum += part.y * scale;
        const float4* from =
            reinterpret_cast<const float4*>(p.partial_output) + (slot + within) * (NG_MLA_LATENT / 4) + lane;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const float4 v = from[32 * k];
            output[4 * k] += v.x * scale;
            output[4 * k + 1] += v.y * scale;
            output[4 * k + 2] += v.z * scale;
            output[4 * k + 3] += v.w * scale;
        }
    }

    const int32_t head = row % p.heads, token = row / p.heads;
    const float sink = p.sinks != 0 ? reinterpret_cast<const float*>(p.sinks)[head] : -mla::kInfinity;
    const float inverse = mla::inverse_sum(sum, mla::sink_weight(sink, maximum, p.scale_log2)) * p.value_scale;
    const mla::Sequence& sequence = group.sequence;
    uint16_t* out = reinterpret_cast<uint16_t*>(p.output) + sequence.batch * p.output_batch_stride +
                    (static_cast<int64_t>(sequence.first) * p.heads + row) * p.output_row_stride + 4 * lane;
#pragma unroll
    for (int i = 0; i < 4; ++i)
        *reinterpret_cast<uint2*>(out + 128 * i) =
            make_uint2(mla::pack<QUERY_F16>(output[4 * i] * inverse, output[4 * i + 1] * inverse),
                       mla::pack<QUERY_F16>(output[4 * i + 2] * inverse, output[4 * i + 3] * inverse));
    if (p.lse != 0 && lane == 0)
        reinterpret_cast<float*>(p.lse)[sequence.batch * p.lse_batch_stride + head * p.lse_head_stride +
                                        (sequence.first + token) * p.lse_token_stride] =
            mla::log_sum(maximum, sum, p.scale);
}
