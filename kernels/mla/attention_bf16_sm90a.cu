// Multi-head latent attention in absorbed form over a paged latent cache, of 16 bits as QUERY_F16 says, or FP8; 64 rows a
// block of threads.
//
// Two consumer warpgroups and a producer. Blocks of 64 tokens go to the two halves of shared memory in turn. The first
// warpgroup makes the scores and weights of the even blocks, the second those of the odd ones, half a step later, so that
// one's exponentials hide behind the other's products. Each accumulates 256 of the 512 output columns over all blocks: its
// own weights come from registers, the other's from shared memory, where they take the place of the rotary columns that
// the scores are done with. The values are the first 512 columns of the tokens, read as an MN-major operand.
//
// FP8 tokens are widened to the queries' type by the four warps of the producer, dequantise.cuh.
//
// In a cluster of two, each block of threads has 64 rows of its own and copies half of every block of tokens to both. Pages
// of fewer than 8 tokens, which no tile of a copy fits, are gathered by each block for itself.
#include "abi.h"
#include "mla/answer.cuh"
#include "mla/decode.cuh"
#include "mla/dequantise.cuh"
#include "mla/pages.cuh"
#include "mla/scores.cuh"
#include "ptx/cluster.cuh"
#include "ptx/fence.cuh"
#include "ptx/grid.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/memory.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "ptx/warp.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"

namespace {

using namespace ng;

constexpr int kTiles = 9;       // of 64 columns: 8 latent, 1 rotary
constexpr int kRotary = 8;
constexpr uint32_t kTileBytes = 64 * 128;
constexpr uint32_t kBlockBytes = kTiles * kTileBytes;
constexpr uint32_t kConsumers = 256;
constexpr uint32_t kThreads = kConsumers + 128;
static_assert(kThreads == THREADS, "the launch has other threads");

constexpr uint32_t kQueryAt = 0;
constexpr uint32_t kTokensAt = kQueryAt + kBlockBytes;
constexpr uint32_t kReferencesAt = kTokensAt + 2 * kBlockBytes;  // of each warpgroup
constexpr uint32_t kSumsAt = kReferencesAt + 2 * mla::kRows * 4;  // of each warpgroup, for this piece and the one before
constexpr uint32_t kUsableAt = kSumsAt + 4 * mla::kRows * 4;     // a bit for each token of each half
constexpr uint32_t kBarriersAt = kUsableAt + 16;
constexpr uint32_t kScalesAt = kBarriersAt + 10 * 8;  // of each half's tokens, FP8 only
constexpr uint32_t kSharedBytes = FP8 ? kScalesAt + 2 * mla::kTokens * 16 : kScalesAt;
static_assert(kSharedBytes == SHARED, "the launch gives other shared memory");

// A half holds its tiles in two parts, which are freed at different times: the four value tiles that its own warpgroup
// multiplies first, and the other four with the rotary tile, later the weights.
__host__ __device__ constexpr int tile_of(int half, int part, int i) {
    return part == 1 && i == 4 ? kRotary : (half ^ part) * 4 + i;
}

extern __shared__ __align__(1024) uint8_t shared[];

struct Shared {
    uint32_t base;

