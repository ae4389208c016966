// Whole pages of the latent cache, copied or exchanged by a list of pairs (source, target); 16 KiB a block. A pair with a
// -1 is skipped; one with another page that does not exist is skipped and reported.
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "tile/rows.cuh"

using namespace ng;

namespace {
constexpr uint32_t kThreads = 256;
constexpr uint32_t kVectors = 4;  // of 16 bytes, a thread
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) NG_ENTRY(const __grid_constant__ NgCachePagesParams p) {
    ptx::grid_dependency_wait();
    const uint32_t pair = blockIdx.x / p.pieces, piece = blockIdx.x % p.pieces;
    const int2 ids = tile::pointer<const int2>(p.pairs)[pair];
    if (ids.x == -1 || ids.y == -1) return;
    if (uint32_t(ids.x) >= p.source_pages || uint32_t(ids.y) >= p.target_pages) {
        if (threadIdx.x == 0 && piece == 0) ptx::report_status(tile::pointer<uint32_t>(p.status), NG_STATUS_BAD_PAGE);
        return;
    }
    auto* source = tile::pointer<uint4>(p.source + uint32_t(ids.x) * p.page_bytes);
    auto* target = tile::pointer<uint4>(p.target + uint32_t(ids.y) * p.page_bytes);
    if (source == target) return;
    const uint32_t first = piece * kThreads * kVectors + threadIdx.x;
    const uint32_t count = static_cast<uint32_t>(p.page_bytes / 16);
    uint4 from[kVectors], to[kVectors];
#pragma unroll
    for (uint32_t i = 0; i < kVectors; ++i) {
        const uint32_t at = first + i * kThreads;
        if (at >= count) continue;
        from[i] = source[at];
        if (p.exchange) to[i] = target[at];
    }
#pragma unroll
    for (uint32_t i = 0; i < kVectors; ++i) {
        const uint32_t at = first + i * kThreads;
        if (at >= count) continue;
        target[at] = from[i];
        if (p.exchange) source[at] = to[i];
    }
}
