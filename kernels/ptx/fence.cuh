// Fences between proxies and scopes, and named barriers.
#pragma once
#include <stdint.h>

namespace ng::ptx {

// Generic writes to shared memory before it are seen by later TMA stores and wgmma operands.
__device__ __forceinline__ void fence_proxy_async_shared() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The same for global memory that a TMA load will read.
__device__ __forceinline__ void fence_proxy_async_global() {
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_sync(uint32_t id, uint32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t id, uint32_t threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// barrier_sync, and whether any of the threads says so.
__device__ __forceinline__ bool barrier_any(uint32_t id, uint32_t threads, bool predicate) {
    uint32_t answer;
    asm volatile(
        "{\n.reg .pred p, q;\nsetp.ne.u32 p, %1, 0;\nbar.red.or.pred q, %2, %3, p;\nselp.u32 %0, 1, 0, q;\n}"
        : "=r"(answer)
        : "r"(uint32_t(predicate)), "r"(id), "r"(threads)
        : "memory");
    return answer != 0;
}

}  // namespace ng::ptx
