// Global memory accesses that C++ cannot name.
#pragma once
#include <stdint.h>

namespace ng::ptx {

// Adds a condition of the data to the stream's status word. Relaxed: the host reads it after the stream is idle.
__device__ __forceinline__ void report_status(uint32_t* word, uint32_t bits) {
    asm volatile("red.relaxed.gpu.or.b32 [%0], %1;" ::"l"(word), "r"(bits) : "memory");
}

// Asks for the cache line of a global address in L2.
__device__ __forceinline__ void prefetch_l2(uint64_t address) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address) : "memory");
}

// 16 bytes to an address in shared memory.
__device__ __forceinline__ void store_16(uint32_t to, uint4 values) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(values.x), "r"(values.y), "r"(values.z),
                 "r"(values.w)
                 : "memory");
}

}  // namespace ng::ptx
