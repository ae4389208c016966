// Multi-head latent attention in absorbed form over a paged bf16 latent cache.
//
// One block: 64 rows (query token x head, flattened) of one sequence and one split of its pages. Two consumer
// warpgroups and a producer, of which one thread works. Per page, each consumer computes the scores of 32 of the 64 keys, both exchange row
// maxima and probabilities through shared memory, and each accumulates 256 of the 512 output columns. The values are
// the first 512 columns of the keys' tile, read as an MN-major operand.
#include "abi.h"
#include "mla/softmax.cuh"
#include "ptx/convert.cuh"
#include "ptx/fence.cuh"
#include "ptx/grid.cuh"
#include "ptx/math.cuh"
#include "ptx/matrix.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/memory.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "ptx/warp.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/pipeline.cuh"
#include "tile/swizzle.cuh"

namespace {

using namespace ng;

constexpr int kRows = 64;
constexpr int kPage = 64;
constexpr int kHalf = kPage / 2;
constexpr int kTiles = 9;        // of 64 columns: 8 latent, 1 rope
constexpr int kValueTiles = 8;
constexpr int kStages = 2;
constexpr uint32_t kConsumers = 256;
constexpr uint32_t kTileBytes = 64 * 128;
constexpr uint32_t kPageBytes = kTiles * kTileBytes;

constexpr uint32_t kQueryAt = 0;
constexpr uint32_t kKeysAt = kQueryAt + kPageBytes;
constexpr uint32_t kProbabilitiesAt = kKeysAt + kStages * kPageBytes;
constexpr uint32_t kStatisticsAt = kProbabilitiesAt + kTileBytes;
constexpr uint32_t kUsableAt = kStatisticsAt + 2 * kRows * 4;
constexpr uint32_t kPipelineAt = kUsableAt + 16;
constexpr uint32_t kQueryBarrierAt = kPipelineAt + tile::Pipeline<kStages>::kBytes;
constexpr uint32_t kSharedBytes = kQueryBarrierAt + 8;
static_assert(kSharedBytes <= NG_MLA_SHARED_BYTES, "the host reserves less shared memory than the kernel uses");

enum Barrier : uint32_t { kMaximaReady = 1, kProbabilitiesReady, kOutputReady };

extern __shared__ __align__(1024) uint8_t shared[];

// What this block does; the same in all its threads.
struct Work {
    int32_t batch, split, row, rows;
    int32_t length;
    int32_t first_page, end_page;
    uint32_t status;

    __device__ __forceinline__ explicit Work(const NgMlaAttentionParams& p) {
        rows = p.tokens * p.heads;
        const uint32_t tiles = (static_cast<uint32_t>(rows) + kRows - 1) / kRows;
        const uint32_t outer = blockIdx.x / tiles;
        row = static_cast<int32_t>(blockIdx.x % tiles) * kRows;
        split = static_cast<int32_t>(outer % p.splits);
        batch = static_cast<int32_t>(outer / p.splits);

        const int32_t capacity = p.table_pages * kPage;
        const int32_t given = reinterpret_cast<const int32_t*>(p.lengths)[batch];
        length = min(max(given, 0), capacity);
        status = given != length ? NG_STATUS_BAD_LENGTH : 0;

        // Pages past the last row's last key are never loaded.
        const int32_t keys = visible(p, min(row + kRows, rows) - 1);
        const int32_t pages = (max(keys, 0) + kPage - 1) / kPage;
        const int32_t share = (pages + p.splits - 1) / p.splits;
        first_page = min(share * split, pages);
        end_page = min(first_page + share, pages);
    }

