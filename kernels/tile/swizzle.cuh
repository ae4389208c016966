// Shared-memory layouts of the tensor memory accelerator and wgmma.
#pragma once
#include <stdint.h>

namespace ng::tile {

// The 128-byte swizzle: 16-byte chunk index xor row index within an atom of 8 rows of 128 bytes.
// `offset` counts bytes from an address that is a multiple of 1024.
__device__ __forceinline__ constexpr uint32_t swizzle_128(uint32_t offset) { return offset ^ ((offset >> 3) & 0x70); }

__device__ __forceinline__ constexpr uint32_t swizzle_64(uint32_t offset) { return offset ^ ((offset >> 3) & 0x30); }

}  // namespace ng::tile
