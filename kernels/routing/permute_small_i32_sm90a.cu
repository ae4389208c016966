// The whole permutation in one block, for at most one chunk of entries.
#include "abi.h"
#include "ptx/grid.cuh"
#include "routing/permute.cuh"

using namespace ng;

extern "C" __global__ void __launch_bounds__(routing::kThreads) NG_ENTRY(const __grid_constant__ NgPermuteParams p) {
    __shared__ routing::Histogram histogram;
    __shared__ int32_t partial[routing::kWarps];
    ptx::grid_dependency_wait();
    const routing::Keys keys = routing::load_keys(p, 0, true);
    routing::count(keys, p.experts, histogram);
    int32_t total;
    const int32_t offset =
        routing::write_offsets(p, routing::chunk_total(p.experts, histogram), partial, total);
    if (threadIdx.x < p.experts) routing::count_to_rows(offset, histogram);
    routing::scatter(p, 0, keys, total, histogram);
}
