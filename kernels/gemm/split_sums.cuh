// Sums of products whose K is split among the blocks of a cluster.
#pragma once
#include <stdint.h>

#include "ptx/cluster.cuh"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/warp.cuh"

namespace ng::gemm {

// A rank's part of K: adjacent k-blocks, as many as every rank has but for one.
struct KPart {
    uint32_t rank, first, blocks;

    __device__ __forceinline__ KPart(uint32_t k, uint32_t block_k) {
        const uint32_t ranks = ptx::cluster_size(), all = (k + block_k - 1) / block_k;
        rank = ptx::cluster_rank();
        first = all * rank / ranks;
        blocks = all * (rank + 1) / ranks - first;
    }
};

// Turns at the partial sums of a tile, which `Warps` warps of each rank write and then read of all ranks. Step by step.
template <uint32_t Warps>
struct SumExchange {
    static constexpr uint32_t kBytes = 16;
    static constexpr uint32_t kNamedBarrier = 1;  // of a block by itself
    uint32_t barriers;
    uint32_t ranks;

    __device__ __forceinline__ uint32_t ready() const { return barriers; }
    __device__ __forceinline__ uint32_t free() const { return barriers + 8; }

    // One thread: every warp of every rank says when its sums can be read, and when it has read.
    __device__ __forceinline__ void init() const {
        ptx::mbarrier_init(ready(), ranks * Warps);
        ptx::mbarrier_init(free(), ranks * Warps);
    }

    // Whoever reads the sums of the step before has done so.
    __device__ __forceinline__ void before_write(uint32_t step) const {
        if (ranks == 1) {
            ptx::barrier_sync(kNamedBarrier, Warps * 32);
        } else {
            ptx::cluster_mbarrier_wait_parity(free(), step % 2 ^ 1);
        }
    }

    __device__ __forceinline__ void before_read(uint32_t step) const {
        if (ranks == 1) {
            ptx::barrier_sync(kNamedBarrier, Warps * 32);
        } else {
            tell(ready());
            ptx::cluster_mbarrier_wait_parity(ready(), step % 2);
        }
    }

    __device__ __forceinline__ void after_read() const {
        if (ranks > 1) tell(free());
    }

    // After `steps` steps: nobody leaves while a peer may read its sums.
    __device__ __forceinline__ void before_exit(uint32_t steps) const {
        if (ranks > 1) ptx::cluster_mbarrier_wait_parity(free(), steps % 2 ^ 1);
    }

private:
    __device__ __forceinline__ void tell(uint32_t barrier) const {
        ptx::warp_barrier();
        if (ptx::lane_id() < ranks) ptx::cluster_mbarrier_arrive(ptx::cluster_address(barrier, ptx::lane_id()));
    }
};

// Four neighbouring sums of one token over all ranks, in their order.
__device__ __forceinline__ void total_piece(float (&values)[4], const float* partial, uint32_t word, uint32_t ranks) {
    if (ranks == 1) {
        const float4 only = *reinterpret_cast<const float4*>(partial + word);
        values[0] = only.x, values[1] = only.y, values[2] = only.z, values[3] = only.w;
        return;
    }
    const uint32_t from = ptx::shared_address(partial + word);
    float4 parts[8];
#pragma unroll
    for (uint32_t other = 0; other < 8; ++other) {
        parts[other] = make_float4(0, 0, 0, 0);
        if (other < ranks) parts[other] = ptx::cluster_load_f32x4(ptx::cluster_address(from, other));
    }
    values[0] = parts[0].x, values[1] = parts[0].y, values[2] = parts[0].z, values[3] = parts[0].w;
#pragma unroll
    for (uint32_t other = 1; other < 8; ++other) {
        if (other < ranks) {
            values[0] = __fadd_rn(values[0], parts[other].x);
            values[1] = __fadd_rn(values[1], parts[other].y);
            values[2] = __fadd_rn(values[2], parts[other].z);
            values[3] = __fadd_rn(values[3], parts[other].w);
        }
    }
}

}  // namespace ng::gemm
