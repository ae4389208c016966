// Shared-memory matrix descriptors of wgmma for tiles with the 128-byte swizzle.
#pragma once
#include <stdint.h>

namespace ng::tile {

// K-major tile: rows of 128 bytes, atoms of 8 rows, consecutive atoms `stride` bytes apart (1024 when packed).
// `shared` is a multiple of 1024. Inside an atom, K advances by adding bytes / 16 to the descriptor.
__device__ __forceinline__ uint64_t descriptor_k_major_128(uint32_t shared, uint32_t stride = 1024) {
    const uint64_t start = (shared & 0x3FFFF) >> 4;
    const uint64_t leading = 1;
    return start | leading << 16 | static_cast<uint64_t>(stride >> 4) << 32 | 1ull << 62;
}

// A packed one from its lower word, which is all that differs between places in shared memory: 32-bit arithmetic does.
__device__ __forceinline__ uint64_t descriptor_of(uint32_t lower) {
    return lower | static_cast<uint64_t>(1024 >> 4 | 1u << 30) << 32;
}

// MN-major tile of 16-bit elements: each k is a row of 64 elements (128 bytes) of M or N, atoms of 8 k.
// `leading`: bytes between blocks of 64 of M or N; `stride`: bytes between groups of 8 k.
__device__ __forceinline__ uint64_t descriptor_mn_major_128(uint32_t shared, uint32_t leading, uint32_t stride) {
    const uint64_t start = (shared & 0x3FFFF) >> 4;
    return start | static_cast<uint64_t>(leading >> 4) << 16 | static_cast<uint64_t>(stride >> 4) << 32 | 1ull << 62;
}

// The descriptor of the same tile `bytes` further on.
__device__ __forceinline__ uint64_t descriptor_advance(uint64_t descriptor, uint32_t bytes) {
    return descriptor + (bytes >> 4);
}

}  // namespace ng::tile