    // Number of keys that a row may see; none where not positive.
    __device__ __forceinline__ int32_t visible(const NgMlaAttentionParams& p, int32_t at) const {
        return at < rows ? length - p.tokens + at / p.heads + 1 : 0;
    }
};

__device__ __forceinline__ void produce(const NgMlaAttentionParams& p, const Work& work, uint32_t base,
                                        tile::Pipeline<kStages> pipeline) {
    uint32_t status = work.status;
    if (work.first_page < work.end_page) {
        const uint32_t barrier = base + kQueryBarrierAt;
        ptx::mbarrier_arrive_expect_tx(barrier, kPageBytes);
        for (int i = 0; i < kTiles; ++i)
            ptx::tma_load_3d(base + kQueryAt + i * kTileBytes, &p.query, barrier, i * 64, work.row, work.batch);
    }
    const int32_t* table = reinterpret_cast<const int32_t*>(p.page_table) + work.batch * p.table_stride;
    int32_t* usable = reinterpret_cast<int32_t*>(shared + kUsableAt);
    tile::PipelinePosition<kStages> at;
    for (int32_t page = work.first_page; page < work.end_page; ++page) {
        const int32_t id = table[page];
        const bool mapped = id >= 0 && id < p.cache_pages;
        if (!mapped) status |= NG_STATUS_BAD_PAGE;
        const int32_t left = work.length - page * kPage;
        pipeline.wait_empty(at);
        usable[at.stage] = mapped ? min(left, kPage) : 0;
        ptx::mbarrier_arrive_expect_tx(pipeline.full(at.stage), kPageBytes);
        // Out of range in the page dimension, the copy fills with zeros: an unmapped page has keys that nobody sees.
        const uint32_t to = base + kKeysAt + at.stage * kPageBytes;
        for (int i = 0; i < kTiles; ++i)
            ptx::tma_load_3d(to + i * kTileBytes, &p.cache, pipeline.full(at.stage), i * 64, 0, mapped ? id : -1);
        at.advance();
    }
    if (status != 0) ptx::report_status(reinterpret_cast<uint32_t*>(p.status), status);
}

// Stores the 16 x (8 * Octets) accumulators of a warp as bf16 into a 128-byte swizzled tile of 64 columns.
template <int Octets>
__device__ __forceinline__ void store_fragment(uint32_t tile, uint32_t warp, uint32_t lane, uint32_t first_octet,
                                               const float* values) {
    const uint32_t row = 16 * warp + (lane & 15);
#pragma unroll
    for (uint32_t i = 0; i < Octets; i += 2) {
        const float* v = values + 4 * i;
        ptx::stmatrix_x4(tile + tile::swizzle_128(row * 128 + (first_octet + i + (lane >> 4)) * 16),
                         ptx::bf16x2_from_f32(v[0], v[1]), ptx::bf16x2_from_f32(v[2], v[3]), ptx::bf16x2_from_f32(v[4], v[5]),
                         ptx::bf16x2_from_f32(v[6], v[7]));
    }
}

__device__ __forceinline__ void consume(const NgMlaAttentionParams& p, const Work& work, uint32_t base,
                                        tile::Pipeline<kStages> pipeline) {
    const uint32_t group = threadIdx.x / 128;
    const uint32_t thread = threadIdx.x % 128;
    const uint32_t warp = thread / 32;
    const uint32_t lane = thread % 32;
    const uint32_t row0 = 16 * warp + lane / 4;
    const uint32_t row1 = row0 + 8;
    // Of each warpgroup and row: a page's maxima, and in the end the sums.
    float* statistics = reinterpret_cast<float*>(shared + kStatisticsAt);
    const int32_t* usable = reinterpret_cast<const int32_t*>(shared + kUsableAt);

    const int32_t visible0 = work.visible(p, work.row + row0);
    const int32_t visible1 = work.visible(p, work.row + row1);
    mla::RowState state0, state1;
    float output[128];
#pragma unroll
    for (int i = 0; i < 128; ++i) output[i] = 0.0f;

    const uint64_t query = tile::descriptor_k_major_128(base + kQueryAt);
    const uint64_t probabilities = tile::descriptor_k_major_128(base + kProbabilitiesAt);
    if (work.first_page < work.end_page) ptx::mbarrier_wait_parity(base + kQueryBarrierAt, 0);

    tile::PipelinePosition<kStages> at;
    for (int32_t page = work.first_page; page < work.end_page; ++page) {
        pipeline.wait_full(at);
        const uint32_t stage = base + kKeysAt + at.stage * kPageBytes;
        const int32_t mapped = usable[at.stage];

        float scores[16];
#pragma unroll
        for (int i = 0; i < 16; ++i) scores[i] = 0.0f;
        const uint64_t keys = tile::descriptor_k_major_128(stage + group * kHalf * 128);
        ptx::pin_registers(scores);
        ptx::wgmma_fence();
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const uint32_t offset = i * kTileBytes + k * 32;
                ptx::Wgmma<kHalf>::bf16<0, 0>(scores, tile::descriptor_advance(query, offset),
                                              tile::descriptor_advance(keys, offset), 1);
            }
        }
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<0>();
        ptx::pin_registers(scores);