    __device__ __forceinline__ uint32_t tile(int half, int i) const {
        return base + kTokensAt + half * kBlockBytes + i * kTileBytes;
    }
    __device__ __forceinline__ uint32_t weights(int half) const { return tile(half, kRotary); }
    __device__ __forceinline__ uint32_t full(int half, int part) const { return base + kBarriersAt + (half * 2 + part) * 8; }
    __device__ __forceinline__ uint32_t empty(int half, int part) const { return full(half, part) + 4 * 8; }
    [[maybe_unused]] __device__ __forceinline__ uint32_t scales(int half) const { return base + kScalesAt + half * mla::kTokens * 16; }
    __device__ __forceinline__ uint64_t* usable(int half) const {
        return reinterpret_cast<uint64_t*>(shared + kUsableAt + half * 8);
    }
    __device__ __forceinline__ uint32_t query_full() const { return base + kBarriersAt + 8 * 8; }
    __device__ __forceinline__ uint32_t query_empty() const { return base + kBarriersAt + 9 * 8; }
};

enum NamedBarrier : uint32_t { kWeightsReady = 1, kGroupReady = 3, kSumsReady = 5 };

// Blocks that share a group of rows, but not its FP8 tokens, are no cluster.
__device__ __forceinline__ int32_t worker_of(const NgMlaAttentionParams& p) {
    return FP8 ? blockIdx.x >> (p.cluster - 1) : blockIdx.x / CLUSTER;
}

__device__ __forceinline__ uint32_t rank_of(const NgMlaAttentionParams& p) {
    return FP8 ? blockIdx.x & (p.cluster - 1) : blockIdx.x % CLUSTER;
}

__device__ __forceinline__ void load_queries(const NgMlaAttentionParams& p, Shared at, const mla::Group& group, uint32_t rank,
                                             uint32_t lane, uint32_t& phase) {
    ptx::mbarrier_wait_parity(at.query_empty(), phase ^ 1);
    phase ^= 1;
    if (lane == 0) ptx::mbarrier_arrive_expect_tx(at.query_full(), kBlockBytes);
    ptx::warp_barrier();
    const bool packed = p.query_offsets != 0;
    const int32_t row = (packed ? group.sequence.first * p.heads : 0) + group.row + rank * mla::kRows;
    if (lane < kTiles)
        ptx::tma_load_3d(at.base + kQueryAt + lane * kTileBytes, &p.query, at.query_full(), lane * 64, row,
                         packed ? 0 : group.sequence.batch);
}

// One warp for each half; the first also copies the queries.
__device__ __forceinline__ void produce(const NgMlaAttentionParams& p, Shared at) {
    const uint32_t rank = rank_of(p);
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t half = threadIdx.x / 32 % 2;
    const mla::PagedBlocks<CLUSTER> pages(p, rank, lane);
    uint32_t phase = 0, query_phase = 0, status = 0;
    mla::Pieces pieces(p, worker_of(p));
    while (pieces.next(p)) {
        const mla::Group group(p, pieces.group);
        status |= group.sequence.status;
        if (!pieces.takes(p, group) || pieces.begin == pieces.end) continue;
        if (half == 0) load_queries(p, at, group, rank, lane, query_phase);
        for (int32_t block = pieces.begin + half; block < pieces.end; block += 2) {
            const mla::BlockPages ids = pages.find(p, group.sequence, block);
#pragma unroll
            for (int part = 0; part < 2; ++part) {
                const uint32_t full = at.full(half, part);
                if constexpr (CLUSTER == 1) {
                    ptx::mbarrier_wait_parity(at.empty(half, part), phase ^ 1);
                } else {
                    ptx::cluster_mbarrier_wait_parity(at.empty(half, part), phase ^ 1);
                }
                if (part == 0) {
                    uint64_t usable;
                    status |= pages.check(p, group.sequence, block, ids, usable);
                    if (lane == 0) *at.usable(half) = usable;
                }
                const int tiles = 4 + part;
                const auto tile = [&](int i) {
                    const int index = part == 1 && i == 4 ? kRotary : static_cast<int>(half ^ part) * 4 + i;
                    return mla::Tile{at.tile(half, index), index};
                };
                if (pages.tiled()) {
                    if (lane == 0) ptx::mbarrier_arrive_expect_tx(full, tiles * kTileBytes);
                    ptx::warp_barrier();
                    pages.copy(p, ids, block, tiles, full, tile);
                } else {
                    pages.gather(p, ids, tiles, tile);
                    ptx::warp_barrier();
                    if (lane == 0) ptx::mbarrier_arrive(full);
                }
            }
            phase ^= 1;
        }
    }
    if (status != 0) ptx::report_status(reinterpret_cast<uint32_t*>(p.status), status);
}

// Frees a part of a half in every block of the cluster, whose copies it is part of.
__device__ __forceinline__ void release(Shared at, int half, int part, uint32_t lane) {
    ptx::warp_barrier();
    if constexpr (CLUSTER == 1) {
        if (lane == 0) ptx::mbarrier_arrive(at.empty(half, part));
    } else {
        if (lane < CLUSTER) ptx::cluster_mbarrier_release(ptx::cluster_address(at.empty(half, part), lane));
    }
}

// The lower word of a descriptor, found anew wherever it is used: kept for every product, they would fill the register file.
__device__ __forceinline__ uint32_t lower_word(uint32_t address, uint32_t leading) {
    return ptx::warp_uniform((address & 0x3FFFF) >> 4 | (leading >> 4) << 16);
}

// Starts the scores of the tokens in a half, as they arrive.
template <int Half>
__device__ __forceinline__ void start_scores(Shared at, float (&scores)[32], uint32_t phase) {
    const uint32_t query = lower_word(at.base + kQueryAt, 16);
    const uint32_t tokens = query + (kTokensAt + Half * kBlockBytes - kQueryAt) / 16;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
        // Of a uniform loop the assembler knows that accumulators may be in flight around it.
        while (!ptx::any(ptx::mbarrier_try_wait_parity(at.full(Half, part), phase))) {
        }
        if (part == 0) ptx::pin_registers(scores);
        ptx::wgmma_fence();
#pragma unroll
        for (int i = 0; i < 4 + part; ++i) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const uint32_t offset = tile_of(Half, part, i) * kTileBytes + k * 32;
                ptx::wgmma_half<64, QUERY_F16, 0, 0>(scores, tile::descriptor_of(query + offset / 16),
                                                     tile::descriptor_of(tokens + offset / 16), part + i + k != 0);
            }
        }
    }
    ptx::wgmma_commit_group();
}

