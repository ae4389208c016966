// 8x8 matrices of 16-bit elements between registers and shared memory.
#pragma once
#include <stdint.h>

namespace ng::ptx {

// Lane 8j + i gives the address of row i of matrix j; register j of each lane holds two neighbours of matrix j.
__device__ __forceinline__ void stmatrix_x4(uint32_t row, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(m0), "r"(m1), "r"(m2),
                 "r"(m3)
                 : "memory");
}

// The same matrices transposed: each lane holds two neighbours of a column, which go to rows 2i and 2i + 1.
__device__ __forceinline__ void stmatrix_x4_transposed(uint32_t row, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(m0), "r"(m1),
                 "r"(m2), "r"(m3)
                 : "memory");
}

__device__ __forceinline__ void stmatrix_x2_transposed(uint32_t row, uint32_t m0, uint32_t m1) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(m0), "r"(m1) : "memory");
}

// Transposes a matrix whose lanes hold two neighbours of a row.
__device__ __forceinline__ uint32_t transpose_matrix(uint32_t m) {
    uint32_t result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(m));
    return result;
}

// The way back.
__device__ __forceinline__ void ldmatrix_x4(uint32_t row, uint32_t (&m)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(row)
                 : "memory");
}

}  // namespace ng::ptx
