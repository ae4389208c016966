// A block's list of scores with their columns, in shared memory and in no order: what is chosen of it depends on scores and
// columns alone, so that warps may append when they like.
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
constexpr uint32_t kLargest = 2048;
// A digit of the search, of which a thread counts four.
constexpr uint32_t kBins = 2048;
static_assert(kBins == 4 * kThreads && kBins >= kLargest, "a thread has four bins; holes of a cut stand in them");
// Columns that are brought in order at a time: a bit each in the bins.
constexpr uint32_t kWindow = 32 * kBins;

struct CandidateMemory {
    float scores[kCapacity];
    uint32_t columns[kCapacity];
    uint4 histogram[kThreads];
    uint32_t chosen[kLargest];
    uint32_t totals[2][kWarps];
    uint32_t found[3];
    uint32_t listed;
    uint32_t holes, nan;
    uint32_t start, end;
};

constexpr uint32_t kKeyOfLowest = 0x007fffffu, kKeyOfHighest = 0xff800000u;

// Unsigned numbers in the order of the scores; both zeros are one. NaN is below all.
__device__ __forceinline__ uint32_t key_of(float score) {
    const uint32_t bits = ptx::f32_to_bits(__fadd_rn(score, 0.0f));
    const uint32_t key = bits ^ (uint32_t(int32_t(bits) >> 31) | 0x80000000u);
    return score == score ? key : 0;
}

// The score with this key, or the nearest infinity.
__device__ __forceinline__ float score_of(uint32_t key) {
    const uint32_t number = min(max(key, kKeyOfLowest), kKeyOfHighest);
    return ptx::f32_from_bits(number ^ (~uint32_t(int32_t(number) >> 31) | 0x80000000u));
}

// What belongs to the best: larger keys, and of those equal to `key` the columns up to `column`.
struct Bound {
    uint32_t key, column;
    __device__ __forceinline__ bool keeps(uint32_t other, uint32_t at) const {
        return other > key || (other == key && at <= column);
    }
};

class Candidates {
    CandidateMemory* memory;
    uint32_t turn = 0;

    // The k-th largest number, how many of those that are equal to it belong to the k, and how many are equal.
    struct Found {
        uint32_t number, needed, equal;
    };

    // Digit by digit from the top, of 11, 11 and 10 bits, until the one at `last`; what is below it stays 0. `number(i, value)`
    // says whether the i-th of the list takes part; at least k do, and k is not 0.
    template <typename Number>
    __device__ __forceinline__ Found select(uint32_t k, int32_t last, Number number) {
        Found found{0, k, 0};
#pragma unroll 1
        for (int32_t shift = 21; shift >= last; shift = shift == 21 ? 10 : shift - 10) {
            const uint32_t digits = shift == 0 ? kBins / 2 : kBins;
            // Above this digit, what is known must agree; two shifts, since one by 32 is none.
            const uint32_t above = shift == 0 ? 10 : shift + 11;
            uint32_t* const bins = reinterpret_cast<uint32_t*>(memory->histogram);
#pragma unroll 2
            for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
                uint32_t value;
                if (number(i, value) && ((value ^ found.number) >> (above - 1) >> 1) == 0) {
                    atomicAdd(&bins[kBins - 1 - (value >> shift) % digits], 1u);
                }
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
                uint32_t bin = threadIdx.x * 4, needed = found.needed - before, equal = four.x;
#pragma unroll
                for (int i = 0; i < 3; ++i) {
                    if (bin == threadIdx.x * 4 + i && needed > counts[i]) {
                        needed -= counts[i];
                        equal = counts[i + 1];
                        ++bin;
                    }
                }
                memory->found[0] = found.number | (kBins - 1 - bin) << shift;
                memory->found[1] = needed;
                memory->found[2] = equal;
            }
            ptx::block_barrier();
            found = {memory->found[0], memory->found[1], memory->found[2]};
        }
        return found;
    }

    // The sum of all warps' numbers, and of those of the warps before this one. All threads arrive.
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

    __device__ __forceinline__ bool keeps(const Bound& bound, uint32_t i) const {
        return bound.keeps(key_of(memory->scores[i]), memory->columns[i]);
    }

