// RMS norm of bf16 rows and FP8 quantisation of the result, a block a row. The codes are those that quantising the bf16
// output would give.
#include "abi.h"
#include "ptx/grid.cuh"
#include "tile/quantize.cuh"
#include "tile/rms.cuh"
#include "tile/rows.cuh"

using namespace ng;

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgRmsNormQuantizeParams p) {
    ptx::grid_dependency_wait();
    const uint64_t row = blockIdx.x;
    const auto* x = tile::pointer<const uint16_t>(p.x) + row * p.x_row_stride;
    const auto* weight = tile::pointer<const uint16_t>(p.weight);
    auto* data = tile::pointer<uint8_t>(p.data) + row * p.data_row_stride;
    auto* scales = tile::pointer<float>(p.scales) + row * p.scale_row_stride;
    const float factor = tile::inverse_rms(x, p.columns, p.epsilon, p.vectorised);
    // The bound is the warp's, so that its lanes stay together for the groups' maxima.
    for (uint32_t base = threadIdx.x / 32 * 256; base < p.columns; base += blockDim.x * 8) {
        const uint32_t first = base + threadIdx.x % 32 * 8;
        float values[8];
        tile::normalized(x, weight, first, p.columns, factor, p.vectorised, values);
        if (p.out != 0) {
            auto* out = tile::pointer<uint16_t>(p.out) + row * p.out_row_stride;
            tile::store_bf16x8(out, first, p.columns, p.vectorised, values);
        }
        const float scale = tile::group_scale(values, p.power_of_two);
        uint16_t codes[4];
        tile::encode(values, scale, codes);
        tile::store_e4m3x8(data, first, p.columns, p.vectorised, codes);
        if (threadIdx.x % 16 == 0 && first < p.columns) scales[first / 128 * p.scale_group_stride] = scale;
    }
}
