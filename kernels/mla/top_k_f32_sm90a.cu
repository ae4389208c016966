// The k largest of each row's scores, a block a row, in one pass over memory; or, where there are few rows, a
// cluster of blocks a row, each with a part of its columns. Of equal scores the lower columns are taken;
// NaN is never taken and is reported. Answers stand in the order of their columns, with -1 behind the last.
//
// A sample of the row says what a score must at least be; what is not less goes into a list of candidates in shared memory, a
// thread's few at once and in no order, so that warps go through the row without waiting for each other. A list that is full is
// cut to the k best, and what is to come must then be better than all that were cut. The sample only saves cuts: where it
// promised too much, the row is read again without it. How many steps fit into the list before threads meet is a guess too: where
// they did not, they are done again, one by one.
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
constexpr uint32_t kEach = kVectors * 4;
constexpr uint32_t kStep = THREADS * kEach;
// Steps in flight.
constexpr int32_t kAhead = 3;
constexpr uint32_t kSample = 2048;
// Rows up to this length are not sampled: few cuts can be saved.
constexpr uint32_t kSampledFrom = 16 * kSample;
// A cluster has at most four blocks.
static_assert(4 * NG_TOP_K_LARGEST <= mla::kCapacity, "the first block has room for the lists of all");
static_assert(kStep + NG_TOP_K_LARGEST <= mla::kCapacity, "a list that was cut has room for a step");
static_assert(NG_TOP_K_LARGEST <= mla::kLargest, "room for the answer");
static_assert(THREADS == mla::kThreads && SHARED == sizeof(mla::CandidateMemory), "the launch");

// The columns that are this block's.
struct Row {
    const float* scores;
    int32_t start, end;
    int32_t aligned;  // the first column of the block's where vectors are, or the end
};

__device__ __forceinline__ void report(const NgTopKParams& p, uint32_t bits) {
    ptx::report_status(tile::pointer<uint32_t>(p.status), bits);
}

__device__ __forceinline__ Row find_row(const NgTopKParams& p, mla::Candidates& list, uint32_t row_index, uint32_t rank, uint32_t ranks) {
    bool bad = false;
    int64_t start = 0, end = p.columns;
    if (p.starts != 0) start = tile::pointer<const int32_t>(p.starts)[row_index];
    if (p.ends != 0) {
        const int64_t length = tile::pointer<const int32_t>(p.ends)[row_index / p.rows_per_end];
        bad = length < 0 || length > p.columns;
        // Rows before the last may have nothing to see, and nothing is wrong with that.
        end = max(min(length, int64_t(p.columns)) - (p.rows_per_end - 1 - row_index % p.rows_per_end), int64_t(0));
    }
    bad |= start < 0 || start > p.columns;
    if (bad) report(p, NG_STATUS_BAD_LENGTH);
    start = min(max(start, int64_t(0)), int64_t(p.columns));
    const int64_t span = max(end - start, int64_t(0));
    Row row;
    row.scores = tile::pointer<const float>(p.scores) + row_index * p.scores_row_stride;
    list.begin(uint32_t(start), uint32_t(start + span));
    row.end = int32_t(start + span * (rank + 1) / ranks);
    row.start = int32_t(start + span * rank / ranks);
    const int32_t before = int32_t(reinterpret_cast<uint64_t>(row.scores + row.start) / 4 % 4);
    row.aligned = min(row.start + (4 - before) % 4, row.end);
    return row;
}

struct Floor {
    float score;
    uint32_t rate;  // of scores a step that are expected to be no less
};

// A score that about `k` and a few more of the row's exceed, if the row is like a part of it.
__device__ __forceinline__ Floor sampled_floor(mla::Candidates& list, const Row& row, uint32_t k) {
    constexpr uint32_t kLine = 8;  // vectors
    const uint32_t span = uint32_t(row.end - row.start);
    const uint32_t stride = span / 4 / (kSample / 4 / kLine);
    const auto* vectors = reinterpret_cast<const float4*>(row.scores + row.aligned);
#pragma unroll
    for (uint32_t i = 0; i < kSample / 4 / THREADS; ++i) {
        const uint32_t vector = i * THREADS + threadIdx.x;
        reinterpret_cast<float4*>(list.scores())[vector] = vectors[vector / kLine * stride + vector % kLine];
    }
    // Four deviations above the rank that is expected.
    const float expected = float(k) * (float(kSample) / float(span));
    const uint32_t rank = min(uint32_t(expected + 4.0f * sqrtf(expected)) + 8, kSample);
    return {list.floor_of(kSample, rank), kStep / kSample * rank};
}

// N columns a thread, where there are no whole vectors.
template <uint32_t N>
__device__ __forceinline__ void append_columns(mla::Candidates& list, const Row& row, float floor, int32_t start, int32_t end) {
    const auto column = [&](uint32_t i) { return start + int32_t(i * THREADS + threadIdx.x); };
    const auto valid = [&](uint32_t i) { return column(i) < end; };
    float scores[N];
#pragma unroll
    for (uint32_t i = 0; i < N; ++i) scores[i] = valid(i) ? row.scores[column(i)] : 0.0f;
    list.append(scores, floor, column, valid);
}

