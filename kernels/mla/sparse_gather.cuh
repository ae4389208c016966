// Keys that a list names, on their way into two buffers of 64 keys each: what the producer warpgroup of the sparse
// attention does. TMA has no gather, so warps copy rows in pieces of 16 bytes to where TMA would put them, 128-byte
// swizzle included, or bring FP8 rows to bf16 on the way.
//
// In a pair of blocks, which work on the same keys, each block gathers half of every buffer and sends it to the other.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "ptx/cluster.cuh"
#include "ptx/convert.cuh"
#include "ptx/copy.cuh"
#include "ptx/fence.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/memory.cuh"
#include "ptx/tma.cuh"
#include "ptx/warp.cuh"

namespace ng::mla {

constexpr uint32_t kTileBytes = 64 * 128;  // 64 keys, 64 columns
constexpr uint32_t kBufferBytes = 9 * kTileBytes;
constexpr int kBlock = 64;

// A buffer comes and goes in two halves, as the second product reads them: its left 256 value columns and its right ones.
// The rotary tile, whose place the weights take between the products, belongs to the half whose last reader is the other
// warpgroup.
enum Half : int { kLeft0, kRight0, kLeft1, kRight1 };
__device__ __forceinline__ constexpr int buffer_of(Half half) { return half / 2; }
__device__ __forceinline__ constexpr int side_of(Half half) { return half % 2; }
__device__ __forceinline__ constexpr bool has_rotary(Half half) { return half == kRight0 || half == kLeft1; }
__device__ __forceinline__ constexpr int tiles_of(Half half) { return has_rotary(half) ? 5 : 4; }

struct Halves {
    uint32_t base;
    static constexpr uint32_t kBytes = 10 * 8;
    __device__ __forceinline__ uint32_t full(Half half) const { return base + half * 8; }
    __device__ __forceinline__ uint32_t empty(Half half) const { return base + 32 + half * 8; }
    // In a pair: the other block has what this one sent of a buffer's rotary tile, so that weights may take its place.
    __device__ __forceinline__ uint32_t sent(int buffer) const { return base + 64 + buffer * 8; }
};

// Blocks of keys of one query token that one block of threads goes through.
struct Range {
    int32_t first, end;
    int32_t keys;  // of the whole list
};

template <bool Fp8, bool Pair>
class Gather {
    static constexpr int kRows = Pair ? 8 : 16;  // of a warp, in a buffer
    static constexpr uint32_t kTokenBytes = Fp8 ? 656 : 1152;
    static constexpr uint32_t kSideBytes = Fp8 ? 256 : 512;
    static constexpr uint32_t kRotaryAt = Fp8 ? 528 : 1024;

    const uint8_t* cache;
    const int32_t* indices;
    uint32_t cache_tokens;
    Halves halves;
    uint32_t keys;  // the buffers
    uint8_t* masks;
    uint32_t warp, lane, first_row, other;
    uint32_t bad = 0;

    // The row of a buffer whose index this lane reads; in a pair also those of the other block, for the mask.
    __device__ __forceinline__ uint32_t row_of_lane() const {
        const uint32_t within = lane % kRows;
        return lane < kRows ? first_row + within : (first_row ^ (kBlock / 2)) + within;
    }

    __device__ __forceinline__ int32_t index_at(const Range& range, int32_t block) const {
        const int32_t at = block * kBlock + static_cast<int32_t>(row_of_lane());
        return lane < 16 && block < range.end && at < range.keys ? indices[at] : -1;
    }

    // Tells the readers which keys exist.
    __device__ __forceinline__ void write_mask(int buffer, int32_t index) {
        const bool exists = static_cast<uint32_t>(index) < cache_tokens;
        bad |= !exists && index != -1;
        const uint32_t bits = ptx::ballot(exists);
        if (lane != 0) return;
        uint8_t* to = masks + buffer * 8;
        to[first_row / 8] = bits & 0xFF;
        to[(Pair ? first_row ^ (kBlock / 2) : first_row + 8) / 8] = bits >> 8 & 0xFF;
    }

    __device__ __forceinline__ const uint8_t* token(uint32_t slot) const {
        return cache + static_cast<uint64_t>(slot < cache_tokens ? slot : 0) * kTokenBytes;
    }

    // 64 rotary columns of four rows an instruction.
    __device__ __forceinline__ void copy_rotary(uint32_t to, uint32_t index) const {
#pragma unroll
        for (int i = 0; i < kRows; i += 4) {
            const uint32_t slot = ptx::shuffle_index(index, i + lane / 8), row = first_row + i + lane / 8;
            ptx::copy_16(to + 8 * kTileBytes + row * 128 + ((lane ^ row) % 8) * 16,
                         token(slot) + kRotaryAt + lane % 8 * 16, slot < cache_tokens);
        }
    }