public:
    // The same in all threads; what is appended counts once it is settled.
    uint32_t count = 0;

    __device__ __forceinline__ explicit Candidates(CandidateMemory* memory) : memory(memory) {
        memory->histogram[threadIdx.x] = uint4{};
    }

    __device__ __forceinline__ float* scores() const { return memory->scores; }
    __device__ __forceinline__ uint32_t* columns() const { return memory->columns; }
    __device__ __forceinline__ const uint32_t* chosen() const { return memory->chosen; }

    // All columns are of [start, end).
    __device__ __forceinline__ void begin(uint32_t start, uint32_t end) {
        if (threadIdx.x != 0) return;
        memory->start = start;
        memory->end = end;
        memory->nan = 0;
    }

    __device__ __forceinline__ bool has_nan() const {
        ptx::block_barrier();
        return memory->nan != 0;
    }

    // A floor that about `rank` of the first `sample` scores reach, or a few more of nearly its size.
    __device__ __forceinline__ float floor_of(uint32_t sample, uint32_t rank) {
        count = sample;
        ptx::block_barrier();
        const auto number = [&](uint32_t i, uint32_t& value) {
            value = key_of(memory->scores[i]);
            return true;
        };
        return score_of(select(rank, 10, number).number);
    }

    // From here on the first `kept` are the list.
    __device__ __forceinline__ void restart(uint32_t kept) {
        count = kept;
        if (threadIdx.x == 0) memory->listed = kept;
        ptx::block_barrier();
    }

    // Appends those of a thread's N scores that are not less than the floor, NaN among them. Gives back whether there was no room.
    template <uint32_t N, typename Column, typename Valid>
    __device__ __forceinline__ bool append(const float (&scores)[N], float floor, Column column, Valid valid) {
        uint32_t more = 0;
#pragma unroll
        for (uint32_t i = 0; i < N; ++i) more += valid(i) && !(scores[i] < floor);
        if (more == 0) return false;
        uint32_t to = atomicAdd(&memory->listed, more);
        if (to + more > kCapacity) return true;
#pragma unroll
        for (uint32_t i = 0; i < N; ++i) {
            if (valid(i) && !(scores[i] < floor)) {
                memory->scores[to] = scores[i];
                memory->columns[to] = uint32_t(column(i));
                ++to;
            }
        }
        return false;
    }

    // Takes what was appended since, all of it or, where there was no room for all, nothing; says which.
    __device__ __forceinline__ bool settle(bool& nan) {
        ptx::block_barrier();
        const uint32_t listed = memory->listed;
        ptx::block_barrier();
        if (listed > kCapacity) {
            restart(count);
            return false;
        }
#pragma unroll 2
        for (uint32_t i = count + threadIdx.x; i < listed; i += kThreads) nan |= memory->scores[i] != memory->scores[i];
        if (nan) atomicOr(&memory->nan, 1u);
        count = listed;
        return true;
    }

    // What the k best of at least k, and k not 0, have in common.
    __device__ __forceinline__ Bound bound(uint32_t k) {
        Bound best{0, 0xffffffffu};
        // By scores, and of those equal to the k-th, where not all belong to the k, by columns.
#pragma unroll 1
        for (bool by_column = false;; by_column = true) {
            const auto number = [&](uint32_t i, uint32_t& value) {
                value = key_of(memory->scores[i]);
                const bool takes_part = !by_column || value == best.key;
                if (by_column) value = ~memory->columns[i];
                return takes_part;
            };
            const Found found = select(k, 0, number);
            if (by_column) {
                best.column = ~found.number;
            } else {
                best.key = found.number;
                k = found.needed;
            }
            if (by_column || found.equal == found.needed) return best;
        }
    }

    // Keeps the k best of at least k. Gives back the least key that stays.
    __device__ __forceinline__ uint32_t cut(uint32_t k) {
        const Bound bound = this->bound(k);
        uint32_t* const holes = reinterpret_cast<uint32_t*>(memory->histogram);
        if (threadIdx.x == 0) memory->holes = 0;
        ptx::block_barrier();
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < k; i += kThreads) {
            if (!keeps(bound, i)) holes[atomicAdd(&memory->holes, 1u)] = i;
        }
        ptx::block_barrier();
#pragma unroll 1
        for (uint32_t i = k + threadIdx.x; i < count; i += kThreads) {
            if (keeps(bound, i)) {
                const uint32_t to = holes[atomicSub(&memory->holes, 1u) - 1];
                memory->scores[to] = memory->scores[i];
                memory->columns[to] = memory->columns[i];
            }
        }
        ptx::block_barrier();
        memory->histogram[threadIdx.x] = uint4{};
        restart(k);
        return bound.key;
    }

    // The columns of the k best, or of all where there are not as many, NaN left out; ascending. Gives back how many
    // there are.
    __device__ __forceinline__ uint32_t choose(uint32_t k) {
        const Bound best = count > k ? bound(k) : Bound{0, 0};
        uint32_t* const bits = reinterpret_cast<uint32_t*>(memory->histogram);
        const uint32_t end = memory->end;
        uint32_t all = 0;
#pragma unroll 1
        for (uint32_t first = memory->start; first < end; first += kWindow) {
            for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
                const uint32_t key = key_of(memory->scores[i]), column = memory->columns[i];
                const uint32_t bit = column - first;
                if (bit < kWindow && key != 0 && best.keeps(key, column)) atomicOr(&bits[bit / 32], 1u << bit % 32);
            }
            ptx::block_barrier();
            const uint4 four = memory->histogram[threadIdx.x];
            memory->histogram[threadIdx.x] = uint4{};
            const uint32_t own = __popc(four.x) + __popc(four.y) + __popc(four.z) + __popc(four.w);
            const uint32_t upto = scan_warp(own);
            uint32_t before;
            const uint32_t more = add_up(ptx::shuffle_index(upto, 31), before);
            uint32_t to = all + before + upto - own;
            const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (uint32_t word = 0; word < 4; ++word) {
#pragma unroll 1
                for (uint32_t rest = words[word]; rest != 0; rest &= rest - 1) {
                    memory->chosen[to++] = first + threadIdx.x * 128 + word * 32 + __ffs(rest) - 1;
                }
            }
            all += more;
        }
        ptx::block_barrier();
        return all;
    }

    // All blocks of the cluster, each with a list of other columns: the first gets all of them, and at least has room for as many.
    __device__ __forceinline__ void join(uint32_t rank, uint32_t ranks) {
        if (threadIdx.x == 0) memory->found[0] = count;
        ptx::cluster_barrier();
        for (uint32_t other = 1; rank == 0 && other < ranks; ++other) {
            const auto there = [&](const void* here) { return ptx::cluster_address(ptx::shared_address(here), other); };
            const uint32_t more = ptx::cluster_load_u32(there(memory->found));
#pragma unroll 1
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
