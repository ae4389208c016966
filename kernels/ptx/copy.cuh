// Copies of 16 bytes from global to shared memory that a thread does not wait for (PTX ISA 9.7.9.25.3).
#pragma once
#include <stdint.h>

namespace ng::ptx {

// 16 bytes, or as many zeros where `exists` is false; then nothing is read.
__device__ __forceinline__ void copy_16(uint32_t to, const void* from, bool exists) {
    asm volatile(
        "{\n\t.reg .pred p;\n\t"
        "setp.eq.u32 p, %2, 0;\n\t"
        "cp.async.cg.shared.global [%0], [%1], 16, p;\n\t}" ::"r"(to),
        "l"(from), "r"(uint32_t(exists))
        : "memory");
}

__device__ __forceinline__ void copy_commit_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// At most `Pending` groups of this thread remain in flight.
template <int Pending>
__device__ __forceinline__ void copy_wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

}  // namespace ng::ptx
