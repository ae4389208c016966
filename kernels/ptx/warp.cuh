// Exchanges between the lanes of a warp, and the warp's own coordinates.
#pragma once
#include <stdint.h>

namespace ng::ptx {

constexpr uint32_t kFullWarp = 0xffffffffu;

__device__ __forceinline__ uint32_t lane_id() {
    uint32_t lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

__device__ __forceinline__ uint32_t lanes_below() {
    uint32_t mask;
    asm("mov.u32 %0, %%lanemask_lt;" : "=r"(mask));
    return mask;
}

__device__ __forceinline__ uint32_t shuffle_xor(uint32_t value, uint32_t lane_mask) {
    uint32_t other;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(other) : "r"(value), "r"(lane_mask));
    return other;
}

__device__ __forceinline__ float shuffle_xor(float value, uint32_t lane_mask) {
    return __uint_as_float(shuffle_xor(__float_as_uint(value), lane_mask));
}

__device__ __forceinline__ uint32_t shuffle_down(uint32_t value, uint32_t delta) {
    uint32_t other;
    asm volatile("shfl.sync.down.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(other) : "r"(value), "r"(delta));
    return other;
}

__device__ __forceinline__ float shuffle_down(float value, uint32_t delta) {
    return __uint_as_float(shuffle_down(__float_as_uint(value), delta));
}

__device__ __forceinline__ uint32_t shuffle_up(uint32_t value, uint32_t delta) {
    uint32_t other;
    asm volatile("shfl.sync.up.b32 %0, %1, %2, 0, 0xffffffff;" : "=r"(other) : "r"(value), "r"(delta));
    return other;
}

__device__ __forceinline__ uint32_t shuffle_index(uint32_t value, uint32_t lane) {
    uint32_t other;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(other) : "r"(value), "r"(lane));
    return other;
}

__device__ __forceinline__ float shuffle_index(float value, uint32_t lane) {
    return __uint_as_float(shuffle_index(__float_as_uint(value), lane));
}

// A value that all lanes hold. The compiler knows it for uniform only this way, and keeps what follows from it
// (descriptors, loop bounds) in uniform registers, as long as no shuffle stands under a branch.
__device__ __forceinline__ uint32_t warp_uniform(uint32_t value) {
    uint32_t result;
    asm volatile("redux.sync.or.b32 %0, %1, 0xffffffff;" : "=r"(result) : "r"(value));
    return result;
}

// The sum over the warp's lanes, in all of them.
__device__ __forceinline__ uint32_t warp_sum(uint32_t value) {
    uint32_t sum;
    asm volatile("redux.sync.add.u32 %0, %1, 0xffffffff;" : "=r"(sum) : "r"(value));
    return sum;
}

// The largest of the warp's lanes, in all of them.
__device__ __forceinline__ uint32_t warp_maximum(uint32_t value) {
    uint32_t most;
    asm volatile("redux.sync.max.u32 %0, %1, 0xffffffff;" : "=r"(most) : "r"(value));
    return most;
}

__device__ __forceinline__ uint32_t ballot(bool predicate) {
    uint32_t mask;
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %1, 0;\nvote.sync.ballot.b32 %0, p, 0xffffffff;\n}"
        : "=r"(mask)
        : "r"(uint32_t(predicate)));
    return mask;
}

// Whether any lane says so. The assembler knows that all lanes get the same answer, which it does not of a shuffle.
__device__ __forceinline__ bool any(bool predicate) {
    uint32_t answer;
    asm volatile(
        "{\n.reg .pred p, q;\nsetp.ne.u32 p, %1, 0;\nvote.sync.any.pred q, p, 0xffffffff;\nselp.u32 %0, 1, 0, q;\n}"
        : "=r"(answer)
        : "r"(uint32_t(predicate)));
    return answer != 0;
}

__device__ __forceinline__ void warp_barrier() { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }

// Every thread of the block, barrier 0.
__device__ __forceinline__ void block_barrier() { asm volatile("barrier.sync.aligned 0;" ::: "memory"); }

}  // namespace ng::ptx
