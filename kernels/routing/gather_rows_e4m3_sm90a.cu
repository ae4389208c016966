// Rows of an FP8 matrix and their scales in the order of a permutation, a block a row. Rows without a source become zeros.
#include "abi.h"
#include "ptx/grid.cuh"
#include "tile/rows.cuh"

using namespace ng;

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgGatherRowsParams p) {
    ptx::grid_dependency_wait();
    const uint64_t row = blockIdx.x;
    const int32_t source = tile::pointer<const int32_t>(p.source)[row];
    // Of a row without a source it is nowhere, and never read.
    const uint64_t token = uint32_t(source) / p.slots;
    const bool routed = source >= 0 && token < p.tokens;
    const auto* data = tile::pointer<const uint8_t>(p.data) + token * p.data_row_stride;
    auto* out = tile::pointer<uint8_t>(p.out_data) + row * p.out_data_row_stride;
    if (p.vectorised) {
        for (uint32_t first = threadIdx.x * 16; first < p.columns; first += blockDim.x * 16) {
            uint4 piece = make_uint4(0, 0, 0, 0);
            if (routed) piece = *reinterpret_cast<const uint4*>(data + first);
            *reinterpret_cast<uint4*>(out + first) = piece;
        }
    } else {
        for (uint32_t i = threadIdx.x; i < p.columns; i += blockDim.x) out[i] = routed ? data[i] : uint8_t(0);
    }
    const auto* scales = tile::pointer<const float>(p.scales) + token * p.scale_row_stride;
    auto* out_scales = tile::pointer<float>(p.out_scales) + row * p.out_scale_row_stride;
    for (uint32_t group = threadIdx.x; group < (p.columns + 127) / 128; group += blockDim.x) {
        out_scales[group * p.out_scale_group_stride] = routed ? scales[group * p.scale_group_stride] : 0.0f;
    }
}
