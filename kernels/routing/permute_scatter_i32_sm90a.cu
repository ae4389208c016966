// Third pass of the permutation: source and position of every entry, a block a chunk.
#include "abi.h"
#include "ptx/grid.cuh"
#include "routing/permute.cuh"

using namespace ng;

extern "C" __global__ void __launch_bounds__(routing::kThreads) NG_ENTRY(const __grid_constant__ NgPermuteParams p) {
    __shared__ routing::Histogram histogram;
    ptx::grid_dependency_wait();
    const routing::Keys keys = routing::load_keys(p, blockIdx.x, false);
    routing::count(keys, p.experts, histogram);
    const int32_t total = tile::pointer<const int32_t>(p.offsets)[p.experts];
    if (threadIdx.x < p.experts) {
        const auto* rows = tile::pointer<const int32_t>(p.partial) + uint64_t(blockIdx.x) * p.experts;
        routing::count_to_rows(rows[threadIdx.x], histogram);
    }
    routing::scatter(p, blockIdx.x, keys, total, histogram);
}
