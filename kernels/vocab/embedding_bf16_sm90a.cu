// Rows of an embedding table by token id, a block a token. An id outside the table gives a row of zeros and a status bit.
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "tile/rows.cuh"

using namespace ng;

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgEmbeddingParams p) {
    ptx::grid_dependency_wait();
    const uint64_t token = blockIdx.x;
    const int32_t id = tile::pointer<const int32_t>(p.ids)[token];
    const bool known = uint32_t(id) < p.vocabulary;
    if (!known) ptx::report_status(tile::pointer<uint32_t>(p.status), NG_STATUS_BAD_TOKEN);
    // An unknown id's row is nowhere, and never read.
    const auto* row = tile::pointer<const uint16_t>(p.table) + uint32_t(id) * p.table_row_stride;
    auto* out = tile::pointer<uint16_t>(p.out) + token * p.out_row_stride;
    for (uint32_t first = threadIdx.x * 8; first < p.columns; first += blockDim.x * 8) {
        if (p.vectorised) {
            uint4 piece = make_uint4(0, 0, 0, 0);
            if (known) piece = *reinterpret_cast<const uint4*>(row + first);
            *reinterpret_cast<uint4*>(out + first) = piece;
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if (first + i < p.columns) out[first + i] = known ? row[first + i] : uint16_t(0);
            }
        }
    }
}
