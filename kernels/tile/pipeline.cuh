// A ring of shared-memory stages between one producer and several consumers.
#pragma once
#include <stdint.h>

#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"

namespace ng::tile {

// Position in the ring. The producer's first pass over the ring finds every stage free.
template <int Stages>
struct PipelinePosition {
    uint32_t stage = 0;
    uint32_t phase = 0;

    // By at most Stages.
    __device__ __forceinline__ void advance(uint32_t by = 1) {
        stage += by;
        if (stage >= Stages) {
            stage -= Stages;
            phase ^= 1;
        }
    }
};

// Two arrays of barriers in shared memory: `full` counts bytes and producers' arrivals, `empty` counts consumers' arrivals.
template <int Stages>
struct Pipeline {
    static constexpr uint32_t kBytes = Stages * 16;
    uint32_t base;

    __device__ __forceinline__ uint32_t full(uint32_t stage) const { return base + stage * 8; }
    __device__ __forceinline__ uint32_t empty(uint32_t stage) const { return base + (Stages + stage) * 8; }

    // One thread; the block synchronises afterwards.
    __device__ __forceinline__ void init(uint32_t consumer_arrivals, uint32_t full_arrivals = 1) const {
        for (uint32_t stage = 0; stage < Stages; ++stage) {
            ptx::mbarrier_init(full(stage), full_arrivals);
            ptx::mbarrier_init(empty(stage), consumer_arrivals);
        }
        ptx::fence_mbarrier_init();
    }

    __device__ __forceinline__ void wait_full(PipelinePosition<Stages> at) const {
        ptx::mbarrier_wait_parity(full(at.stage), at.phase);
    }
    __device__ __forceinline__ void wait_empty(PipelinePosition<Stages> at) const {
        ptx::mbarrier_wait_parity(empty(at.stage), at.phase ^ 1);
    }
    __device__ __forceinline__ bool is_empty(PipelinePosition<Stages> at) const {
        return ptx::mbarrier_test_parity(empty(at.stage), at.phase ^ 1);
    }
    __device__ __forceinline__ void release(PipelinePosition<Stages> at) const { ptx::mbarrier_arrive(empty(at.stage)); }
};

}  // namespace ng::tile
