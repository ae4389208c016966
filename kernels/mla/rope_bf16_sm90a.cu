// Rotary embedding of the queries' rotary columns, eight lanes a (token, head). A position outside the tables gives zeros
// and a status bit.
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "tile/rope.cuh"

using namespace ng;

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgRopeParams p) {
    ptx::grid_dependency_wait();
    const uint64_t index = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const uint64_t row = index / tile::kRopeLanes;
    if (row >= p.rows) return;
    const uint32_t piece = index % tile::kRopeLanes;
    const uint64_t token = row / p.heads, head = row % p.heads;
    const int32_t position = tile::pointer<const int32_t>(p.positions)[token];
    auto* out = tile::pointer<uint16_t>(p.out) + token * p.out_token_stride + head * p.out_head_stride;
    if (uint32_t(position) >= p.max_positions) {
        tile::clear_rotated(piece, out);
        ptx::report_status(tile::pointer<uint32_t>(p.status), NG_STATUS_BAD_POSITION);
        return;
    }
    const auto* x = tile::pointer<const uint16_t>(p.x) + token * p.x_token_stride + head * p.x_head_stride;
    const uint64_t table = uint64_t(position) * (tile::kRopeColumns / 2);
    tile::rotate(x, tile::pointer<const float>(p.cosines) + table, tile::pointer<const float>(p.sines) + table, piece,
                 p.vectorised, out);
}
