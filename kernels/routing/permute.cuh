// The stable permutation of routed entries by expert, in pieces that the small and the large variant share.
// Entries are cut into chunks of one block, a chunk into equal runs of its warps: ranks inside an expert follow from
// prefix sums over (chunk, warp, round, lane), so that no order depends on timing.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/memory.cuh"
#include "ptx/warp.cuh"
#include "tile/rows.cuh"

namespace ng::routing {

constexpr uint32_t kMaxExperts = 512;
constexpr uint32_t kThreads = 512;
constexpr uint32_t kWarps = kThreads / 32;
constexpr uint32_t kRounds = 4;
constexpr uint32_t kChunk = kThreads * kRounds;

using Histogram = int32_t[kWarps][kMaxExperts];

// This thread's entries; an entry without an expert has the key `experts`.
struct Keys {
    uint32_t key[kRounds];
};

__device__ __forceinline__ uint64_t entry_of(uint32_t chunk, uint32_t round) {
    return uint64_t(chunk) * kChunk + threadIdx.x / 32 * (32 * kRounds) + round * 32 + threadIdx.x % 32;
}

__device__ __forceinline__ Keys load_keys(const NgPermuteParams& p, uint32_t chunk, bool report) {
    Keys keys;
    bool bad = false;
#pragma unroll
    for (uint32_t round = 0; round < kRounds; ++round) {
        const uint64_t entry = entry_of(chunk, round);
        const int32_t id = entry < p.entries ? tile::pointer<const int32_t>(p.ids)[entry] : -1;
        const bool valid = uint32_t(id) < p.experts;
        bad |= !valid && id != -1;
        keys.key[round] = valid ? uint32_t(id) : p.experts;
    }
    if (report && bad) ptx::report_status(tile::pointer<uint32_t>(p.status), NG_STATUS_BAD_EXPERT);
    return keys;
}

// Lanes of this warp with the same key.
__device__ __forceinline__ uint32_t same_key(uint32_t key, uint32_t experts) {
    uint32_t peers = ptx::kFullWarp;
    for (uint32_t bit = 1; bit <= experts; bit *= 2) {
        const uint32_t with = ptx::ballot(key & bit);
        peers &= key & bit ? with : ~with;
    }
    return peers;
}

// Each warp counts its run; ends with a barrier.
__device__ __forceinline__ void count(const Keys& keys, uint32_t experts, Histogram& histogram) {
    int32_t* mine = histogram[threadIdx.x / 32];
    for (uint32_t expert = threadIdx.x % 32; expert < experts; expert += 32) mine[expert] = 0;
    ptx::warp_barrier();
#pragma unroll
    for (const uint32_t key : keys.key) {
        const uint32_t peers = same_key(key, experts);
        if (key < experts && (peers & ptx::lanes_below()) == 0) mine[key] += __popc(peers);
        ptx::warp_barrier();
    }
    ptx::block_barrier();
}

// Entries of expert threadIdx.x in this chunk.
__device__ __forceinline__ int32_t chunk_total(uint32_t experts, const Histogram& histogram) {
    int32_t total = 0;
    if (threadIdx.x < experts) {
        for (uint32_t warp = 0; warp < kWarps; ++warp) total += histogram[warp][threadIdx.x];
    }
    return total;
}

// Exclusive prefix sum over the block's threads of `value`; `total` is the sum of all.
__device__ __forceinline__ int32_t block_prefix(int32_t value, int32_t (&partial)[kWarps], int32_t& total) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int32_t inclusive = value;
#pragma unroll
    for (uint32_t delta = 1; delta < 32; delta *= 2) {
        const int32_t other = int32_t(ptx::shuffle_up(uint32_t(inclusive), delta));
        if (lane >= delta) inclusive += other;
    }
    if (lane == 31) partial[warp] = inclusive;
    ptx::block_barrier();
    int32_t before = 0;
    total = 0;
    for (uint32_t other = 0; other < kWarps; ++other) {
        before += other < warp ? partial[other] : 0;
        total += partial[other];
    }
    return before + inclusive - value;
}

// Writes counts and offsets of expert threadIdx.x; returns its offset.
__device__ __forceinline__ int32_t write_offsets(const NgPermuteParams& p, int32_t count, int32_t (&partial)[kWarps],
                                                 int32_t& total) {
    const int32_t offset = block_prefix(count, partial, total);
    if (threadIdx.x < p.experts) {
        tile::pointer<int32_t>(p.counts)[threadIdx.x] = count;
        tile::pointer<int32_t>(p.offsets)[threadIdx.x] = offset;
    }
    if (threadIdx.x + 1 == p.experts) tile::pointer<int32_t>(p.offsets)[p.experts] = offset + count;
    return offset;
}

// Turns the warps' counts of expert threadIdx.x into rows, from that of the chunk's first entry on.
__device__ __forceinline__ void count_to_rows(int32_t row, Histogram& histogram) {
    for (uint32_t warp = 0; warp < kWarps; ++warp) {
        const int32_t here = histogram[warp][threadIdx.x];
        histogram[warp][threadIdx.x] = row;
        row += here;
    }
}

// Places the entries in the rows that the histogram has; begins with a barrier. `total` is the number of routed entries.
__device__ __forceinline__ void scatter(const NgPermuteParams& p, uint32_t chunk, const Keys& keys, int32_t total,
                                        Histogram& histogram) {
    ptx::block_barrier();
    int32_t* mine = histogram[threadIdx.x / 32];
    auto* source = tile::pointer<int32_t>(p.source);
    auto* position = tile::pointer<int32_t>(p.position);
#pragma unroll
    for (uint32_t round = 0; round < kRounds; ++round) {
        const uint64_t entry = entry_of(chunk, round);
        const uint32_t key = keys.key[round];
        const uint32_t peers = same_key(key, p.experts);
        const uint32_t below = peers & ptx::lanes_below();
        const bool routed = key < p.experts;
        const int32_t row = routed ? mine[key] + __popc(below) : -1;
        ptx::warp_barrier();
        if (routed && below == 0) mine[key] = row + __popc(peers);
        ptx::warp_barrier();
        if (entry < p.entries) {
            position[entry] = row;
            if (routed) source[row] = int32_t(entry);
            // Rows past the routed ones have no source.
            if (entry >= uint64_t(total)) source[entry] = -1;
        }
    }
}

}  // namespace ng::routing
