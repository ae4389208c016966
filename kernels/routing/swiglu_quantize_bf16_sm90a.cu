// silu(gate) * up in f32, quantised to e4m3 with one scale per 128 columns.
#include "abi.h"
#include "ptx/grid.cuh"
#include "tile/quantize.cuh"
#include "tile/rows.cuh"
#include "tile/swiglu.cuh"

using namespace ng;

// A warp takes two groups at a time; a block holds blockDim / 32 / warps_per_row rows.
extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgSwigluQuantizeParams p) {
    ptx::grid_dependency_wait();
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t rows_per_block = blockDim.x / 32 / p.warps_per_row;
    const uint64_t row = uint64_t(blockIdx.x) * rows_per_block + warp / p.warps_per_row;
    if (row >= p.rows) return;
    // Rows that no entry was routed to hold nothing: they become zeros.
    bool valid = true;
    if (p.valid_rows != 0) valid = int64_t(row) < *tile::pointer<const int32_t>(p.valid_rows);
    const auto* gate_row = tile::pointer<const uint16_t>(p.gate_up) + row * p.gate_up_row_stride;
    const auto* up_row = gate_row + p.up_offset;
    auto* data = tile::pointer<uint8_t>(p.data) + row * p.data_row_stride;
    auto* scales = tile::pointer<float>(p.scales) + row * p.scale_row_stride;
    const uint32_t readable = valid ? p.columns : 0;
    for (uint32_t base = warp % p.warps_per_row * 256; base < p.columns; base += p.warps_per_row * 256) {
        const uint32_t first = base + lane * 8;
        float gate[8], up[8];
        tile::load_bf16x8(gate_row, first, readable, p.vectorised, gate);
        tile::load_bf16x8(up_row, first, readable, p.vectorised, up);
#pragma unroll
        for (int i = 0; i < 8; ++i) gate[i] = tile::swiglu(gate[i], up[i]);
        const float scale = tile::group_scale(gate, p.power_of_two);
        uint16_t codes[4];
        tile::encode(gate, scale, codes);
        tile::store_e4m3x8(data, first, p.columns, p.vectorised, codes);
        if (lane % 16 == 0 && first < p.columns) scales[first / 128 * p.scale_group_stride] = scale;
    }
}
