// Blocks of 64 tokens of a paged cache, copied by the lanes of one warp.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "mla/decode.cuh"
#include "ptx/copy.cuh"
#include "ptx/fence.cuh"
#include "ptx/tma.cuh"
#include "ptx/warp.cuh"
#include "tile/swizzle.cuh"

namespace ng::mla {

// Page numbers of one block, as the table has them: a lane has those of its pages `lane` and `lane + 32`.
struct BlockPages {
    int32_t ids[2];
};

struct Tile {
    uint32_t address;
    int index;  // of 64 columns
};

template <uint32_t Cluster>
struct PagedBlocks {
    uint32_t lane;
    uint32_t pages;         // of a block, or 1
    uint32_t piece_shift;   // log2 of the tokens of one copy
    uint32_t pieces, first; // of this block of the cluster

    template <class Params>
    __device__ __forceinline__ PagedBlocks(const Params& p, uint32_t rank, uint32_t lane) : lane(lane) {
        pages = p.page_shift < 6 ? 64 >> p.page_shift : 1;
        piece_shift = min(static_cast<uint32_t>(p.page_shift), Cluster == 2 ? 5u : 6u);
        pieces = (64 >> piece_shift) / Cluster;
        first = rank * pieces;
    }

    // Reads the page table; check() says what its entries are worth.
    template <class Params>
    __device__ __forceinline__ BlockPages find(const Params& p, const Sequence& sequence, int32_t block) const {
        const int32_t* table = reinterpret_cast<const int32_t*>(p.page_table) + sequence.batch * p.table_stride;
        BlockPages found;
#pragma unroll
        for (uint32_t i = 0; i < 2; ++i) {
            const uint32_t page = lane + 32 * i;
            const int32_t token = block * kTokens + (page << p.page_shift);
            found.ids[i] = page < pages && token < sequence.length ? table[token >> p.page_shift] : -1;
        }
        return found;
    }

    // A bit for each token of the block that exists. Pages that do not are as good as unmapped, and reported.
    template <class Params>
    __device__ __forceinline__ uint32_t check(const Params& p, const Sequence& sequence, int32_t block,
                                              const BlockPages& found, uint64_t& usable) const {
        uint32_t status = 0, low = 0, high = 0;
#pragma unroll
        for (uint32_t i = 0; i < 2; ++i) {
            const uint32_t page = lane + 32 * i;
            const uint32_t token = page << p.page_shift;
            if (page >= pages || block * kTokens + static_cast<int32_t>(token) >= sequence.length) continue;
            if (static_cast<uint32_t>(found.ids[i]) >= static_cast<uint32_t>(p.cache_pages)) {
                status = NG_STATUS_BAD_PAGE;
                continue;
            }
            const uint64_t bits = p.page_shift < 6 ? ((1ull << (1u << p.page_shift)) - 1) << token : ~0ull;
            low |= static_cast<uint32_t>(bits);
            high |= static_cast<uint32_t>(bits >> 32);
        }
        usable = ptx::warp_uniform(low) | static_cast<uint64_t>(ptx::warp_uniform(high)) << 32;
        const int32_t left = sequence.length - block * kTokens;
        if (left < kTokens) usable &= (1ull << left) - 1;
        return status;
    }

    // Whether copies have the eight rows that the swizzle's pattern wants.
    __device__ __forceinline__ bool tiled() const { return piece_shift >= 3; }

    // Copies `tiles` tiles of any pages, 16 bytes after 16 bytes; they are there on return. Pages that do not exist are zeros.
    template <class Params, class TileOf>
    __device__ __forceinline__ void gather(const Params& p, const BlockPages& found, uint32_t tiles, TileOf tile_of) const {
        constexpr uint32_t kTokenBytes = 9 * 128;
        const uint32_t chunks = tiles * 8;
#pragma unroll 1
        for (uint32_t from = 0; from < kTokens * chunks; from += 32) {
            const uint32_t token = (from + lane) / chunks, chunk = (from + lane) % chunks;
            const uint32_t page = token >> p.page_shift;
            const int32_t low = ptx::shuffle_index(static_cast<uint32_t>(found.ids[0]), page % 32);
            const int32_t high = ptx::shuffle_index(static_cast<uint32_t>(found.ids[1]), page % 32);
            const int32_t id = page < 32 ? low : high;
            const bool exists = static_cast<uint32_t>(id) < static_cast<uint32_t>(p.cache_pages);
            const uint64_t row = (static_cast<uint64_t>(exists ? id : 0) << p.page_shift) + (token & ((1u << p.page_shift) - 1));
            const Tile tile = tile_of(chunk / 8);
            const uint64_t source = p.tokens_at + row * kTokenBytes + tile.index * 128 + chunk % 8 * 16;
            ptx::copy_16(tile.address + tile::swizzle_128(token * 128 + chunk % 8 * 16),
                         reinterpret_cast<const void*>(source), exists);
        }
        ptx::copy_commit_group();
        ptx::copy_wait_group<0>();
        ptx::fence_proxy_async_shared();
    }

    // Copies this block's share of `tiles` tiles. Out of range in the page dimension, a copy fills with zeros.
    template <class Params, class TileOf>
    __device__ __forceinline__ void copy(const Params& p, const BlockPages& found, int32_t block, uint32_t tiles,
                                         uint32_t barrier, TileOf tile_of) const {
        const uint32_t copies = pieces * tiles;
        for (uint32_t from = 0; from < copies; from += 32) {
            const uint32_t copy = from + lane;
            const uint32_t token = (first + copy / tiles) << piece_shift;
            const uint32_t page = (token >> p.page_shift) % 64;
            const int32_t low = ptx::shuffle_index(static_cast<uint32_t>(found.ids[0]), page % 32);
            const int32_t high = ptx::shuffle_index(static_cast<uint32_t>(found.ids[1]), page % 32);
            if (copy >= copies) continue;
            int32_t id = page < 32 ? low : high;
            if (static_cast<uint32_t>(id) >= static_cast<uint32_t>(p.cache_pages)) id = -1;
            const int32_t within = (block * kTokens + token) & ((1 << p.page_shift) - 1);
            const Tile tile = tile_of(copy % tiles);
            const uint32_t to = tile.address + token * 128;
            if constexpr (Cluster == 1) {
                ptx::tma_load_4d(to, &p.cache, barrier, 0, within, tile.index, id);
            } else {
                ptx::tma_load_4d_multicast(to, &p.cache, barrier, 0, within, tile.index, id, (1 << Cluster) - 1);
            }
        }
    }
};

}  // namespace ng::mla
