// A block's list of scores with their columns, in shared memory: in the order of columns, and cut to the k largest.
#pragma once
#include <stdint.h>

#include "mla/scan.cuh"
#include "ptx/cluster.cuh"
#include "ptx/convert.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/warp.cuh"

namespace ng::mla {

constexpr uint32_t kThreads = 512;
constexpr uint32_t kWarps = kThreads / 32;
constexpr uint32_t kCapacity = 8192;
// A digit of the search, of which a thread counts four.
constexpr uint32_t kBins = 2048;
static_assert(kBins == 4 * kThreads, "a thread has four bins");

struct CandidateMemory {
    float scores[kCapacity];
    uint32_t columns[kCapacity];
    uint4 histogram[kThreads];
    uint32_t totals[2][kWarps];
    uint32_t found[2];
    uint32_t reserved[6];
};

// Unsigned numbers in the order of the scores; both zeros are one. NaN is below all.
__device__ __forceinline__ uint32_t key_of(float score) {
    const uint32_t bits = ptx::f32_to_bits(__fadd_rn(score, 0.0f));
    const uint32_t key = bits ^ (uint32_t(int32_t(bits) >> 31) | 0x80000000u);
    return score == score ? key : 0;
}

// The score with this key. The one after infinity's is NaN, which nothing reaches; NaN's stands for the lowest score.
__device__ __forceinline__ float score_of(uint32_t key) {
    if (key == 0) return ptx::f32_from_bits(0xff800000u);
    return ptx::f32_from_bits(key ^ (~uint32_t(int32_t(key) >> 31) | 0x80000000u));
}

// The k-th largest key, and how many of the keys that are equal to it belong to the k.
struct Found {
    uint32_t key;
    uint32_t needed;
};

class Candidates {
    CandidateMemory* memory;
    uint32_t turn = 0;

public:
    // The same in all threads.
    uint32_t count = 0;

    __device__ __forceinline__ explicit Candidates(CandidateMemory* memory) : memory(memory) {
        memory->histogram[threadIdx.x] = uint4{};
    }

    __device__ __forceinline__ float* scores() const { return memory->scores; }
    __device__ __forceinline__ uint32_t* columns() const { return memory->columns; }

    // The sum of all warps' numbers, and of those of the warps before this one. All threads arrive. Two numbers may share
    // a word.
    __device__ __forceinline__ uint32_t add_up(uint32_t own, uint32_t& before) {
        const uint32_t warp = threadIdx.x / 32, lane = ptx::lane_id();
        uint32_t* const totals = memory->totals[turn];
        // Whoever reads the other turn's has done so when all have arrived here again.
        turn ^= 1;
        if (lane == 0) totals[warp] = own;
        ptx::block_barrier();
        const uint32_t total = lane < kWarps ? totals[lane] : 0;
        before = ptx::warp_sum(lane < warp ? total : 0);
        return ptx::warp_sum(total);
    }

    // For 1 <= k <= count, digit by digit from the top. The scores are written and the block has synchronised.
    __device__ __forceinline__ Found find(uint32_t k) {
        Found found{0, k};
#pragma unroll 1
        for (int32_t shift = 21; shift >= 0; shift = shift == 21 ? 10 : shift - 10) {
            const uint32_t digits = shift == 0 ? kBins / 2 : kBins;
            // Above this digit, what is known must agree; two shifts, since one by 32 is none.
            const uint32_t above = shift == 0 ? 10 : shift + 11;
            uint32_t* const bins = reinterpret_cast<uint32_t*>(memory->histogram);
            for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
                const uint32_t key = key_of(scores()[i]);
                if (((key ^ found.key) >> (above - 1) >> 1) == 0) atomicAdd(&bins[kBins - 1 - (key >> shift) % digits], 1u);
            }
            ptx::block_barrier();
            const uint4 four = memory->histogram[threadIdx.x];
            memory->histogram[threadIdx.x] = uint4{};
            const uint32_t own = four.x + four.y + four.z + four.w;
            const uint32_t upto = scan_warp(own);
            uint32_t before;
            add_up(ptx::shuffle_index(upto, 31), before);
            before += upto - own;
            if (before < found.needed && found.needed <= before + own) {
                const uint32_t counts[4] = {four.x, four.y, four.z, four.w};
                uint32_t bin = threadIdx.x * 4, needed = found.needed - before;
#pragma unroll
                for (int i = 0; i < 3; ++i) {
                    if (bin == threadIdx.x * 4 + i && needed > counts[i]) {
                        needed -= counts[i];
                        ++bin;
                    }
                }
                memory->found[0] = found.key | (kBins - 1 - bin) << shift;
                memory->found[1] = needed;
            }
            ptx::block_barrier();
            found = {memory->found[0], memory->found[1]};
        }
        return found;
    }

    // Keeps the k largest of more than k, of equal ones the first, in their order. Gives back the least key that stays.
    // Before others read the list the block synchronises.
    __device__ __forceinline__ uint32_t cut(uint32_t k) {
        const Found found = find(k);
        uint32_t larger = 0, equal = 0;
        for (uint32_t first = 0; first < count; first += kThreads) {
            const uint32_t at = first + threadIdx.x;
            const float score = at < count ? scores()[at] : 0.0f;
            const uint32_t key = key_of(score);
            const uint32_t column = at < count ? columns()[at] : 0;
            const bool is_larger = at < count && key > found.key, is_equal = at < count && key == found.key;
            const uint32_t warp_larger = ptx::ballot(is_larger), warp_equal = ptx::ballot(is_equal);
            uint32_t before;
            // Also: everybody has read this part, over which the kept ones of it are written.
            const uint32_t all = add_up(__popc(warp_larger) | __popc(warp_equal) << 16, before);
            const uint32_t larger_before = larger + (before & 0xffff) + __popc(warp_larger & ptx::lanes_below());
            const uint32_t equal_before = equal + (before >> 16) + __popc(warp_equal & ptx::lanes_below());
            if (is_larger || (is_equal && equal_before < found.needed)) {
                const uint32_t to = larger_before + min(equal_before, found.needed);
                scores()[to] = score;
                columns()[to] = column;
            }
            larger += all & 0xffff;
            equal += all >> 16;
        }
        count = k;
        return found.key;
    }

    // All blocks of the cluster, each with a list of later columns than the one before: the first gets all of them, and at
    // least has room for as many.
    __device__ __forceinline__ void join(uint32_t rank, uint32_t ranks) {
        if (threadIdx.x == 0) memory->found[0] = count;
        ptx::cluster_barrier();
        for (uint32_t other = 1; rank == 0 && other < ranks; ++other) {
            const auto there = [&](const void* here) { return ptx::cluster_address(ptx::shared_address(here), other); };
            const uint32_t more = ptx::cluster_load_u32(there(memory->found));
            for (uint32_t i = threadIdx.x; i < more; i += kThreads) {
                scores()[count + i] = ptx::f32_from_bits(ptx::cluster_load_u32(there(scores() + i)));
                columns()[count + i] = ptx::cluster_load_u32(there(columns() + i));
            }
            count += more;
        }
        // Nobody leaves before its list is read.
        ptx::cluster_barrier();
    }
};

}  // namespace ng::mla
