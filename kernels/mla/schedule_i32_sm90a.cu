// Deals the blocks of tokens of all groups of rows to the workers, from the lengths in memory: one block of threads.
//
// Groups stand in a row, each as long as its blocks and a constant for its start and end. Worker w gets the w-th of as many
// equal parts, so each cut needs nothing but the sums before it. Cuts near a group's ends move there.
#include "abi.h"
#include "mla/decode.cuh"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "ptx/warp.cuh"

using namespace ng;

namespace {
constexpr uint32_t kThreads = 1024;

__device__ __forceinline__ uint32_t cost(const mla::Group& group) {
    return group.exists() ? group.blocks + mla::kGroupCost : 0;
}

__device__ __forceinline__ int2 cut(int32_t index, int32_t blocks, int32_t into) {
    const int32_t block = into - mla::kGroupCost;
    if (block < mla::kLeastPiece) return make_int2(index, 0);
    if (blocks - block < mla::kLeastPiece) return make_int2(index + 1, 0);
    return make_int2(index, block);
}
}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) NG_ENTRY(const __grid_constant__ NgMlaScheduleParams p) {
    __shared__ uint32_t sums[kThreads / 32];
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int32_t groups = p.batch * p.groups;
    const int32_t share = (groups + kThreads - 1) / kThreads;
    const int32_t first = min(static_cast<int32_t>(threadIdx.x) * share, groups);
    const int32_t last = min(first + share, groups);

    uint32_t mine = 0, status = 0;
    for (int32_t i = first; i < last; ++i) {
        const mla::Group group(p, i);
        mine += cost(group);
        status |= group.sequence.status;
    }
    // Of groups without rows nobody else would.
    if (status != 0) ptx::report_status(reinterpret_cast<uint32_t*>(p.status), status);
    uint32_t before = mine;
    for (uint32_t step = 1; step < 32; step *= 2) {
        const uint32_t other = ptx::shuffle_up(before, step);
        if (lane >= step) before += other;
    }
    if (lane == 31) sums[warp] = before;
    __syncthreads();
    uint32_t total = 0, warps = 0;
    for (uint32_t i = 0; i < kThreads / 32; ++i) {
        if (i == warp) warps = total;
        total += sums[i];
    }
    uint32_t start = before - mine + warps;

    int2* cuts = reinterpret_cast<int2*>(p.cuts);
    const uint32_t workers = p.workers;
    const uint32_t quota = max((total + workers - 1) / workers, 1u);
    for (int32_t i = first; i < last; ++i) {
        const mla::Group group(p, i);
        const uint32_t end = start + cost(group);
        for (uint32_t worker = (start + quota - 1) / quota; worker * quota < end; ++worker)
            cuts[worker] = cut(i, group.blocks, worker * quota - start);
        start = end;
    }
    for (uint32_t worker = (total + quota - 1) / quota + threadIdx.x; worker <= workers; worker += kThreads)
        cuts[worker] = make_int2(groups, 0);
}
