// FP8 tokens of a paged cache to 16-bit tiles in shared memory: what the warps beside the consumers of a decode do.
//
// Each of four warps has 16 tokens of a block, the same rows of every tile, and waits for nobody but the consumers. It
// copies their codes into the very rows that they will fill: those of four tiles of 64 columns into the last two of them,
// the third having the codes of the first two, the fourth its own and those of the third. When they are there, it widens
// them tile after tile; the last it takes into registers before it puts it there. Rotary columns of e4m3 are widened in
// their tile likewise. Tokens that the cache does not have are zeros.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "mla/cache.cuh"
#include "mla/decode.cuh"
#include "mla/pages.cuh"
#include "ptx/copy.cuh"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/memory.cuh"
#include "ptx/shared.cuh"
#include "ptx/warp.cuh"
#include "tile/swizzle.cuh"

namespace ng::mla {

constexpr uint32_t kWideners = 4;  // warps
constexpr uint32_t kTileOf64 = 64 * 128;
constexpr uint32_t kRotaryTile = 8;

// In a tile, four lanes have the 64 codes of a row, two rows one after the other.
template <bool F16, class Shared>
struct Widener {
    const NgMlaAttentionParams& p;
    const Shared at;
    const uint32_t warp, lane;
    const bool scaled;  // the layout has scales

    __device__ __forceinline__ Widener(const NgMlaAttentionParams& p, Shared at)
        : p(p), at(at), warp(threadIdx.x / 32 % 4), lane(threadIdx.x % 32), scaled(p.cache_layout == NG_CACHE_FP8_BLOCKS) {}

    __device__ __forceinline__ bool is_free(int half, uint32_t phase) const {
        return ptx::any(ptx::mbarrier_test_parity(at.empty(half, 0), phase ^ 1) &&
                        ptx::mbarrier_test_parity(at.empty(half, 1), phase ^ 1));
    }

    // Starts the copies of a block as soon as its half is free.
    __device__ __forceinline__ void start(const Sequence& sequence, int32_t block, int half, uint32_t phase) const {
        const PagedBlocks<1> pages(p, 0, lane);
        const BlockPages ids = pages.find(p, sequence, block);
        ptx::mbarrier_wait_parity(at.empty(half, 0), phase ^ 1);
        ptx::mbarrier_wait_parity(at.empty(half, 1), phase ^ 1);
        if (warp == 0) {
            uint64_t usable;
            const uint32_t status = pages.check(p, sequence, block, ids, usable);
            if (lane == 0) *at.usable(half) = usable;
            if (status != 0) ptx::report_status(reinterpret_cast<uint32_t*>(p.status), status);
        }
        const uint32_t piece = lane % 8;
#pragma unroll 1
        for (uint32_t token = warp * 16 + lane / 8; token < warp * 16 + 16; token += 4) {
            const uint32_t page = (token >> p.page_shift) % 64;
            const uint32_t low = ptx::shuffle_index(static_cast<uint32_t>(ids.ids[0]), page % 32);
            const uint32_t high = ptx::shuffle_index(static_cast<uint32_t>(ids.ids[1]), page % 32);
            const uint32_t id = page < 32 ? low : high;
            const int32_t place = block * kTokens + token;
            const bool exists = id < static_cast<uint32_t>(p.cache_pages) && place < sequence.length;
            const uint64_t slot = (static_cast<uint64_t>(exists ? id : 0) << p.page_shift) + (place & ((1 << p.page_shift) - 1));
            const uint64_t from = p.tokens_at + slot * token_bytes(p.cache_layout) + piece * 16;
            const uint32_t row = tile::swizzle_128(token * 128 + piece * 16);
#pragma unroll 1
            for (int column = 0; column < 4; ++column)
                copy(at.tile(half, column / 2 * 4 + 2 + column % 2) + row, from + column * 128, exists);
            if (scaled || piece < 4) copy(at.tile(half, kRotaryTile) + row, from + (scaled ? kRopeAt : kLatent), exists);
            if (scaled && piece == 0) copy(at.scales(half) + token * 16, from + kScalesAt, exists);
        }
        ptx::copy_commit_group();
    }

    // Widens a block that start() began, and hands it to the consumers. `ahead` says that the next one has begun too.
    __device__ __forceinline__ void finish(int half, bool ahead) const {
        if (ahead) {
            ptx::copy_wait_group<1>();
        } else {
            ptx::copy_wait_group<0>();
        }
        ptx::warp_barrier();
#pragma unroll 1
        for (int part = 0; part < 2; ++part) {
            const int column = 2 * (half ^ part);
            const uint32_t tiles = at.tile(half, 2 * column);
            give(tiles, take(tiles + 2 * kTileOf64, 0), half, column);
            give(tiles + kTileOf64, take(tiles + 2 * kTileOf64, 4), half, column);
            ptx::warp_barrier();
            give(tiles + 2 * kTileOf64, take(tiles + 3 * kTileOf64, 0), half, column + 1);
            const Codes last = take(tiles + 3 * kTileOf64, 4);
            ptx::warp_barrier();
            give(tiles + 3 * kTileOf64, last, half, column + 1);
            if (part == 1) finish_rotary(half);
            ptx::fence_proxy_async_shared();
            ptx::warp_barrier();
            if (lane == 0) ptx::mbarrier_arrive(at.full(half, part));
        }
    }

private:
    struct Codes {
        uint4 row[2];
    };

