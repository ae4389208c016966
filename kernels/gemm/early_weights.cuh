// Weights on their way before a kernel may read: its predecessors still run, and memory has room beside what they do.
#pragma once
#include <stdint.h>

#include "gemm/split_sums.cuh"
#include "ptx/cluster.cuh"
#include "tile/groups.cuh"

namespace ng::gemm {

// One thread, before the grid's dependency wait: `fetch(tile, k_block)` sends for the weights of the block's first `Stages`
// stages. It shall send them to L2, which is never out of date, so nothing is asked of who wrote them. Which weights a
// group of rows takes is known after the wait only, so grouped products send for none.
template <uint32_t Stages, class Work, class Fetch>
__device__ __forceinline__ void prefetch_weights(const Work& work, const KPart& part, Fetch fetch) {
    if (work.tabled() || part.blocks == 0) return;
    const uint32_t ranks = ptx::cluster_size();
    uint32_t index = blockIdx.x / ranks, block = part.blocks;
    tile::Tile tile;
#pragma unroll 1
    for (uint32_t stage = 0; stage < Stages; ++stage, ++block) {
        if (block == part.blocks) {
            if (!work.at(index, tile)) return;
            index += gridDim.x / ranks;
            block = 0;
        }
        fetch(tile, part.first + block);
    }
}

}  // namespace ng::gemm
