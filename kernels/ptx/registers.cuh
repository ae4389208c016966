// Redistribution of registers between the warpgroups of a block.
#pragma once
#include <stdint.h>

namespace ng::ptx {

template <int Count>
__device__ __forceinline__ void set_max_registers_increase() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

template <int Count>
__device__ __forceinline__ void set_max_registers_decrease() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

// The same value, of which the compiler forgets what it knows.
__device__ __forceinline__ uint32_t opaque(uint32_t value) {
    asm volatile("" : "+r"(value));
    return value;
}

}  // namespace ng::ptx
