// The k largest of each row's scores, a block a row, in one pass over memory; or, where there are few rows, a
// cluster of blocks a row, each with a part of its columns. Of equal scores the lower columns are taken;
// NaN is never taken and is reported. Answers stand in the order of their columns, with -1 behind the last.
//
// A sample of the row says what a score must at least be; what is as large goes into a list of candidates in shared memory,
// in the order of columns, so that no list ever needs sorting. A list that is full is cut to the k best, and what is to come
// must then be better than all that were cut. The sample only saves cuts: where it promised too much, the row is read again
// without it.
//
// Variant: THREADS and SHARED (of the launch).
#include "abi.h"
#include "mla/candidates.cuh"
#include "ptx/cluster.cuh"
#include "ptx/convert.cuh"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "ptx/warp.cuh"
#include "tile/rows.cuh"

using namespace ng;

namespace {

constexpr uint32_t kVectors = 2;  // of four scores, a thread and step
constexpr uint32_t kStep = THREADS * kVectors * 4;
constexpr uint32_t kSample = 2048;
// Rows up to this length are not sampled: few cuts can be saved.
constexpr uint32_t kSampledFrom = 16 * kSample;
// A cluster has at most four blocks.
static_assert(4 * NG_TOP_K_LARGEST <= mla::kCapacity, "the first block has room for the lists of all");
static_assert(kStep + NG_TOP_K_LARGEST <= mla::kCapacity, "a list that was cut has room for a step");
static_assert(THREADS == mla::kThreads && SHARED == sizeof(mla::CandidateMemory), "the launch");

// A row's columns that count, from a place where vectors are aligned. The host leaves room behind the last column for two steps.
struct Row {
    const float* scores;
    int32_t base;  // column of the first vector: up to three before `start`
    int32_t start, end;

    __device__ __forceinline__ bool has(int32_t column) const { return column >= start && column < end; }

