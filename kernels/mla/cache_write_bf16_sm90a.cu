// New rows of the paged latent cache: 512 latent columns as they are, 64 rotary columns rotated; 72 lanes a token, one
// block of 96 threads. A slot of -1 is skipped; another slot or a position that does not exist is skipped and reported.
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "tile/rope.cuh"

using namespace ng;

namespace {
constexpr uint32_t kLatent = 512;
constexpr uint32_t kCacheColumns = kLatent + tile::kRopeColumns;
}  // namespace

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgCacheWriteParams p) {
    ptx::grid_dependency_wait();
    const uint64_t token = blockIdx.x;
    const int32_t slot = tile::pointer<const int32_t>(p.slots)[token];
    if (slot == -1) return;
    const int32_t position = tile::pointer<const int32_t>(p.positions)[token];
    const uint32_t status = (slot < 0 || uint64_t(slot) >= p.cache_rows ? NG_STATUS_BAD_SLOT : 0) |
                            (uint32_t(position) >= p.max_positions ? NG_STATUS_BAD_POSITION : 0);
    if (status != 0) {
        ptx::report_status(tile::pointer<uint32_t>(p.status), status);
        return;
    }
    auto* out = tile::pointer<uint16_t>(p.cache) + uint64_t(slot) * kCacheColumns;
    if (threadIdx.x < kLatent / 8) {
        const auto* latent = tile::pointer<const uint16_t>(p.latent) + token * p.latent_row_stride;
        const uint32_t first = threadIdx.x * 8;
        if (p.vectorised) {
            *reinterpret_cast<uint4*>(out + first) = *reinterpret_cast<const uint4*>(latent + first);
        } else {
            for (uint32_t i = first; i < first + 8; ++i) out[i] = latent[i];
        }
    } else if (threadIdx.x < kLatent / 8 + tile::kRopeLanes) {
        const auto* x = tile::pointer<const uint16_t>(p.key_rope) + token * p.key_rope_row_stride;
        const uint64_t table = uint64_t(position) * (tile::kRopeColumns / 2);
        tile::rotate(x, tile::pointer<const float>(p.cosines) + table, tile::pointer<const float>(p.sines) + table,
                     threadIdx.x - kLatent / 8, p.vectorised, out + kLatent);
    }
}
