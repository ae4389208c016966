// RMS norm of bf16 rows, a block a row.
#include "abi.h"
#include "ptx/grid.cuh"
#include "tile/rms.cuh"
#include "tile/rows.cuh"

using namespace ng;

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgRmsNormParams p) {
    ptx::grid_dependency_wait();
    const uint64_t row = blockIdx.x;
    const auto* x = tile::pointer<const uint16_t>(p.x) + row * p.x_row_stride;
    const auto* weight = tile::pointer<const uint16_t>(p.weight);
    auto* out = tile::pointer<uint16_t>(p.out) + row * p.out_row_stride;
    const float factor = tile::inverse_rms(x, p.columns, p.epsilon, p.vectorised);
    for (uint32_t first = threadIdx.x * 8; first < p.columns; first += blockDim.x * 8) {
        float values[8];
        tile::normalized(x, weight, first, p.columns, factor, p.vectorised, values);
        tile::store_bf16x8(out, first, p.columns, p.vectorised, values);
    }
}