    // Four scores; 0 for what is not of the row.
    __device__ __forceinline__ float4 load(int32_t column) const {
        if (column >= start && column + 4 <= end) return *reinterpret_cast<const float4*>(scores + column);
        return {has(column) ? scores[column] : 0.0f, has(column + 1) ? scores[column + 1] : 0.0f,
                has(column + 2) ? scores[column + 2] : 0.0f, has(column + 3) ? scores[column + 3] : 0.0f};
    }
};

struct Four {
    float values[4];
    __device__ __forceinline__ void operator=(float4 v) { values[0] = v.x, values[1] = v.y, values[2] = v.z, values[3] = v.w; }
};

__device__ __forceinline__ void report(const NgTopKParams& p, uint32_t bits) {
    ptx::report_status(tile::pointer<uint32_t>(p.status), bits);
}

__device__ __forceinline__ Row find_row(const NgTopKParams& p, uint32_t row, uint32_t rank, uint32_t ranks) {
    bool bad = false;
    int64_t start = 0, end = p.columns;
    if (p.starts != 0) start = tile::pointer<const int32_t>(p.starts)[row];
    if (p.ends != 0) {
        const int64_t length = tile::pointer<const int32_t>(p.ends)[row / p.rows_per_end];
        bad = length < 0 || length > p.columns;
        // Rows before the last may have nothing to see, and nothing is wrong with that.
        end = max(min(length, int64_t(p.columns)) - (p.rows_per_end - 1 - row % p.rows_per_end), int64_t(0));
    }
    bad |= start < 0 || start > p.columns;
    if (bad) report(p, NG_STATUS_BAD_LENGTH);
    start = min(max(start, int64_t(0)), int64_t(p.columns));
    const int64_t span = max(end - start, int64_t(0));
    end = start + span * (rank + 1) / ranks;
    start += span * rank / ranks;
    const float* scores = tile::pointer<const float>(p.scores) + row * p.scores_row_stride;
    const int64_t before = reinterpret_cast<uint64_t>(scores + start) / 4 % 4;
    return {scores, int32_t(start - before), int32_t(start), int32_t(end)};
}

// A score that about `k` and a few more of the row's exceed, if the row is like a part of it.
__device__ __forceinline__ float sampled_floor(mla::Candidates& list, const Row& row, uint32_t k) {
    constexpr uint32_t kLine = 8;  // vectors
    const uint32_t span = uint32_t(row.end - row.start);
    const uint32_t stride = span / 4 / (kSample / 4 / kLine);
#pragma unroll
    for (uint32_t i = 0; i < kSample / 4 / THREADS; ++i) {
        const uint32_t vector = i * THREADS + threadIdx.x;
        Four four;
        four = row.load(row.base + 4 + 4 * int32_t(vector / kLine * stride + vector % kLine));
#pragma unroll
        for (int j = 0; j < 4; ++j) list.scores()[vector * 4 + j] = four.values[j];
    }
    list.count = kSample;
    ptx::block_barrier();
    // Four deviations above the rank that is expected.
    const float expected = float(k) * (float(kSample) / float(span));
    const uint32_t rank = uint32_t(expected + 4.0f * sqrtf(expected)) + 8;
    const float floor = mla::score_of(list.find(min(rank, kSample)).key);
    list.count = 0;
    return floor;
}

// Lists what is at least `floor`. Gives back whether there was NaN.
__device__ __forceinline__ bool collect(mla::Candidates& list, const Row& row, uint32_t k, float floor) {
    const uint32_t warp = threadIdx.x / 32, lane = ptx::lane_id();
    const auto place = [&](int32_t step, uint32_t vector) {
        return row.base + step * int32_t(kStep) + int32_t(warp * (kVectors * 128) + vector * 128 + lane * 4);
    };
    const int32_t steps = (row.end - row.base + int32_t(kStep) - 1) / int32_t(kStep);
    bool nan = false;
    Four next[kVectors];
#pragma unroll
    for (uint32_t v = 0; v < kVectors; ++v) next[v] = row.load(place(0, v));
    for (int32_t step = 0; step < steps; ++step) {
        Four scores[kVectors];
#pragma unroll
        for (uint32_t v = 0; v < kVectors; ++v) {
            scores[v] = next[v];
            next[v] = row.load(place(step + 1, v));
        }
        uint32_t mask = 0;
#pragma unroll
        for (uint32_t i = 0; i < kVectors * 4; ++i) {
            const float score = scores[i / 4].values[i % 4];
            nan |= score != score;
            mask |= uint32_t(score >= floor) << i;
        }
        if (place(step, 0) < row.start || place(step, kVectors - 1) + 4 > row.end) {
#pragma unroll 1
            for (uint32_t i = 0; i < kVectors * 4; ++i) {
                if (!row.has(place(step, i / 4) + int32_t(i % 4))) mask &= ~(1u << i);
            }
        }
        // In each half, how many of a vector there are in the lanes up to this one.
        uint32_t counts = 0, warp_counts = 0;
        if (ptx::any(mask != 0)) {
            counts = mla::scan_warp(__popc(mask & 15) | __popc(mask >> 4) << 16);
            warp_counts = ptx::shuffle_index(counts, 31);
        }
        const uint32_t first_vector = warp_counts & 0xffff;
        uint32_t before;
        const uint32_t all = list.add_up(first_vector + (warp_counts >> 16), before);
        if (list.count + all > mla::kCapacity) floor = mla::score_of(list.cut(k) + 1);
        if (mask != 0) {
            uint32_t to = list.count + before + (counts & 0xffff) - __popc(mask & 15);
            const uint32_t second = list.count + before + first_vector + (counts >> 16) - __popc(mask >> 4);
#pragma unroll
            for (uint32_t i = 0; i < kVectors * 4; ++i) {
                if (i == 4) to = second;
                if (mask >> i & 1) {
                    list.scores()[to] = scores[i / 4].values[i % 4];
                    list.columns()[to] = uint32_t(place(step, i / 4) + int32_t(i % 4));
                    ++to;
                }
            }
        }
        list.count += all;
    }
    ptx::block_barrier();
    if (list.count > k) {
        list.cut(k);
        ptx::block_barrier();
    }
    return nan;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 2) NG_ENTRY(const __grid_constant__ NgTopKParams p) {
    extern __shared__ __align__(16) uint8_t shared[];
    mla::Candidates list(reinterpret_cast<mla::CandidateMemory*>(shared));
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();
    const uint32_t rank = ptx::cluster_rank(), ranks = ptx::cluster_size();
    const uint32_t row_index = blockIdx.x / ranks;
    const Row row = find_row(p, row_index, rank, ranks);
    const float lowest = ptx::f32_from_bits(0xff800000u);
    const bool sampled = row.end - row.start >= kSampledFrom;
    float floor = sampled ? sampled_floor(list, row, p.k) : lowest;
#pragma unroll 1
    for (;; floor = lowest) {
        if (collect(list, row, p.k, floor)) report(p, NG_STATUS_NAN_SCORE);
        if (floor == lowest || list.count == p.k) break;
        list.count = 0;
    }

    if (ranks > 1) {
        list.join(rank, ranks);
        if (rank != 0) return;
        if (list.count > p.k) {
            list.cut(p.k);
            ptx::block_barrier();
        }
    }

    auto* out = tile::pointer<int32_t>(p.out) + row_index * p.out_row_stride;
    const auto* table = tile::pointer<const int32_t>(p.page_table) + row_index / p.rows_per_end * p.table_stride;
    for (uint32_t i = threadIdx.x; i < p.k; i += THREADS) {
        int32_t answer = -1;
        if (i < list.count) {
            const uint32_t column = list.columns()[i];
            answer = int32_t(column);
            if (p.page_table != 0) {
                const int32_t page = table[column / p.page_tokens];
                const bool mapped = page >= 0 && uint32_t(page) < p.cache_pages;
                if (!mapped) report(p, NG_STATUS_BAD_PAGE);
                answer = mapped ? page * int32_t(p.page_tokens) + int32_t(column % p.page_tokens) : -1;
            }
        }
        out[i] = answer;
    }
}