// The values of a half that a warpgroup accumulates columns of, 16 tokens after 16: MN-major, blocks of 64 columns a tile apart.
constexpr uint32_t kValueStep = 16 * 128;

template <int Warpgroup>
struct Consumer {
    const NgMlaAttentionParams& p;
    const Shared at;
    const uint32_t warp, lane;
    float* const references;

    float scores[32];
    float output[128];
    mla::RowPair rows;
    int32_t visible[2];
    int32_t all_visible;  // tokens that every row sees

    __device__ __forceinline__ Consumer(const NgMlaAttentionParams& p, Shared at)
        : p(p), at(at), warp(threadIdx.x / 32 % 4), lane(threadIdx.x % 32),
          references(reinterpret_cast<float*>(shared + kReferencesAt) + 16 * warp + lane / 4) {}

    // Accumulators are changed only while none are in flight, which is seldom enough.
    __device__ __forceinline__ void follow(const float (&reference)[2]) {
        if (!rows.differs(reference)) return;
        float rescale[2];
        rows.follow(reference, p.scale_log2, rescale);
        mla::rescale_rows(output, rescale);
    }

    // The other warpgroup's reference.
    __device__ __forceinline__ void follow_other() {
        const float* other = references + (1 - Warpgroup) * mla::kRows;
        const float reference[2] = {other[0], other[8]};
        follow(reference);
    }

    // Scores of a block, which are there, to weights: in registers, and for the other warpgroup in shared memory. What was
    // accumulated is still relative to the references before.
    __device__ __forceinline__ void weigh(int32_t block, float (&reference)[2], uint32_t (&weights)[4][4]) {
        const uint64_t usable = *reinterpret_cast<const uint64_t*>(shared + kUsableAt + Warpgroup * 8);
        const int32_t before = block * mla::kTokens;
        const bool hidden = ptx::any(usable != ~0ull || all_visible < before + mla::kTokens);
        if (hidden) {
            clear_unused(usable);
            const int32_t ends[2] = {visible[0] - before, visible[1] - before};
            mla::hide(scores, usable, ends, lane);
        }
        float addend[2];
        mla::raise(scores, rows.maximum, p.scale_log2, hidden, reference, addend);
        // All four lanes of a row, which hold the same.
        references[Warpgroup * mla::kRows] = reference[0];
        references[Warpgroup * mla::kRows + 8] = reference[1];
        mla::RowPair fresh;
        mla::weigh<QUERY_F16>(scores, addend, p.scale_log2, fresh, weights);
        added[0] = fresh.sum[0];
        added[1] = fresh.sum[1];
        // The rotary columns give way to the weights when all four warps have their scores.
        ptx::barrier_sync(kGroupReady + Warpgroup, 128);
        mla::store_weights(at.weights(Warpgroup), warp, lane, weights);
        ptx::fence_proxy_async_shared();
        ptx::barrier_arrive(kWeightsReady + Warpgroup, kConsumers);
    }

