// Multi-head latent attention in absorbed form over the keys that a list names for each query token, for decode and
// prefill alike. FP8=1: keys of 656 bytes, brought to bf16 on their way; PAIR=1: clusters of two blocks share the keys.
//
// One block: 64 heads of one query token and one split of its list. Keys come in two buffers of 64, which the producer
// warpgroup fills by halves. Each consumer warpgroup computes all scores of one buffer, weighs the values of both and
// owns 256 of the 512 output columns; while one works on its softmax, the other's products run. Weights go to the other
// warpgroup through the place of their own keys' rotary tile, which is done with by then.
#include "abi.h"
#include "mla/sparse_gather.cuh"
#include "mla/sparse_softmax.cuh"
#include "ptx/grid.cuh"
#include "ptx/matrix.cuh"
#include "ptx/registers.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/swizzle.cuh"

namespace {

using namespace ng;
using mla::Half;

constexpr int kRows = 64;
constexpr int kTiles = 9;  // of 64 columns: 8 latent, 1 rotary
constexpr uint32_t kConsumers = 256;
constexpr bool kPair = PAIR != 0;

constexpr uint32_t kQueryAt = 0;
constexpr uint32_t kKeysAt = kQueryAt + kTiles * mla::kTileBytes;
constexpr uint32_t kExchangeAt = kKeysAt + 2 * mla::kBufferBytes;  // float2[2][64]
constexpr uint32_t kMasksAt = kExchangeAt + 2 * kRows * 8;         // uint2[2]
constexpr uint32_t kHalvesAt = kMasksAt + 2 * 8;
constexpr uint32_t kQueryBarrierAt = kHalvesAt + mla::Halves::kBytes;
constexpr uint32_t kSharedBytes = kQueryBarrierAt + 8;
static_assert(kSharedBytes <= NG_MLA_SPARSE_SHARED_BYTES, "the host reserves less shared memory than the kernel uses");

enum Barrier : uint32_t { kFirstReference = 1, kSecondReference, kFirstWeights, kSecondWeights, kSums, kOutputReady };

extern __shared__ __align__(1024) uint8_t shared[];

// What this block does; the same in all its threads.
struct Work {
    int32_t token, split, head;
    mla::Range range;
    uint32_t status;

    __device__ __forceinline__ explicit Work(const NgMlaSparseParams& p) {
        const uint32_t tiles = (static_cast<uint32_t>(p.heads) + kRows - 1) / kRows;
        const uint32_t outer = blockIdx.x / tiles;
        head = static_cast<int32_t>(blockIdx.x % tiles) * kRows;
        split = static_cast<int32_t>(outer % p.splits);
        token = static_cast<int32_t>(outer / p.splits);

        int32_t given = p.top_k;
        if (p.lengths != 0) given = reinterpret_cast<const int32_t*>(p.lengths)[token / p.tokens_per_length];
        range.keys = min(max(given, 0), p.top_k);
        status = given != range.keys ? NG_STATUS_BAD_LENGTH : 0;
        // In pairs of buffers, so that only a list's end leaves one unused.
        const int32_t pairs = (range.keys + 2 * mla::kBlock - 1) / (2 * mla::kBlock);
        const int32_t share = (pairs + p.splits - 1) / p.splits;
        range.first = ptx::warp_uniform(2 * min(share * split, pairs));
        range.end = ptx::warp_uniform(min(range.first + 2 * share, (range.keys + mla::kBlock - 1) / mla::kBlock));
    }
};

__device__ __forceinline__ void produce(const NgMlaSparseParams& p, const Work& work, uint32_t base) {
    uint32_t status = work.status;
    if (work.range.first < work.range.end) {
        if (threadIdx.x == kConsumers) {
            const uint32_t barrier = base + kQueryBarrierAt;
            ptx::mbarrier_arrive_expect_tx(barrier, kTiles * mla::kTileBytes);
            for (int i = 0; i < kTiles; ++i)
                ptx::tma_load_3d(base + kQueryAt + i * mla::kTileBytes, &p.query, barrier, i * 64, work.head, work.token);
        }
        ptx::warp_barrier();
        const int32_t* list = reinterpret_cast<const int32_t*>(p.indices) + work.token * p.index_stride;
        mla::Gather<FP8 != 0, kPair> gather(p, list, mla::Halves{base + kHalvesAt}, base + kKeysAt, shared + kMasksAt);
        status |= gather.run(work.range);
    }
    if (status != 0 && ptx::lane_id() == 0) ptx::report_status(reinterpret_cast<uint32_t*>(p.status), status);
}

// Stores 16 x 64 values of a warp as bf16 into a 128-byte swizzled tile.
__device__ __forceinline__ void store_rows(uint32_t tile, uint32_t warp, uint32_t lane, const float* v) {
    const uint32_t row = 16 * warp + (lane & 15);
#pragma unroll
    for (uint32_t i = 0; i < 8; i += 2, v += 8)
        ptx::stmatrix_x4(tile + tile::swizzle_128(row * 128 + (i + (lane >> 4)) * 16), ptx::bf16x2_from_f32(v[0], v[1]),
                         ptx::bf16x2_from_f32(v[2], v[3]), ptx::bf16x2_from_f32(v[4], v[5]),
                         ptx::bf16x2_from_f32(v[6], v[7]));
}

template <uint32_t Group>
struct Consumer {
    const NgMlaSparseParams& p;
    const Work& work;
    uint32_t base, warp, lane, row;
    mla::Halves halves;
    float2* exchange;  // of each buffer and row: the reference after it, and what came before is multiplied by
    mla::RowPair rows;
    float output[128];