        // The cache past the last key may hold anything, NaN too, and 0 * NaN is NaN: this warpgroup's share of those
        // rows becomes zero before either reads them as values.
        if (mapped > 0 && mapped < kPage) {
            const int32_t first = mapped - static_cast<int32_t>(group) * kHalf;
            for (int32_t row = max(first, 0) + thread / 64; row < kHalf; row += 2) {
                const uint32_t chunk = thread % 64;
                *reinterpret_cast<uint4*>(shared + kKeysAt + at.stage * kPageBytes + (chunk / 8) * kTileBytes +
                                          (group * kHalf + row) * 128 + (chunk % 8) * 16) = uint4{};
            }
        }

        const int32_t before = page * kPage;
        const int32_t end0 = min(mapped, visible0 - before) - static_cast<int32_t>(group) * kHalf;
        const int32_t end1 = min(mapped, visible1 - before) - static_cast<int32_t>(group) * kHalf;
        float maximum0 = -mla::kInfinity, maximum1 = -mla::kInfinity;
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const int32_t key = 8 * (i / 4) + 2 * static_cast<int32_t>(lane % 4) + i % 2;
            const bool second = i % 4 >= 2;
            scores[i] = key < (second ? end1 : end0) ? mla::finite(scores[i]) : -mla::kInfinity;
            if (second)
                maximum1 = ptx::maximum(maximum1, scores[i]);
            else
                maximum0 = ptx::maximum(maximum0, scores[i]);
        }
        maximum0 = mla::quad_max(maximum0);
        maximum1 = mla::quad_max(maximum1);
        // All four lanes of a row, which hold the same.
        statistics[group * kRows + row0] = maximum0;
        statistics[group * kRows + row1] = maximum1;
        // Also: both warpgroups have finished reading the previous page's probabilities.
        ptx::barrier_sync(kMaximaReady, kConsumers);
        const uint32_t other = (1 - group) * kRows;
        const float rescale0 = state0.raise(ptx::maximum(maximum0, statistics[other + row0]), p.scale_log2);
        const float rescale1 = state1.raise(ptx::maximum(maximum1, statistics[other + row1]), p.scale_log2);
#pragma unroll
        for (int i = 0; i < 16; ++i) scores[i] = (i % 4 >= 2 ? state1 : state0).add(scores[i], p.scale_log2);
        store_fragment<4>(base + kProbabilitiesAt, warp, lane, group * 4, scores);
#pragma unroll
        for (int i = 0; i < 128; ++i) output[i] *= i % 4 >= 2 ? rescale1 : rescale0;

        ptx::fence_proxy_async_shared();
        ptx::barrier_sync(kProbabilitiesReady, kConsumers);

        const uint64_t values =
            tile::descriptor_mn_major_128(stage + group * (kValueTiles / 2) * kTileBytes, kTileBytes, 1024);
        ptx::pin_registers(output);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k)
            ptx::Wgmma<256>::bf16<0, 1>(output, tile::descriptor_advance(probabilities, k * 32),
                                        tile::descriptor_advance(values, k * 16 * 128), 1);
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<0>();
        ptx::pin_registers(output);
        if (lane == 0) pipeline.release(at);
        at.advance();
    }

    statistics[group * kRows + row0] = mla::quad_sum(state0.sum);
    statistics[group * kRows + row1] = mla::quad_sum(state1.sum);
    // Also: both warpgroups have finished with the queries, whose memory the output takes.
    ptx::barrier_sync(kMaximaReady, kConsumers);
    const float total0 = statistics[row0] + statistics[kRows + row0];
    const float total1 = statistics[row1] + statistics[kRows + row1];