    // Takes the references and the sums of the weights just made.
    __device__ __forceinline__ void accept(const float (&reference)[2]) {
        follow(reference);
        rows.sum[0] += added[0];
        rows.sum[1] += added[1];
    }

    // The cache past the last token may hold anything, NaN too, and 0 * NaN is NaN: unused values become zero.
    __device__ __forceinline__ void clear_unused(uint64_t usable) {
        const uint32_t thread = threadIdx.x % 128;
        const uint32_t chunk = thread % 64;
        for (uint32_t row = thread / 64; row < mla::kTokens; row += 2) {
            if (usable >> row & 1) continue;
            *reinterpret_cast<uint4*>(shared + kTokensAt + Warpgroup * kBlockBytes + chunk / 8 * kTileBytes + row * 128 +
                                      chunk % 8 * 16) = uint4{};
        }
    }

    __device__ __forceinline__ void add_own(const uint32_t (&weights)[4][4]) {
        const uint32_t values = lower_word(at.tile(Warpgroup, 4 * Warpgroup), kTileBytes);
        ptx::pin_registers(output);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k)
            ptx::wgmma_half<256, QUERY_F16, 1>(output, weights[k], tile::descriptor_of(values + k * kValueStep / 16), 1);
        ptx::wgmma_commit_group();
    }

    __device__ __forceinline__ void add_other() {
        constexpr int kOther = 1 - Warpgroup;
        const uint32_t weights = lower_word(at.weights(kOther), 16);
        const uint32_t values = lower_word(at.tile(kOther, 4 * Warpgroup), kTileBytes);
        ptx::pin_registers(output);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k)
            ptx::wgmma_half<256, QUERY_F16, 0, 1>(output, tile::descriptor_of(weights + k * 32 / 16),
                                                  tile::descriptor_of(values + k * kValueStep / 16), 1);
        ptx::wgmma_commit_group();
    }

    __device__ __forceinline__ void finish_output() {
        ptx::wgmma_wait_group<0>();
        ptx::pin_registers(output);
    }

    __device__ __forceinline__ void finish_scores() {
        ptx::wgmma_wait_group<0>();
        ptx::pin_registers(scores);
    }

    float added[2];
};

// The warpgroup of the even blocks and the left columns, over one piece of at least one block. `phase` is that of its half.
// No accumulators are in flight while others change: the assembler would make one product wait for the other.
__device__ __forceinline__ void run(Consumer<0>& me, int32_t block, int32_t end, uint32_t& phase) {
    const Shared at = me.at;
    float reference[2];
    uint32_t weights[4][4];
    for (;;) {
        start_scores<0>(at, me.scores, phase);
        phase ^= 1;
        me.finish_scores();
        me.weigh(block, reference, weights);
        me.accept(reference);
        me.add_own(weights);
        me.finish_output();
        release(at, 0, 0, me.lane);
        if (block + 1 == end) return;
        ptx::barrier_sync(kWeightsReady + 1, kConsumers);
        me.follow_other();
        me.add_other();
        me.finish_output();
        release(at, 1, 1, me.lane);
        block += 2;
        if (block >= end) return;
    }
}

// The warpgroup of the odd blocks and the right columns.
__device__ __forceinline__ void run(Consumer<1>& me, int32_t block, int32_t end, uint32_t& phase) {
    const Shared at = me.at;
    float reference[2];
    uint32_t weights[4][4];
    for (; block + 1 < end; block += 2) {
        start_scores<1>(at, me.scores, phase);
        phase ^= 1;
        me.finish_scores();
        ptx::barrier_sync(kWeightsReady, kConsumers);
        me.follow_other();
        me.add_other();
        me.weigh(block + 1, reference, weights);
        me.finish_output();
        release(at, 0, 1, me.lane);
        me.accept(reference);
        me.add_own(weights);
        me.finish_output();
        release(at, 1, 0, me.lane);
    }
    if (block == end) return;
    ptx::barrier_sync(kWeightsReady, kConsumers);
    me.follow_other();
    me.add_other();
    me.finish_output();
    release(at, 0, 1, me.lane);
}

