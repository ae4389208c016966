// First pass of the permutation: entries of each expert in each chunk, a block a chunk.
#include "abi.h"
#include "ptx/grid.cuh"
#include "routing/permute.cuh"

using namespace ng;

extern "C" __global__ void __launch_bounds__(routing::kThreads) NG_ENTRY(const __grid_constant__ NgPermuteParams p) {
    __shared__ routing::Histogram histogram;
    ptx::grid_dependency_wait();
    const routing::Keys keys = routing::load_keys(p, blockIdx.x, true);
    routing::count(keys, p.experts, histogram);
    const int32_t total = routing::chunk_total(p.experts, histogram);
    if (threadIdx.x < p.experts) {
        tile::pointer<int32_t>(p.partial)[uint64_t(blockIdx.x) * p.experts + threadIdx.x] = total;
    }
}
