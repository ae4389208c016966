// Joins the splits of one attention: each row's partial outputs, weighted by their running maxima, in the order of the
// splits. One warp per row.
#include "abi.h"
#include "mla/softmax.cuh"
#include "ptx/convert.cuh"
#include "ptx/grid.cuh"

using namespace ng;

extern "C" __global__ void __launch_bounds__(128) NG_ENTRY(const __grid_constant__ NgMlaCombineParams p) {
    ptx::grid_dependency_wait();
    const int64_t rows = static_cast<int64_t>(p.batch) * p.tokens * p.heads;
    const int64_t row = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32;
    const uint32_t lane = threadIdx.x % 32;
    if (row >= rows) return;

    const float2* statistics = reinterpret_cast<const float2*>(p.partial_statistics) + row;
    float maximum = -mla::kInfinity;
    for (int32_t i = 0; i < p.splits; ++i) maximum = ptx::maximum(maximum, statistics[i * rows].x);

    float sum = 0.0f;
    float output[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) output[i] = 0.0f;
    for (int32_t split = 0; split < p.splits; ++split) {
        const float2 part = statistics[split * rows];
        if (part.y == 0.0f) continue;
        const float scale = mla::weight(part.x, maximum, p.scale_log2);
        sum += part.y * scale;
        const float4* from =
            reinterpret_cast<const float4*>(p.partial_output) + (split * rows + row) * (NG_MLA_LATENT / 4) + lane;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float4 v = from[32 * i];
            output[4 * i] += v.x * scale;
            output[4 * i + 1] += v.y * scale;
            output[4 * i + 2] += v.z * scale;
            output[4 * i + 3] += v.w * scale;
        }
    }

    const float inverse = mla::inverse_sum(sum);
    const int64_t batch = row / (static_cast<int64_t>(p.tokens) * p.heads);
    const int32_t within = static_cast<int32_t>(row % (static_cast<int64_t>(p.tokens) * p.heads));
    uint16_t* out = reinterpret_cast<uint16_t*>(p.output) + batch * p.output_batch_stride +
                    static_cast<int64_t>(within) * p.output_row_stride + 4 * lane;
#pragma unroll
    for (int i = 0; i < 4; ++i)
        *reinterpret_cast<uint2*>(out + 128 * i) =
            make_uint2(ptx::bf16x2_from_f32(output[4 * i] * inverse, output[4 * i + 1] * inverse),
                       ptx::bf16x2_from_f32(output[4 * i + 2] * inverse, output[4 * i + 3] * inverse));
    if (p.lse != 0 && lane == 0)
        reinterpret_cast<float*>(p.lse)[batch * p.lse_batch_stride + (within % p.heads) * p.lse_head_stride +
                                        (within / p.heads) * p.lse_token_stride] =
            mla::log_sum(maximum, sum, p.scale);
}
