// Shared-memory layouts of the tensor memory accelerator and wgmma.
#pragma once
#include <stdint.h>

namespace ng::tile {

// The 128-byte swizzle: 16-byte chunk index xor row index within an atom of 8 rows of 128 bytes.
// `offset` counts bytes from an address that is a multiple of 1024.
__device__ __forceinline__ constexpr uint32_t swizzle_128(uint32_t offset) { return offset ^ ((offset >> 3) & 0x70); }

__device__ __forceinline__ constexpr uint32_t swizzle_64(uint32_t offset) { return offset ^ ((offset >> 3) & 0x30); }

// The swizzle of rows of 64 or 128 bytes.
template <uint32_t RowBytes>
__device__ __forceinline__ constexpr uint32_t swizzle(uint32_t offset) {
    static_assert(RowBytes == 64 || RowBytes == 128, "a swizzle's span");
    return RowBytes == 128 ? swizzle_128(offset) : swizzle_64(offset);
}

}  // namespace ng::tile
