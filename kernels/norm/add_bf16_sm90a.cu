// Sum of two bf16 matrices, added in f32, a block a row.
#include "abi.h"
#include "ptx/grid.cuh"
#include "tile/rows.cuh"

using namespace ng;

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgAddParams p) {
    ptx::grid_dependency_wait();
    const uint64_t row = blockIdx.x;
    const auto* a = tile::pointer<const uint16_t>(p.a) + row * p.a_row_stride;
    const auto* b = tile::pointer<const uint16_t>(p.b) + row * p.b_row_stride;
    auto* out = tile::pointer<uint16_t>(p.out) + row * p.out_row_stride;
    for (uint32_t first = threadIdx.x * 8; first < p.columns; first += blockDim.x * 8) {
        float left[8], right[8];
        tile::load_bf16x8(a, first, p.columns, p.vectorised, left);
        tile::load_bf16x8(b, first, p.columns, p.vectorised, right);
#pragma unroll
        for (int i = 0; i < 8; ++i) left[i] += right[i];
        tile::store_bf16x8(out, first, p.columns, p.vectorised, left);
    }
}
