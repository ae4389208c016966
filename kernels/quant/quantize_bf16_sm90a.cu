// bf16 rows to e4m3 with one f32 scale per 128 columns.
#include "abi.h"
#include "ptx/grid.cuh"
#include "tile/quantize.cuh"
#include "tile/rows.cuh"

using namespace ng;

// A warp takes two groups at a time; a block holds blockDim / 32 / warps_per_row rows.
extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgQuantizeParams p) {
    ptx::grid_dependency_wait();
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t rows_per_block = blockDim.x / 32 / p.warps_per_row;
    const uint64_t row = uint64_t(blockIdx.x) * rows_per_block + warp / p.warps_per_row;
    if (row >= p.rows) return;
    const auto* x = tile::pointer<const uint16_t>(p.x) + row * p.x_row_stride;
    auto* data = tile::pointer<uint8_t>(p.data) + row * p.data_row_stride;
    auto* scales = tile::pointer<float>(p.scales) + row * p.scale_row_stride;
    for (uint32_t base = warp % p.warps_per_row * 256; base < p.columns; base += p.warps_per_row * 256) {
        const uint32_t first = base + lane * 8;
        float values[8];
        tile::load_bf16x8(x, first, p.columns, p.vectorised, values);
        const float scale = tile::group_scale(values, p.power_of_two);
        uint16_t codes[4];
        tile::encode(values, scale, codes);
        tile::store_e4m3x8(data, first, p.columns, p.vectorised, codes);
        if (lane % 16 == 0 && first < p.columns) scales[first / 128 * p.scale_group_stride] = scale;
    }
}