#if SPLIT
    const int64_t slab = (static_cast<int64_t>(work.split) * p.batch + work.batch) * work.rows + work.row;
    const bool inside0 = work.row + static_cast<int32_t>(row0) < work.rows;
    const bool inside1 = work.row + static_cast<int32_t>(row1) < work.rows;
    float2* partial_statistics = reinterpret_cast<float2*>(p.partial_statistics) + slab;
    if (group == 0 && lane % 4 == 0) {
        if (inside0) partial_statistics[row0] = make_float2(state0.maximum, total0);
        if (inside1) partial_statistics[row1] = make_float2(state1.maximum, total1);
    }
    // A sum of zero tells the combination to leave the rest unread.
    if (work.first_page == work.end_page) return;
    float* partial = reinterpret_cast<float*>(p.partial_output) + slab * NG_MLA_LATENT + group * 256 + 2 * (lane % 4);
    if (inside0) {
#pragma unroll
        for (int i = 0; i < 32; ++i)
            *reinterpret_cast<float2*>(partial + row0 * NG_MLA_LATENT + 8 * i) =
                make_float2(output[4 * i], output[4 * i + 1]);
    }
    if (inside1) {
#pragma unroll
        for (int i = 0; i < 32; ++i)
            *reinterpret_cast<float2*>(partial + row1 * NG_MLA_LATENT + 8 * i) =
                make_float2(output[4 * i + 2], output[4 * i + 3]);
    }
#else
    const float inverse0 = mla::inverse_sum(total0);
    const float inverse1 = mla::inverse_sum(total1);
#pragma unroll
    for (int i = 0; i < 128; ++i) output[i] *= i % 4 >= 2 ? inverse1 : inverse0;
    const uint32_t staged = base + kQueryAt + group * (kValueTiles / 2) * kTileBytes;
#pragma unroll
    for (int i = 0; i < kValueTiles / 2; ++i) store_fragment<8>(staged + i * kTileBytes, warp, lane, 0, output + 32 * i);
    ptx::fence_proxy_async_shared();
    ptx::barrier_sync(kOutputReady + group, 128);
    if (thread == 0) {
        for (uint32_t i = 0; i < kValueTiles / 2; ++i)
            ptx::tma_store_3d(&p.output, staged + i * kTileBytes, (group * (kValueTiles / 2) + i) * 64, work.row,
                              work.batch);
        ptx::bulk_commit_group();
        ptx::bulk_wait_group_read<0>();
    }
    if (p.lse != 0 && group == 0 && lane % 4 == 0) {
        float* lse = reinterpret_cast<float*>(p.lse) + work.batch * p.lse_batch_stride;
        const int32_t at0 = work.row + row0, at1 = work.row + row1;
        if (at0 < work.rows)
            lse[(at0 % p.heads) * p.lse_head_stride + (at0 / p.heads) * p.lse_token_stride] =
                mla::log_sum(state0.maximum, total0, p.scale);
        if (at1 < work.rows)
            lse[(at1 % p.heads) * p.lse_head_stride + (at1 / p.heads) * p.lse_token_stride] =
                mla::log_sum(state1.maximum, total1, p.scale);
    }
#endif
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kConsumers + 128, 1) NG_ENTRY(const __grid_constant__ NgMlaAttentionParams p) {
    const uint32_t base = ptx::shared_address(shared);
    const tile::Pipeline<kStages> pipeline{base + kPipelineAt};
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(base + kQueryBarrierAt, 1);
        pipeline.init(kConsumers / 32);
    }
    __syncthreads();
    ptx::grid_dependency_wait();
    const Work work(p);
    if (threadIdx.x >= kConsumers) {
        ptx::set_max_registers_decrease<24>();
        if (threadIdx.x == kConsumers) produce(p, work, base, pipeline);
    } else {
        ptx::set_max_registers_increase<240>();
        consume(p, work, base, pipeline);
    }
}
