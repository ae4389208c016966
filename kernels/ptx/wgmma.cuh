// Warpgroup matrix multiply-accumulate: D[64, N] += A[64, K] * B[N, K]^T, f32 accumulators.
//
// One specialisation per N holds the forms of the instruction; the macros only spell the operand lists.
// Accumulators belong to the tensor core from the instruction to the wait that covers it.
#pragma once
#include <stdint.h>

namespace ng::ptx {

// Orders earlier register accesses of the warpgroup before its next wgmma.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void wgmma_commit_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// At most `Pending` of the newest groups may still run.
template <int Pending>
__device__ __forceinline__ void wgmma_wait_group() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// Keeps the compiler from moving accesses to these registers across this point: it cannot see when wgmma owns them.
template <int Count>
__device__ __forceinline__ void pin_registers(float (&values)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

template <int Count>
__device__ __forceinline__ void pin_registers(uint32_t (&values)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; ++i) asm volatile("" : "+r"(values[i])::"memory");
}

template <int N>
struct Wgmma;

// clang-format off
#define NG_NAMES_1 "%0, %1, %2, %3"
#define NG_NAMES_2 NG_NAMES_1 ", %4, %5, %6, %7"
#define NG_NAMES_3 NG_NAMES_2 ", %8, %9, %10, %11"
#define NG_NAMES_4 NG_NAMES_3 ", %12, %13, %14, %15"
#define NG_NAMES_5 NG_NAMES_4 ", %16, %17, %18, %19"
#define NG_NAMES_6 NG_NAMES_5 ", %20, %21, %22, %23"
#define NG_NAMES_7 NG_NAMES_6 ", %24, %25, %26, %27"
#define NG_NAMES_8 NG_NAMES_7 ", %28, %29, %30, %31"
#define NG_NAMES_9 NG_NAMES_8 ", %32, %33, %34, %35"
#define NG_NAMES_10 NG_NAMES_9 ", %36, %37, %38, %39"
#define NG_NAMES_11 NG_NAMES_10 ", %40, %41, %42, %43"
#define NG_NAMES_12 NG_NAMES_11 ", %44, %45, %46, %47"
#define NG_NAMES_13 NG_NAMES_12 ", %48, %49, %50, %51"
#define NG_NAMES_14 NG_NAMES_13 ", %52, %53, %54, %55"
#define NG_NAMES_15 NG_NAMES_14 ", %56, %57, %58, %59"
#define NG_NAMES_16 NG_NAMES_15 ", %60, %61, %62, %63"
#define NG_NAMES_17 NG_NAMES_16 ", %64, %65, %66, %67"
#define NG_NAMES_18 NG_NAMES_17 ", %68, %69, %70, %71"
#define NG_NAMES_19 NG_NAMES_18 ", %72, %73, %74, %75"
#define NG_NAMES_20 NG_NAMES_19 ", %76, %77, %78, %79"
#define NG_NAMES_21 NG_NAMES_20 ", %80, %81, %82, %83"
#define NG_NAMES_22 NG_NAMES_21 ", %84, %85, %86, %87"
#define NG_NAMES_23 NG_NAMES_22 ", %88, %89, %90, %91"
#define NG_NAMES_24 NG_NAMES_23 ", %92, %93, %94, %95"
#define NG_NAMES_25 NG_NAMES_24 ", %96, %97, %98, %99"
#define NG_NAMES_26 NG_NAMES_25 ", %100, %101, %102, %103"
#define NG_NAMES_27 NG_NAMES_26 ", %104, %105, %106, %107"
#define NG_NAMES_28 NG_NAMES_27 ", %108, %109, %110, %111"
#define NG_NAMES_29 NG_NAMES_28 ", %112, %113, %114, %115"
#define NG_NAMES_30 NG_NAMES_29 ", %116, %117, %118, %119"
#define NG_NAMES_31 NG_NAMES_30 ", %120, %121, %122, %123"
#define NG_NAMES_32 NG_NAMES_31 ", %124, %125, %126, %127"
#define NG_QUAD(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define NG_OPERANDS_1 NG_QUAD(0)
#define NG_OPERANDS_2 NG_OPERANDS_1, NG_QUAD(4)
#define NG_OPERANDS_3 NG_OPERANDS_2, NG_QUAD(8)
#define NG_OPERANDS_4 NG_OPERANDS_3, NG_QUAD(12)
#define NG_OPERANDS_5 NG_OPERANDS_4, NG_QUAD(16)
#define NG_OPERANDS_6 NG_OPERANDS_5, NG_QUAD(20)
#define NG_OPERANDS_7 NG_OPERANDS_6, NG_QUAD(24)
#define NG_OPERANDS_8 NG_OPERANDS_7, NG_QUAD(28)
#define NG_OPERANDS_9 NG_OPERANDS_8, NG_QUAD(32)
#define NG_OPERANDS_10 NG_OPERANDS_9, NG_QUAD(36)
#define NG_OPERANDS_11 NG_OPERANDS_10, NG_QUAD(40)
#define NG_OPERANDS_12 NG_OPERANDS_11, NG_QUAD(44)
#define NG_OPERANDS_13 NG_OPERANDS_12, NG_QUAD(48)
#define NG_OPERANDS_14 NG_OPERANDS_13, NG_QUAD(52)
#define NG_OPERANDS_15 NG_OPERANDS_14, NG_QUAD(56)
#define NG_OPERANDS_16 NG_OPERANDS_15, NG_QUAD(60)
#define NG_OPERANDS_17 NG_OPERANDS_16, NG_QUAD(64)
#define NG_OPERANDS_18 NG_OPERANDS_17, NG_QUAD(68)
#define NG_OPERANDS_19 NG_OPERANDS_18, NG_QUAD(72)
#define NG_OPERANDS_20 NG_OPERANDS_19, NG_QUAD(76)
#define NG_OPERANDS_21 NG_OPERANDS_20, NG_QUAD(80)
#define NG_OPERANDS_22 NG_OPERANDS_21, NG_QUAD(84)
#define NG_OPERANDS_23 NG_OPERANDS_22, NG_QUAD(88)
#define NG_OPERANDS_24 NG_OPERANDS_23, NG_QUAD(92)
#define NG_OPERANDS_25 NG_OPERANDS_24, NG_QUAD(96)
#define NG_OPERANDS_26 NG_OPERANDS_25, NG_QUAD(100)
#define NG_OPERANDS_27 NG_OPERANDS_26, NG_QUAD(104)
#define NG_OPERANDS_28 NG_OPERANDS_27, NG_QUAD(108)
#define NG_OPERANDS_29 NG_OPERANDS_28, NG_QUAD(112)
#define NG_OPERANDS_30 NG_OPERANDS_29, NG_QUAD(116)
#define NG_OPERANDS_31 NG_OPERANDS_30, NG_QUAD(120)
#define NG_OPERANDS_32 NG_OPERANDS_31, NG_QUAD(124)

// Both operands by descriptors; TYPES are those of A and B.
#define NG_WGMMA_FP8(N, OCTETS, NAME, TYPES, P0, P1, P2)                                                             \
        static __device__ __forceinline__ void NAME(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {        \
            asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %" #P2 ", 0;\n\t"                                    \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32." TYPES " {" NG_NAMES_##OCTETS "}, "        \
                         "%" #P0 ", %" #P1 ", p, 1, 1;\n\t}"                                                        \
                         : NG_OPERANDS_##OCTETS                                                                     \
                         : "l"(a), "l"(b), "r"(scale_d));                                                           \
        }

#define NG_WGMMA_HALF(N, OCTETS, TYPE, P0, P1, P2, P3, P4)                                                          \
        template <int TransposeA, int TransposeB>                                                                   \
        static __device__ __forceinline__ void TYPE(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {       \
            asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %" #P2 ", 0;\n\t"                                    \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" NG_NAMES_##OCTETS   \
                         "}, %" #P0 ", %" #P1 ", p, 1, 1, %" #P3 ", %" #P4 ";\n\t}"                                 \
                         : NG_OPERANDS_##OCTETS                                                                     \
                         : "l"(a), "l"(b), "r"(scale_d), "n"(TransposeA), "n"(TransposeB));                         \
        }

// A from registers.
#define NG_WGMMA_HALF_REGISTERS(N, OCTETS, TYPE, P0, P1, P2, P3, P4, P5, P6)                                        \
        template <int TransposeB>                                                                                   \
        static __device__ __forceinline__ void TYPE(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,          \
                                                    int scale_d) {                                                  \
            asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %" #P5 ", 0;\n\t"                                    \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" NG_NAMES_##OCTETS   \
                         "}, "                                                                                     \
                         "{%" #P0 ", %" #P1 ", %" #P2 ", %" #P3 "}, %" #P4 ", p, 1, 1, %" #P6 ";\n\t}"              \
                         : NG_OPERANDS_##OCTETS                                                                     \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(scale_d), "n"(TransposeB));      \
        }

// N, N / 8, and the numbers of the operands that may follow the accumulators.
#define NG_WGMMA(N, OCTETS, P0, P1, P2, P3, P4, P5, P6, P7)                                                        \
    template <>                                                                                                     \
    struct Wgmma<N> {                                                                                               \
        NG_WGMMA_FP8(N, OCTETS, e4m3, "e4m3.e4m3", P0, P1, P2)                                                 \
        NG_WGMMA_FP8(N, OCTETS, e4m3_e5m2, "e4m3.e5m2", P0, P1, P2)                                                 \
        NG_WGMMA_FP8(N, OCTETS, e5m2_e4m3, "e5m2.e4m3", P0, P1, P2)                                                 \
        NG_WGMMA_FP8(N, OCTETS, e5m2_e5m2, "e5m2.e5m2", P0, P1, P2)                                                 \
        static __device__ __forceinline__ void e4m3(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,          \
                                                    int scale_d) {                                                  \
            asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %" #P5 ", 0;\n\t"                                    \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" NG_NAMES_##OCTETS "}, "       \
                         "{%" #P0 ", %" #P1 ", %" #P2 ", %" #P3 "}, %" #P4 ", p, 1, 1;\n\t}"                        \
                         : NG_OPERANDS_##OCTETS                                                                     \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(scale_d));                       \
        }                                                                                                           \
        NG_WGMMA_HALF(N, OCTETS, bf16, P0, P1, P2, P3, P4)                                                          \
        NG_WGMMA_HALF(N, OCTETS, f16, P0, P1, P2, P3, P4)                                                           \
        NG_WGMMA_HALF_REGISTERS(N, OCTETS, bf16, P0, P1, P2, P3, P4, P5, P6)                                        \
        NG_WGMMA_HALF_REGISTERS(N, OCTETS, f16, P0, P1, P2, P3, P4, P5, P6)                                         \
    };

NG_WGMMA(8, 1, 4, 5, 6, 7, 8, 9, 10, 11)
NG_WGMMA(16, 2, 8, 9, 10, 11, 12, 13, 14, 15)
NG_WGMMA(24, 3, 12, 13, 14, 15, 16, 17, 18, 19)
NG_WGMMA(32, 4, 16, 17, 18, 19, 20, 21, 22, 23)
NG_WGMMA(40, 5, 20, 21, 22, 23, 24, 25, 26, 27)
NG_WGMMA(48, 6, 24, 25, 26, 27, 28, 29, 30, 31)
NG_WGMMA(56, 7, 28, 29, 30, 31, 32, 33, 34, 35)
NG_WGMMA(64, 8, 32, 33, 34, 35, 36, 37, 38, 39)
NG_WGMMA(72, 9, 36, 37, 38, 39, 40, 41, 42, 43)
NG_WGMMA(80, 10, 40, 41, 42, 43, 44, 45, 46, 47)
NG_WGMMA(88, 11, 44, 45, 46, 47, 48, 49, 50, 51)
NG_WGMMA(96, 12, 48, 49, 50, 51, 52, 53, 54, 55)
NG_WGMMA(104, 13, 52, 53, 54, 55, 56, 57, 58, 59)
NG_WGMMA(112, 14, 56, 57, 58, 59, 60, 61, 62, 63)
NG_WGMMA(120, 15, 60, 61, 62, 63, 64, 65, 66, 67)
NG_WGMMA(128, 16, 64, 65, 66, 67, 68, 69, 70, 71)
NG_WGMMA(136, 17, 68, 69, 70, 71, 72, 73, 74, 75)
NG_WGMMA(144, 18, 72, 73, 74, 75, 76, 77, 78, 79)
NG_WGMMA(152, 19, 76, 77, 78, 79, 80, 81, 82, 83)
NG_WGMMA(160, 20, 80, 81, 82, 83, 84, 85, 86, 87)
NG_WGMMA(168, 21, 84, 85, 86, 87, 88, 89, 90, 91)
NG_WGMMA(176, 22, 88, 89, 90, 91, 92, 93, 94, 95)
NG_WGMMA(184, 23, 92, 93, 94, 95, 96, 97, 98, 99)
NG_WGMMA(192, 24, 96, 97, 98, 99, 100, 101, 102, 103)
NG_WGMMA(200, 25, 100, 101, 102, 103, 104, 105, 106, 107)
NG_WGMMA(208, 26, 104, 105, 106, 107, 108, 109, 110, 111)
NG_WGMMA(216, 27, 108, 109, 110, 111, 112, 113, 114, 115)
NG_WGMMA(224, 28, 112, 113, 114, 115, 116, 117, 118, 119)
NG_WGMMA(232, 29, 116, 117, 118, 119, 120, 121, 122, 123)
NG_WGMMA(240, 30, 120, 121, 122, 123, 124, 125, 126, 127)
NG_WGMMA(248, 31, 124, 125, 126, 127, 128, 129, 130, 131)
NG_WGMMA(256, 32, 128, 129, 130, 131, 132, 133, 134, 135)
// clang-format on

#undef NG_WGMMA
#undef NG_WGMMA_FP8
#undef NG_WGMMA_HALF
#undef NG_WGMMA_HALF_REGISTERS
#undef NG_QUAD
#undef NG_NAMES_1
#undef NG_OPERANDS_1
#undef NG_NAMES_2
#undef NG_OPERANDS_2
#undef NG_NAMES_3
#undef NG_OPERANDS_3
#undef NG_NAMES_4
#undef NG_OPERANDS_4
#undef NG_NAMES_5
#undef NG_OPERANDS_5
#undef NG_NAMES_6
#undef NG_OPERANDS_6
#undef NG_NAMES_7
#undef NG_OPERANDS_7
#undef NG_NAMES_8
#undef NG_OPERANDS_8
#undef NG_NAMES_9
#undef NG_OPERANDS_9
#undef NG_NAMES_10
#undef NG_OPERANDS_10
#undef NG_NAMES_11
#undef NG_OPERANDS_11
#undef NG_NAMES_12
#undef NG_OPERANDS_12
#undef NG_NAMES_13
#undef NG_OPERANDS_13
#undef NG_NAMES_14
#undef NG_OPERANDS_14
#undef NG_NAMES_15
#undef NG_OPERANDS_15
#undef NG_NAMES_16
#undef NG_OPERANDS_16
#undef NG_NAMES_17
#undef NG_OPERANDS_17
#undef NG_NAMES_18
#undef NG_OPERANDS_18
#undef NG_NAMES_19
#undef NG_OPERANDS_19
#undef NG_NAMES_20
#undef NG_OPERANDS_20
#undef NG_NAMES_21
#undef NG_OPERANDS_21
#undef NG_NAMES_22
#undef NG_OPERANDS_22
#undef NG_NAMES_23
#undef NG_OPERANDS_23
#undef NG_NAMES_24
#undef NG_OPERANDS_24
#undef NG_NAMES_25
#undef NG_OPERANDS_25
#undef NG_NAMES_26
#undef NG_OPERANDS_26
#undef NG_NAMES_27
#undef NG_OPERANDS_27
#undef NG_NAMES_28
#undef NG_OPERANDS_28
#undef NG_NAMES_29
#undef NG_OPERANDS_29
#undef NG_NAMES_30
#undef NG_OPERANDS_30
#undef NG_NAMES_31
#undef NG_OPERANDS_31
#undef NG_NAMES_32
#undef NG_OPERANDS_32

// A and B by shared-memory descriptors, both K-major. scale_d == 0 overwrites D instead of adding to it.
template <int N>
__device__ __forceinline__ void wgmma_e4m3(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    Wgmma<N>::e4m3(d, a, b, scale_d);
}

// The same for operands that are e5m2 where so named (gradients), e4m3 otherwise.
template <int N, bool AE5m2, bool BE5m2>
__device__ __forceinline__ void wgmma_fp8(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    if constexpr (AE5m2 && BE5m2) {
        Wgmma<N>::e5m2_e5m2(d, a, b, scale_d);
    } else if constexpr (AE5m2) {
        Wgmma<N>::e5m2_e4m3(d, a, b, scale_d);
    } else if constexpr (BE5m2) {
        Wgmma<N>::e4m3_e5m2(d, a, b, scale_d);
    } else {
        Wgmma<N>::e4m3(d, a, b, scale_d);
    }
}

template <int N>
__device__ __forceinline__ void wgmma_e4m3(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d) {
    Wgmma<N>::e4m3(d, a, b, scale_d);
}

// Transpose flags: 0 is K-major, 1 is M-major (A) or N-major (B).
template <int N, int TransposeA = 0, int TransposeB = 0>
__device__ __forceinline__ void wgmma_bf16(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    Wgmma<N>::template bf16<TransposeA, TransposeB>(d, a, b, scale_d);
}

// The same for f16 or bf16.
template <int N, bool F16, int TransposeA, int TransposeB>
__device__ __forceinline__ void wgmma_half(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    if constexpr (F16) {
        Wgmma<N>::template f16<TransposeA, TransposeB>(d, a, b, scale_d);
    } else {
        Wgmma<N>::template bf16<TransposeA, TransposeB>(d, a, b, scale_d);
    }
}

template <int N, int TransposeB = 0>
__device__ __forceinline__ void wgmma_bf16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d) {
    Wgmma<N>::template bf16<TransposeB>(d, a, b, scale_d);
}

// The same for f16 or bf16.
template <int N, bool F16, int TransposeB>
__device__ __forceinline__ void wgmma_half(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d) {
    if constexpr (F16) {
        Wgmma<N>::template f16<TransposeB>(d, a, b, scale_d);
    } else {
        Wgmma<N>::template bf16<TransposeB>(d, a, b, scale_d);
    }
}

}  // namespace ng::ptx