    __device__ __forceinline__ Consumer(const NgMlaSparseParams& params, const Work& todo, uint32_t shared_base)
        : p(params), work(todo), base(shared_base), warp(threadIdx.x / 32 % 4), lane(ptx::lane_id()),
          row(16 * warp + lane / 4), halves{shared_base + kHalvesAt},
          exchange(reinterpret_cast<float2*>(shared + kExchangeAt)) {
#pragma unroll
        for (int i = 0; i < 128; ++i) output[i] = 0.0f;
    }

    static __device__ __forceinline__ uint32_t buffer(uint32_t base, int which) { return base + kKeysAt + which * mla::kBufferBytes; }
    __device__ __forceinline__ uint32_t weights_tile(int which) const { return buffer(base, which) + 8 * mla::kTileBytes; }

    __device__ __forceinline__ void release(Half half) const {
        if (lane != 0) return;
        ptx::mbarrier_arrive(halves.empty(half));
        if constexpr (kPair)
            ptx::cluster_mbarrier_release(ptx::cluster_address(halves.empty(half), ptx::cluster_rank() ^ 1));
    }

    __device__ __forceinline__ void wait_full(Half half, uint32_t phase) const {
        if constexpr (kPair)
            ptx::cluster_mbarrier_wait_parity(halves.full(half), phase);
        else
            ptx::mbarrier_wait_parity(halves.full(half), phase);
    }