    // A row's 256 columns an instruction.
    template <Half half>
    __device__ __forceinline__ void copy(uint32_t index) const {
        const uint32_t buffer = keys + buffer_of(half) * kBufferBytes;
        const uint32_t to = buffer + (side_of(half) * 4 + lane / 8) * kTileBytes + first_row * 128 + lane % 8 * 16;
        const uint32_t from = side_of(half) * kSideBytes + lane * 16;
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
            const uint32_t slot = ptx::shuffle_index(index, i);
            ptx::copy_16((to ^ i % 8 * 16) + i * 128, token(slot) + from, slot < cache_tokens);
        }
        if constexpr (has_rotary(half)) copy_rotary(buffer, index);
    }

    // Two rows' 256 codes an instruction, of eight rows; a lane makes 16 codes two pieces of bf16.
    struct Codes {
        uint4 codes[4];
        float scales[4];
    };

    __device__ __forceinline__ void load(int side, uint32_t index, int from_row, Codes& values) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint32_t slot = ptx::shuffle_index(index, from_row + 2 * i + lane / 16);
            const uint8_t* const from = token(slot);
            const bool exists = slot < cache_tokens;
            values.codes[i] = uint4{};
            values.scales[i] = 0.0f;
            if (exists) {
                values.codes[i] = *reinterpret_cast<const uint4*>(from + side * kSideBytes + lane % 16 * 16);
                values.scales[i] = *reinterpret_cast<const float*>(from + 512 + (side * 2 + lane % 16 / 8) * 4);
            }
        }
    }

    static __device__ __forceinline__ uint4 widened(uint32_t low, uint32_t high, float scale) {
        uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint32_t halves = ptx::f16x2_from_e4m3x2(static_cast<uint16_t>((i < 2 ? low : high) >> i % 2 * 16));
            pairs[i] = ptx::bf16x2_from_f32(ptx::f32_from_f16(static_cast<uint16_t>(halves)) * scale,
                                            ptx::f32_from_f16(static_cast<uint16_t>(halves >> 16)) * scale);
        }
        return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }

    template <Half half>
    __device__ __forceinline__ void store(int from_row, const Codes& values) const {
        const uint32_t buffer = keys + buffer_of(half) * kBufferBytes;
        const uint32_t tile = side_of(half) * 4 + lane % 16 / 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint32_t row = first_row + from_row + 2 * i + lane / 16;
            const uint4& codes = values.codes[i];
            // Neighbouring tiles begin with different pieces: eight lanes write to eight places modulo 128 bytes.
            const bool odd = lane / 4 % 2;
            const uint32_t to = buffer + tile * kTileBytes + row * 128;
            const uint32_t piece = (lane % 4 * 2 + odd) ^ row % 8;
            ptx::store_16(to + piece * 16,
                          widened(odd ? codes.z : codes.x, odd ? codes.w : codes.y, values.scales[i]));
            ptx::store_16(to + (piece ^ 1) * 16,
                          widened(odd ? codes.x : codes.z, odd ? codes.y : codes.w, values.scales[i]));
        }
    }

    // What this warp wrote is there: for the readers here, and in a pair for a copy to the other block.
    template <Half half>
    __device__ __forceinline__ void announce() const {
        ptx::fence_proxy_async_shared();
        ptx::warp_barrier();
        const uint32_t full = halves.full(half);
        if constexpr (Pair) {
            constexpr uint32_t kSegment = kRows * 128;
            if (lane < tiles_of(half)) {
                const uint32_t tile = lane < 4 ? side_of(half) * 4 + lane : 8;
                const uint32_t from = keys + buffer_of(half) * kBufferBytes + tile * kTileBytes + first_row * 128;
                ptx::bulk_send(ptx::cluster_address(from, other), from, kSegment, ptx::cluster_address(full, other));
            }
            if (lane == 0) {
                if (warp == 0)
                    ptx::mbarrier_arrive_expect_tx(full, tiles_of(half) * 4 * kSegment);
                else
                    ptx::mbarrier_arrive(full);
            }
        } else {
            if (lane == 0) ptx::mbarrier_arrive(full);
        }
    }

    template <Half half>
    __device__ __forceinline__ void wait_empty(uint32_t phase) const {
        if constexpr (Pair)
            ptx::cluster_mbarrier_wait_parity(halves.empty(half), phase ^ 1);
        else
            ptx::mbarrier_wait_parity(halves.empty(half), phase ^ 1);
    }

    // Fills one half and announces the one before: its copies fly while the next are issued.
    template <Half half, Half before>
    __device__ __forceinline__ void fill(uint32_t index, uint32_t phase, bool first_of_buffer, bool& flying) {
        if (flying && ptx::any(!ptx::mbarrier_test_parity(halves.empty(half), phase ^ 1))) {
            ptx::copy_wait_group<0>();
            announce<before>();
            flying = false;
        }
        wait_empty<half>(phase);
        if (first_of_buffer) write_mask(buffer_of(half), static_cast<int32_t>(index));
        copy<half>(index);
        ptx::copy_commit_group();
        if (flying) {
            ptx::copy_wait_group<1>();
            announce<before>();
        }
        flying = true;
    }

    // Fills one half with codes that are on their way already, and sends for the first of the next: of its `next_side`. In a
    // pair a half is one batch of eight rows, and batches alternate between the sets of registers; otherwise it is two, and
    // what comes next is moved to the set in use.
    template <Half half, int next_side>
    __device__ __forceinline__ void fill_widened(uint32_t index, uint32_t next_index, uint32_t phase, bool first_of_buffer,
                                                 Codes& current, Codes& next) {
        wait_empty<half>(phase);
        if (first_of_buffer) write_mask(buffer_of(half), static_cast<int32_t>(index));
        if constexpr (has_rotary(half)) copy_rotary(keys + buffer_of(half) * kBufferBytes, index);
        ptx::copy_commit_group();
        if constexpr (Pair) {
            load(next_side, next_index, 0, next);
            store<half>(0, current);
        } else {
#pragma unroll 1
            for (int row = 0; row < kRows; row += 8) {
                const bool last = row + 8 == kRows;
                load(last ? next_side : side_of(half), last ? next_index : index, last ? 0 : row + 8, next);
                store<half>(row, current);
                current = next;
            }
        }
        ptx::copy_wait_group<0>();
        announce<half>();
    }

    // Halves in the order in which the consumers let go of them.
    __device__ __forceinline__ void run_copies(const Range& range) {
        uint32_t phase = 0;
        bool flying = false, two = false;
        int32_t next0 = index_at(range, range.first), next1 = index_at(range, range.first + 1);
#pragma unroll 1
        for (int32_t block = range.first; block < range.end; block += 2) {
            const uint32_t index0 = next0, index1 = next1;
            next0 = index_at(range, block + 2);
            next1 = index_at(range, block + 3);
            two = block + 1 < range.end;
            fill<kLeft0, kLeft1>(index0, phase, true, flying);
            if (two) {
                fill<kRight1, kLeft0>(index1, phase, true, flying);
                fill<kRight0, kRight1>(index0, phase, false, flying);
                fill<kLeft1, kRight0>(index1, phase, false, flying);
            } else {
                fill<kRight0, kLeft0>(index0, phase, false, flying);
            }
            phase ^= 1;
        }
        if (!flying) return;
        ptx::copy_wait_group<0>();
        if (two)
            announce<kLeft1>();
        else
            announce<kRight0>();
    }

    __device__ __forceinline__ void run_widened(const Range& range) {
        uint32_t phase = 0;
        int32_t next0 = index_at(range, range.first), next1 = index_at(range, range.first + 1);
        Codes a, b;
        load(0, next0, 0, a);
#pragma unroll 1
        for (int32_t block = range.first; block < range.end; block += 2) {
            const uint32_t index0 = next0, index1 = next1;
            next0 = index_at(range, block + 2);
            next1 = index_at(range, block + 3);
            const bool two = block + 1 < range.end;
            Codes& second = Pair ? b : a;
            Codes& other = Pair ? a : b;
            fill_widened<kLeft0, 1>(index0, two ? index1 : index0, phase, true, a, b);
            if (two) {
                fill_widened<kRight1, 1>(index1, index0, phase, true, second, other);
                fill_widened<kRight0, 0>(index0, index1, phase, false, a, b);
                fill_widened<kLeft1, 0>(index1, next0, phase, false, second, other);
            } else {
                fill_widened<kRight0, 0>(index0, next0, phase, false, second, other);
            }
            phase ^= 1;
        }
    }

public:
    __device__ __forceinline__ Gather(const NgMlaSparseParams& p, const int32_t* list, Halves barriers, uint32_t buffers,
                                      uint8_t* mask_words)
        : cache(reinterpret_cast<const uint8_t*>(p.cache)), indices(list), cache_tokens(p.cache_tokens), halves(barriers),
          keys(buffers), masks(mask_words), warp(threadIdx.x / 32 % 4), lane(ptx::lane_id()) {
        const uint32_t rank = Pair ? ptx::cluster_rank() : 0;
        first_row = rank * (kBlock / 2) + warp * kRows;
        other = rank ^ 1;
    }

    // Bits of the status word.
    __device__ __forceinline__ uint32_t run(const Range& range) {
        if constexpr (Fp8)
            run_widened(range);
        else
            run_copies(range);
        return ptx::any(bad != 0) ? NG_STATUS_BAD_SLOT : 0;
    }
};

}  // namespace ng::mla
