// Redistribution of registers between the warpgroups of a block.
#pragma once

namespace ng::ptx {

template <int Count>
__device__ __forceinline__ void set_max_registers_increase() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

template <int Count>
__device__ __forceinline__ void set_max_registers_decrease() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

}  // namespace ng::ptx