template <int Warpgroup>
__device__ __forceinline__ void consume(const NgMlaAttentionParams& p, Shared at) {
    const uint32_t rank = rank_of(p);
    Consumer<Warpgroup> me(p, at);
    const int32_t row = rank * mla::kRows + 16 * me.warp + me.lane / 4;
    float* sums = reinterpret_cast<float*>(shared + kSumsAt) + 16 * me.warp + me.lane / 4;
    uint32_t phase = 0, query_phase = 0;
    mla::Pieces pieces(p, worker_of(p));
    while (ptx::any(pieces.next(p))) {
        const mla::Group group(p, pieces.group);
        if (!ptx::any(pieces.takes(p, group))) continue;
        const int32_t begin = ptx::warp_uniform(pieces.begin), end = ptx::warp_uniform(pieces.end);
        me.visible[0] = group.sequence.visible(p, group.row + row);
        me.visible[1] = group.sequence.visible(p, group.row + row + 8);
        me.all_visible = group.sequence.visible(p, group.row + rank * mla::kRows);
        me.rows = mla::RowPair();
#pragma unroll
        for (int i = 0; i < 128; ++i) me.output[i] = 0.0f;
        if (begin < end) {
            ptx::mbarrier_wait_parity(at.query_full(), query_phase);
            query_phase ^= 1;
            run(me, begin, end, phase);
            ptx::warp_barrier();
            if (me.lane == 0) ptx::mbarrier_arrive(at.query_empty());
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) sums[Warpgroup * mla::kRows + 8 * r] = mla::quad_sum(me.rows.sum[r]);
        ptx::barrier_sync(kSumsReady, kConsumers);
        const float total[2] = {sums[0] + sums[mla::kRows], sums[8] + sums[mla::kRows + 8]};
        // The other warpgroup may still read these when the next are written.
        sums += sums < reinterpret_cast<float*>(shared + kSumsAt) + 2 * mla::kRows ? 2 * mla::kRows : -2 * mla::kRows;
        const mla::Answer answer{group, row, 256 * Warpgroup, me.lane};
        if (ptx::any(pieces.slot >= 0)) {
            answer.store_partial(p, pieces.slot, me.output, me.rows.maximum, total);
        } else {
            answer.store<QUERY_F16>(p, me.output, me.rows.maximum, total);
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1) NG_ENTRY(const __grid_constant__ NgMlaAttentionParams p) {
    const Shared at{ptx::shared_address(shared)};
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.query);
        if constexpr (!FP8) ptx::prefetch_tensormap(&p.cache);
        for (int half = 0; half < 2; ++half) {
            for (int part = 0; part < 2; ++part) {
                ptx::mbarrier_init(at.full(half, part), FP8 ? mla::kWideners : 1);
                ptx::mbarrier_init(at.empty(half, part), 4 * CLUSTER);
            }
        }
        ptx::mbarrier_init(at.query_full(), 1);
        ptx::mbarrier_init(at.query_empty(), kConsumers / 32);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    // No block arrives at barriers of another before they are made.
    if constexpr (CLUSTER > 1) ptx::cluster_barrier();
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();

    if (threadIdx.x >= kConsumers) {
        ptx::set_max_registers_decrease<56>();
        if constexpr (FP8) {
            mla::widen_all<QUERY_F16>(p, at, worker_of(p), [&](const mla::Group& group, uint32_t phase) {
                if (threadIdx.x < kConsumers + 32) load_queries(p, at, group, rank_of(p), threadIdx.x % 32, phase);
            });
        } else if (threadIdx.x < kConsumers + 64) {
            produce(p, at);
        }
    } else {
        ptx::set_max_registers_increase<224>();
        if (threadIdx.x < 128) {
            consume<0>(p, at);
        } else {
            consume<1>(p, at);
        }
    }
    // Its barriers and its shared memory belong to the other block too.
    if constexpr (CLUSTER > 1) {
        ptx::warp_barrier();
        ptx::cluster_barrier();
    }
}
