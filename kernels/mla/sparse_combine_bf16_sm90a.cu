// Joins the splits of one sparse attention: each row's partial outputs, weighted by their references, in the order of the
// splits. One warp per row.
#include "abi.h"
#include "mla/sparse_softmax.cuh"
#include "ptx/grid.cuh"

using namespace ng;

extern "C" __global__ void __launch_bounds__(128) NG_ENTRY(const __grid_constant__ NgMlaSparseCombineParams p) {
    ptx::grid_dependency_wait();
    const int64_t rows = static_cast<int64_t>(p.tokens) * p.heads;
    const int64_t row = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32;
    const uint32_t lane = threadIdx.x % 32;
    if (row >= rows) return;
    const int64_t token = row / p.heads;
    const int32_t head = static_cast<int32_t>(row % p.heads);

    const float4* statistics = reinterpret_cast<const float4*>(p.partial_statistics) + row;
    const float scale_log2 = p.scale * 1.4426950408889634f;
    mla::Reference reference;
    float maximum = -mla::kInfinity;
    for (int32_t split = 0; split < p.splits; ++split) {
        const float4 part = statistics[split * rows];
        if (!(part.w <= reference.score)) reference = {part.w, part.x};
        maximum = ptx::maximum(maximum, part.z);
    }

    float sum = 0.0f;
    float output[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) output[i] = 0.0f;
    for (int32_t split = 0; split < p.splits; ++split) {
        const float4 part = statistics[split * rows];
        if (part.y == 0.0f) continue;
        const float scale = ptx::exp2_approximate(mla::Reference{part.w, part.x}.above(reference, scale_log2));
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

    const float* sink = p.sinks != 0 ? reinterpret_cast<const float*>(p.sinks) + head : nullptr;
    const float inverse = mla::inverse_with_sink(sum, reference.scaled, sink);
    uint16_t* out =
        reinterpret_cast<uint16_t*>(p.output) + token * p.output_token_stride + head * p.output_head_stride + 4 * lane;
#pragma unroll
    for (int i = 0; i < 4; ++i)
        *reinterpret_cast<uint2*>(out + 128 * i) =
            make_uint2(ptx::bf16x2_from_f32(output[4 * i] * inverse, output[4 * i + 1] * inverse),
                       ptx::bf16x2_from_f32(output[4 * i + 2] * inverse, output[4 * i + 3] * inverse));
    if (lane != 0) return;
    if (p.lse != 0)
        reinterpret_cast<float*>(p.lse)[token * p.lse_token_stride + head * p.lse_head_stride] = mla::log_of(sum, reference.scaled);
    if (p.max_logits != 0)
        reinterpret_cast<float*>(p.max_logits)[token * p.max_token_stride + head * p.max_head_stride] = maximum * p.scale;
}
