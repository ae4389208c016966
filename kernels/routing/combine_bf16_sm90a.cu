// Weighted sum of each token's expert rows, in the order of its slots, in f32; a block a token.
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/math.cuh"
#include "tile/rows.cuh"

using namespace ng;

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgCombineParams p) {
    ptx::grid_dependency_wait();
    const uint64_t token = blockIdx.x;
    const auto* rows = tile::pointer<const uint16_t>(p.rows);
    const auto* position = tile::pointer<const int32_t>(p.position) + token * p.slots;
    const auto* weights = tile::pointer<const float>(p.weights) + token * p.slots;
    auto* out = tile::pointer<uint16_t>(p.out) + token * p.out_row_stride;
    for (uint32_t first = threadIdx.x * 8; first < p.columns; first += blockDim.x * 8) {
        float sum[8] = {};
        for (uint32_t slot = 0; slot < p.slots; ++slot) {
            const uint32_t row = uint32_t(position[slot]);
            if (row >= p.row_count) continue;
            const float weight = weights[slot];
            float values[8];
            tile::load_bf16x8(rows + row * p.rows_row_stride, first, p.columns, p.vectorised, values);
#pragma unroll
            for (int i = 0; i < 8; ++i) sum[i] = ptx::fused_multiply_add(weight, values[i], sum[i]);
        }
        if (p.shared != 0) {
            const auto* shared = tile::pointer<const uint16_t>(p.shared) + token * p.shared_row_stride;
            float values[8];
            tile::load_bf16x8(shared, first, p.columns, p.vectorised, values);
#pragma unroll
            for (int i = 0; i < 8; ++i) sum[i] += values[i];
        }
        tile::store_bf16x8(out, first, p.columns, p.vectorised, sum);
    }
}
