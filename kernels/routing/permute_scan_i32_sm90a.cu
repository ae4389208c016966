// Second pass of the permutation, one block: turns the chunks' counts into the row of each chunk's first entry of each
// expert, and writes counts and offsets.
#include "abi.h"
#include "ptx/grid.cuh"
#include "routing/permute.cuh"

using namespace ng;

extern "C" __global__ void __launch_bounds__(routing::kThreads) NG_ENTRY(const __grid_constant__ NgPermuteParams p) {
    __shared__ int32_t partial[routing::kWarps];
    ptx::grid_dependency_wait();
    auto* rows = tile::pointer<int32_t>(p.partial) + threadIdx.x;
    int32_t count = 0;
    if (threadIdx.x < p.experts) {
        for (uint32_t chunk = 0; chunk < p.chunks; ++chunk) count += rows[uint64_t(chunk) * p.experts];
    }
    int32_t total;
    int32_t row = routing::write_offsets(p, count, partial, total);
    if (threadIdx.x < p.experts) {
        for (uint32_t chunk = 0; chunk < p.chunks; ++chunk) {
            const int32_t here = rows[uint64_t(chunk) * p.experts];
            rows[uint64_t(chunk) * p.experts] = row;
            row += here;
        }
    }
}