    template <int First, int Last>
    __device__ __forceinline__ void score_tiles(float (&scores)[32], bool fresh) const {
        const uint64_t query = tile::descriptor_k_major_128(base + kQueryAt);
        const uint64_t keys = tile::descriptor_k_major_128(buffer(base, Group));
#pragma unroll
        for (int i = First; i <= Last; ++i) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const uint32_t offset = i * mla::kTileBytes + k * 32;
                ptx::Wgmma<64>::bf16<0, 0>(scores, tile::descriptor_advance(query, offset),
                                           tile::descriptor_advance(keys, offset), !(fresh && i == First && k == 0));
            }
        }
    }

    // Scores of this warpgroup's own buffer, in the order in which it comes.
    __device__ __forceinline__ void score(float (&scores)[32], uint32_t phase) const {
        wait_full(Group == 0 ? mla::kLeft0 : mla::kRight1, phase);
        ptx::pin_registers(scores);
        ptx::wgmma_fence();
        if constexpr (Group == 0) {
            score_tiles<0, 3>(scores, true);
            wait_full(mla::kRight0, phase);
            ptx::wgmma_fence();
            score_tiles<4, 8>(scores, false);
        } else {
            score_tiles<4, 7>(scores, true);
            wait_full(mla::kLeft1, phase);
            ptx::wgmma_fence();
            score_tiles<8, 8>(scores, false);
            score_tiles<0, 3>(scores, false);
        }
        ptx::wgmma_commit_group();
        if constexpr (kPair) {
            if (threadIdx.x % 128 == 0)
                ptx::cluster_mbarrier_arrive(ptx::cluster_address(halves.sent(Group), ptx::cluster_rank() ^ 1));
        }
        ptx::wgmma_wait_group<0>();
        ptx::pin_registers(scores);
    }

    __device__ __forceinline__ void store_weights(const float (&weights)[32], uint32_t phase) const {
        if constexpr (kPair) ptx::cluster_mbarrier_wait_parity(halves.sent(Group), phase);
        store_rows(weights_tile(Group), warp, lane, weights);
        ptx::fence_proxy_async_shared();
    }

    __device__ __forceinline__ uint64_t values(int which) const {
        return tile::descriptor_mn_major_128(buffer(base, which) + Group * 4 * mla::kTileBytes, mla::kTileBytes, 1024);
    }

    // Adds the values of this warpgroup's own buffer, weights in registers.
    __device__ __forceinline__ void add_own(const float (&weights)[32]) {
        uint32_t a[4][4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            mla::pack(weights, k * 16, a[k]);
            ptx::pin_registers(a[k]);
        }
        ptx::pin_registers(output);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k)
            ptx::Wgmma<256>::bf16<1>(output, a[k], tile::descriptor_advance(values(Group), k * 16 * 128), 1);
        ptx::wgmma_commit_group();
    }

    // And those of the other's.
    __device__ __forceinline__ void add_other() {
        const uint64_t weights = tile::descriptor_k_major_128(weights_tile(1 - Group));
        ptx::pin_registers(output);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k)
            ptx::Wgmma<256>::bf16<0, 1>(output, tile::descriptor_advance(weights, k * 32),
                                        tile::descriptor_advance(values(1 - Group), k * 16 * 128), 1);
        ptx::wgmma_commit_group();
    }

    template <int Pending>
    __device__ __forceinline__ void wait_output() {
        ptx::wgmma_wait_group<Pending>();
        ptx::pin_registers(output);
    }

    __device__ __forceinline__ void tell(const float (&factors)[2]) const {
        if (lane % 4 != 0) return;
        exchange[Group * kRows + row] = make_float2(rows.reference[0].score, factors[0]);
        exchange[Group * kRows + row + 8] = make_float2(rows.reference[1].score, factors[1]);
    }

    __device__ __forceinline__ void hear(float (&factors)[2]) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float2 heard = exchange[(1 - Group) * kRows + row + 8 * i];
            rows.reference[i].set(heard.x, p.scale_log2);
            factors[i] = heard.y;
        }
    }

    __device__ __forceinline__ uint2 mask() const { return reinterpret_cast<const uint2*>(shared + kMasksAt)[Group]; }

    // The first warpgroup's share of two buffers.
    __device__ __forceinline__ void first(uint32_t phase, bool two) {
        float scores[32], top[2], factors[2];
        score(scores, phase);
        rows.mask(scores, mask(), lane, top);
#pragma unroll
        for (int i = 0; i < 2; ++i) factors[i] = rows.reference[i].raise(top[i], p.scale_log2);
        tell(factors);
        ptx::barrier_arrive(kFirstReference, kConsumers);
        rows.rescale(output, factors[0], factors[1]);
        rows.weigh(scores, p.scale_log2);
        add_own(scores);
        ptx::barrier_sync(kSecondReference, kConsumers);
        hear(factors);
        if (ptx::any(factors[0] != 1.0f || factors[1] != 1.0f)) {
#pragma unroll
            for (int i = 0; i < 32; ++i) scores[i] *= factors[i % 4 / 2];
        }
        store_weights(scores, phase);
        ptx::barrier_arrive(kFirstWeights, kConsumers);
        wait_output<0>();
        release(mla::kLeft0);
        rows.rescale(output, factors[0], factors[1]);
        if (two) {
            ptx::barrier_sync(kSecondWeights, kConsumers);
            add_other();
        }
        wait_output<0>();
        if (two) release(mla::kLeft1);
    }

    // The second warpgroup's.
    __device__ __forceinline__ void second(uint32_t phase, bool two) {
        float scores[32], top[2] = {-mla::kInfinity, -mla::kInfinity}, before[2], factors[2];
        if (two) {
            score(scores, phase);
            rows.mask(scores, mask(), lane, top);
        }
        ptx::barrier_sync(kFirstReference, kConsumers);
        hear(before);
#pragma unroll
        for (int i = 0; i < 2; ++i) factors[i] = rows.reference[i].raise(top[i], p.scale_log2);
        tell(factors);
        ptx::barrier_arrive(kSecondReference, kConsumers);
        rows.rescale(output, before[0] * factors[0], before[1] * factors[1]);
        if (two) {
            rows.weigh(scores, p.scale_log2);
            store_weights(scores, phase);
            ptx::barrier_arrive(kSecondWeights, kConsumers);
            add_own(scores);
        }
        ptx::barrier_sync(kFirstWeights, kConsumers);
        add_other();
        if (two) {
            wait_output<1>();
            release(mla::kRight1);
        }
        wait_output<0>();
        release(mla::kRight0);
    }

    __device__ __forceinline__ void run() {
        if (work.range.first < work.range.end) ptx::mbarrier_wait_parity(base + kQueryBarrierAt, 0);
        uint32_t phase = 0;
#pragma unroll 1
        for (int32_t block = work.range.first; block < work.range.end; block += 2) {
            const bool two = ptx::any(block + 1 < work.range.end);
            if constexpr (Group == 0)
                first(phase, two);
            else
                second(phase, two);
            phase ^= 1;
        }
        ptx::grid_launch_dependents();
        finish();
    }

    __device__ __forceinline__ void finish() {
        // The sums and maxima of both; what the loop exchanged here has been read.
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            rows.sum[i] = mla::quad_sum(rows.sum[i]);
            if (lane % 4 == 0) exchange[Group * kRows + row + 8 * i] = make_float2(rows.sum[i], rows.maximum[i]);
        }
        // Also: both warpgroups have finished with the queries, whose memory the output takes.
        ptx::barrier_sync(kSums, kConsumers);
        float totals[2], maxima[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float2 one = exchange[row + 8 * i], other = exchange[kRows + row + 8 * i];
            totals[i] = one.x + other.x;
            maxima[i] = ptx::maximum(one.y, other.y);
        }
        if (p.splits > 1)
            store_partial(totals, maxima);
        else
            store_final(totals, maxima);
    }

    __device__ __forceinline__ void store_partial(const float (&totals)[2], const float (&maxima)[2]) const {
        const int64_t slab = (static_cast<int64_t>(work.split) * p.tokens + work.token) * p.heads + work.head;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint32_t at = row + 8 * i;
            if (work.head + static_cast<int32_t>(at) >= p.heads) continue;
            if (Group == 0 && lane % 4 == 0)
                reinterpret_cast<float4*>(p.partial_statistics)[slab + at] = make_float4(
                    rows.reference[i].scaled, totals[i], maxima[i], rows.reference[i].score);
            // A sum of zero tells the combination to leave the rest unread.
            if (work.range.first >= work.range.end) continue;
            float* to = reinterpret_cast<float*>(p.partial_output) + (slab + at) * NG_MLA_LATENT + Group * 256 + 2 * (lane % 4);
#pragma unroll
            for (int c = 0; c < 32; ++c)
                *reinterpret_cast<float2*>(to + 8 * c) = make_float2(output[4 * c + 2 * i], output[4 * c + 2 * i + 1]);
        }
    }

    __device__ __forceinline__ void store_final(const float (&totals)[2], const float (&maxima)[2]) {
        float inverse[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int32_t head = work.head + static_cast<int32_t>(row) + 8 * i;
            const bool inside = head < p.heads;
            const float* sink = p.sinks != 0 && inside ? reinterpret_cast<const float*>(p.sinks) + head : nullptr;
            inverse[i] = mla::inverse_with_sink(totals[i], rows.reference[i].scaled, sink);
            if (Group != 0 || lane % 4 != 0 || !inside) continue;
            if (p.lse != 0)
                reinterpret_cast<float*>(p.lse)[work.token * p.lse_token_stride + head * p.lse_head_stride] =
                    mla::log_of(totals[i], rows.reference[i].scaled);
            if (p.max_logits != 0)
                reinterpret_cast<float*>(p.max_logits)[work.token * p.max_token_stride + head * p.max_head_stride] =
                    maxima[i] * p.scale;
        }
#pragma unroll
        for (int i = 0; i < 128; ++i) output[i] *= inverse[i % 4 / 2];
        const uint32_t staged = base + kQueryAt + Group * 4 * mla::kTileBytes;
#pragma unroll
        for (int i = 0; i < 4; ++i) store_rows(staged + i * mla::kTileBytes, warp, lane, output + 32 * i);
        ptx::fence_proxy_async_shared();
        ptx::barrier_sync(kOutputReady + Group, 128);
        if (threadIdx.x % 128 == 0) {
            for (uint32_t i = 0; i < 4; ++i)
                ptx::tma_store_3d(&p.output, staged + i * mla::kTileBytes, (Group * 4 + i) * 64, work.head, work.token);
            ptx::bulk_commit_group();
            ptx::bulk_wait_group_read<0>();
        }
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kConsumers + 128, 1) NG_ENTRY(const __grid_constant__ NgMlaSparseParams p) {
    const uint32_t base = ptx::shared_address(shared);
    if (threadIdx.x == 0) {
        const mla::Halves halves{base + kHalvesAt};
        for (int i = 0; i < 4; ++i) {
            ptx::mbarrier_init(halves.full(Half(i)), 4);
            ptx::mbarrier_init(halves.empty(Half(i)), kPair ? 8 : 4);
        }
        for (int i = 0; i < 2; ++i) ptx::mbarrier_init(halves.sent(i), 1);
        ptx::mbarrier_init(base + kQueryBarrierAt, 1);
        ptx::fence_mbarrier_init();
    }
    if constexpr (kPair)
        ptx::cluster_barrier();
    else
        __syncthreads();
    ptx::grid_dependency_wait();
    const Work work(p);
    if (ptx::any(threadIdx.x >= kConsumers)) {
        ptx::set_max_registers_decrease<FP8 ? 88 : 72>();
        produce(p, work, base);
    } else {
        ptx::set_max_registers_increase<FP8 ? 208 : 216>();
        if (ptx::any(threadIdx.x < 128))
            Consumer<0>(p, work, base).run();
        else
            Consumer<1>(p, work, base).run();
    }
    // The other block may still send, and be told that its memory is free.
    if constexpr (kPair) ptx::cluster_barrier();
}