    __device__ __forceinline__ static void copy(uint32_t to, uint64_t from, bool exists) {
        ptx::copy_16(to, reinterpret_cast<const void*>(from), exists);
    }

    // Tokens of neighbouring lanes are four apart: their swizzled rows then lie in different banks.
    __device__ __forceinline__ uint32_t token(int i) const { return warp * 16 + 8 * i + lane / 8 + lane / 4 % 2 * 4; }

    // This lane's codes in the 64 bytes from the `first`-th 16 of swizzled rows.
    __device__ __forceinline__ Codes take(uint32_t rows, uint32_t first) const {
        Codes codes;
#pragma unroll
        for (int i = 0; i < 2; ++i)
            codes.row[i] = ptx::load_shared_16(rows + tile::swizzle_128(token(i) * 128 + (first + lane % 4) * 16));
        return codes;
    }

    // To a tile of the `column`-th 128 columns.
    __device__ __forceinline__ void give(uint32_t tile, const Codes& codes, int half, int column) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float scale = scaled ? ptx::load_shared_f32(at.scales(half) + token(i) * 16 + column * 4) : 1.0f;
            put(tile, token(i), codes.row[i], scale);
        }
    }

    // Sixteen codes to two adjacent pieces of a swizzled row; every other four lanes begin with the second, so that they are
    // at other banks.
    __device__ __forceinline__ void put(uint32_t tile, uint32_t token, const uint4& codes, float scale) const {
        const bool swapped = lane & 4;
        const uint32_t to = (tile + tile::swizzle_128(token * 128 + lane % 4 * 32)) ^ (swapped ? 16 : 0);
        ptx::store_shared_16(to, widened(swapped ? codes.z : codes.x, swapped ? codes.w : codes.y, scale));
        ptx::store_shared_16(to ^ 16, widened(swapped ? codes.x : codes.z, swapped ? codes.y : codes.w, scale));
    }

    __device__ __forceinline__ static uint4 widened(uint32_t first, uint32_t second, float scale) {
        float low[4], high[4], all[8];
        decode_quad(first, low);
        decode_quad(second, high);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            all[i] = low[i] * scale;
            all[4 + i] = high[i] * scale;
        }
        return half_octet(all, F16);
    }

    __device__ __forceinline__ void finish_rotary(int half) const {
        const uint32_t tile = at.tile(half, kRotaryTile);
        if (scaled) {
            if constexpr (F16) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const uint32_t piece = tile + (warp * 16 + lane / 8 + 4 * i) * 128 + lane % 8 * 16;
                    float values[8];
                    widen(ptx::load_shared_16(piece), false, values);
                    ptx::store_shared_16(piece, half_octet(values, true));
                }
            }
            return;
        }
        const Codes codes = take(tile, 0);
        ptx::warp_barrier();
#pragma unroll
        for (int i = 0; i < 2; ++i) put(tile, token(i), codes.row[i], 1.0f);
    }
};

// The blocks of a worker, one after the other: the copies of the next begin as soon as its half is free.
template <bool F16, class Shared, class Queries>
__device__ __forceinline__ void widen_all(const NgMlaAttentionParams& p, Shared at, int32_t worker, Queries load_queries) {
    const Widener<F16, Shared> widener(p, at);
    uint32_t phases = 0;  // a bit for each half, and one for the queries
    Pieces pieces(p, worker);
    int32_t block = 0, end = 0;
    int current = -1;  // the half whose copies run
    for (;;) {
        while (block == end && pieces.next(p)) {
            const Group group(p, pieces.group);
            if (widener.warp == 0 && group.sequence.status != 0)
                ptx::report_status(reinterpret_cast<uint32_t*>(p.status), group.sequence.status);
            if (!pieces.takes(p, group)) continue;
            block = pieces.begin;
            end = pieces.end;
        }
        const bool more = block < end;
        if (!ptx::any(more || current >= 0)) break;
        const int half = (block - pieces.begin) & 1;
        const uint32_t phase = phases >> half & 1;
        // A half that is in use is waited for when there is nothing else to do: its consumers may wait for this one.
        const bool ahead = current < 0 || (ptx::any(more && half != current) && widener.is_free(half, phase));
        if (ahead) widener.start(Sequence(p, pieces.group / p.groups), block, half, phase);
        if (current >= 0) widener.finish(current, ahead);
        current = -1;
        if (!ahead) continue;
        if (block == pieces.begin) {
            load_queries(Group(p, pieces.group), phases >> 2);
            phases ^= 4;
        }
        phases ^= 1u << half;
        current = half;
        ++block;
    }
}

}  // namespace ng::mla
