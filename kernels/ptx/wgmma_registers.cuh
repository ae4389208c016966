// The 16-bit products whose A is in registers: D[64, 128] += A[64, 16] * B[16, 128], B by a descriptor, N-major.
#pragma once
#include <stdint.h>

#include "ptx/wgmma.cuh"

namespace ng::ptx {

// clang-format off
#define NG_OCTET(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3]), "+f"(d[(i) + 4]), "+f"(d[(i) + 5]), "+f"(d[(i) + 6]), "+f"(d[(i) + 7])
#define NG_WGMMA_REGISTERS(TYPE)                                                                                       \
    __device__ __forceinline__ void wgmma_##TYPE##_registers(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {     \
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." #TYPE "." #TYPE                                    \
            " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                 \
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                         \
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                         \
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "                        \
            "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"                                                                   \
            : NG_OCTET(0), NG_OCTET(8), NG_OCTET(16), NG_OCTET(24), NG_OCTET(32), NG_OCTET(40), NG_OCTET(48),          \
              NG_OCTET(56)                                                                                             \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                                     \
    }
NG_WGMMA_REGISTERS(bf16)
NG_WGMMA_REGISTERS(f16)
#undef NG_WGMMA_REGISTERS
#undef NG_OCTET
// clang-format on

}  // namespace ng::ptx
