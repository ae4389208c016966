// New keys of the lightning indexer, quantised into its cache: 16 lanes a key of 128 columns, sixteen keys a block. A slot of
// -1 is skipped; another one that does not exist is skipped and reported.
#include "abi.h"
#include "mla/cache.cuh"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "tile/quantize.cuh"
#include "tile/rows.cuh"

using namespace ng;

extern "C" __global__ void __launch_bounds__(256) NG_ENTRY(const __grid_constant__ NgIndexerWriteParams p) {
    ptx::grid_dependency_wait();
    const uint32_t lane = threadIdx.x % 16;
    const uint32_t key = blockIdx.x * (256 / 16) + threadIdx.x / 16;
    const int32_t slot = key < p.tokens ? tile::pointer<const int32_t>(p.slots)[key] : -1;
    const bool exists = static_cast<uint32_t>(slot) < p.cache_rows;
    if (!exists && slot != -1 && lane == 0) ptx::report_status(tile::pointer<uint32_t>(p.status), NG_STATUS_BAD_SLOT);
    // Both keys of a warp, since its lanes exchange their maxima together.
    float values[8] = {};
    if (exists) {
        const auto* from = tile::pointer<const uint16_t>(p.keys) + uint64_t(key) * p.key_row_stride + lane * 8;
        mla::widen(mla::load_octet(from, p.vectorised), p.input_f16, values);
    }
    const float scale = tile::group_scale(values, p.power_of_two);
    if (!exists) return;
    const uint32_t page = static_cast<uint32_t>(slot) / p.page_tokens, offset = static_cast<uint32_t>(slot) % p.page_tokens;
    uint16_t codes[4];
    tile::encode(values, scale, codes);
    auto* data = tile::pointer<uint8_t>(p.data) + page * p.data_page_stride + offset * p.data_row_stride + lane * 8;
    *reinterpret_cast<uint2*>(data) =
        make_uint2(codes[0] | uint32_t(codes[1]) << 16, codes[2] | uint32_t(codes[3]) << 16);
    if (lane == 0) tile::pointer<float>(p.scales)[page * p.scale_page_stride + offset * p.scale_row_stride] = scale;
}