// Whole steps, each warp for itself. It stops where the list is full.
__device__ __forceinline__ void append_steps(mla::Candidates& list, const Row& row, float floor, int32_t step, int32_t until) {
    const uint32_t first = threadIdx.x / 32 * (kVectors * 32) + ptx::lane_id();
    const auto* from = reinterpret_cast<const float4*>(row.scores + row.aligned + step * int32_t(kStep)) + first;
    int32_t column = row.aligned + step * int32_t(kStep) + int32_t(first * 4);
    float4 ahead[kAhead][kVectors];
#pragma unroll
    for (int32_t a = 0; a < kAhead; ++a) {
#pragma unroll
        for (uint32_t v = 0; v < kVectors; ++v) ahead[a][v] = step + a < until ? from[a * (kStep / 4) + v * 32] : float4{};
    }
    // A lane leaves here alone: a way out from among the stores would keep a warp's lanes apart until the end.
    bool full = false;
    for (; step < until && !full; step += kAhead) {
#pragma unroll
        for (int32_t a = 0; a < kAhead; ++a) {
            if (step + a >= until) return;
            float scores[kEach];
#pragma unroll
            for (uint32_t v = 0; v < kVectors; ++v) {
                const float4 four = ahead[a][v];
                scores[v * 4] = four.x, scores[v * 4 + 1] = four.y, scores[v * 4 + 2] = four.z, scores[v * 4 + 3] = four.w;
            }
            const auto place = [&](uint32_t i) { return column + a * int32_t(kStep) + int32_t(i / 4 * 128 + i % 4); };
            full |= list.append(scores, floor, place, [](uint32_t) { return true; });
            if (step + a + kAhead < until) {
#pragma unroll
                for (uint32_t v = 0; v < kVectors; ++v) ahead[a][v] = from[(a + kAhead) * (kStep / 4) + v * 32];
            }
        }
        from += kAhead * (kStep / 4);
        column += kAhead * int32_t(kStep);
    }
}

// Lists what is not less than the floor.
__device__ __forceinline__ void collect(const NgTopKParams& p, mla::Candidates& list, const Row& row, Floor floor) {
    const int32_t whole = (row.end - row.aligned) / int32_t(kStep), steps = whole + 1;
    list.restart(0);
    // What a round may hold of late: rounds that overflow are halved, so that rows whose scores rise are not read over and over.
    int32_t most = steps;
#pragma unroll 1
    for (int32_t step = 0; step < steps;) {
        if (list.count + kStep > mla::kCapacity) floor.score = mla::score_of(list.cut(p.k) + 1);
        // A quarter more than were so many a step of late, and some.
        const uint32_t room = (mla::kCapacity - list.count) / (floor.rate + floor.rate / 4 + 16);
        const int32_t until = min(step + min(max(int32_t(room), 1), most), steps);
        if (step == 0) append_columns<1>(list, row, floor.score, row.start, row.aligned);
        append_steps(list, row, floor.score, step, min(until, whole));
        if (until == steps) {
#pragma unroll 1
            for (int32_t rest = row.aligned + whole * int32_t(kStep); rest < row.end; rest += kStep / 2) {
                append_columns<kEach / 2>(list, row, floor.score, rest, row.end);
            }
        }
        const uint32_t before = list.count;
        bool nan = false;
        const bool settled = list.settle(nan);
        if (nan) report(p, NG_STATUS_NAN_SCORE);
        if (settled) {
            floor.rate = (list.count - before) / uint32_t(until - step);
            step = until;
            most = min(2 * most, steps);
        } else {
            most = max((until - step) / 2, 1);
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 2) NG_ENTRY(const __grid_constant__ NgTopKParams p) {
    extern __shared__ __align__(16) uint8_t shared[];
    mla::Candidates list(reinterpret_cast<mla::CandidateMemory*>(shared));
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();
    const uint32_t rank = ptx::cluster_rank(), ranks = ptx::cluster_size();
    const uint32_t row_index = blockIdx.x / ranks;
    const Row row = find_row(p, list, row_index, rank, ranks);
    const Floor lowest{ptx::f32_from_bits(0xff800000u), kStep};
    const bool sampled = row.end - row.start >= int32_t(kSampledFrom);
    Floor floor = sampled ? sampled_floor(list, row, p.k) : lowest;
#pragma unroll 1
    for (;; floor = lowest) {
        const bool all = floor.score == lowest.score;
        collect(p, list, row, floor);
        // NaN takes places in the list, so it does not tell whether there are enough.
        if (all || (list.count >= p.k && !list.has_nan())) break;
    }

    if (ranks > 1) {
        if (list.count > p.k) list.cut(p.k);
        list.join(rank, ranks);
        if (rank != 0) return;
    }
    const uint32_t found = list.choose(p.k);

    auto* out = tile::pointer<int32_t>(p.out) + row_index * p.out_row_stride;
    const auto* table = tile::pointer<const int32_t>(p.page_table) + row_index / p.rows_per_end * p.table_stride;
    for (uint32_t i = threadIdx.x; i < p.k; i += THREADS) {
        int32_t answer = -1;
        if (i < found) {
            const uint32_t column = list.chosen()[i];
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
