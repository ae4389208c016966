// Logits of the lightning indexer: out[m, n] = key_scale[n] * sum over heads h of weight[m, h] * relu(q[m, h] . k[n]), FP8
// operands of 128 columns, f32 sums, for the keys n that token m sees.
//
// Keys fill the 64-row side of wgmma, heads of a few tokens its COLUMNS, so that a thread's sums over heads stay in its
// registers until four lanes add theirs. One warp copies queries, and a ring of stages of keys with their scales; two
// warpgroups multiply. Each has two sets of accumulators: while the tensor core fills one, the other is weighted, added and
// stored.
//
// Keys in one row (PAGED=0): each warpgroup has tokens of its own, and both read the stage's 128 keys. Keys in pages
// (PAGED=1): both have the same tokens, and each half of the stage's 256 keys.
//
// Variants: COLUMNS (64 or 128), PAGED, STAGES, and of the launch THREADS and SHARED.
#include "abi.h"
#include "mla/indexer_work.cuh"
#include "ptx/fence.cuh"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/pipeline.cuh"
#include "tile/warp_roles.cuh"

using namespace ng;

namespace {

constexpr uint32_t kWidth = 128;
constexpr uint32_t kPart = 64;  // keys of an accumulator
constexpr uint32_t kParts = PAGED ? 4 : 2;
constexpr uint32_t kTileKeys = kParts * kPart;
constexpr uint32_t kPartBytes = kPart * kWidth;
constexpr uint32_t kStageBytes = kParts * kPartBytes;
constexpr uint32_t kQueryBytes = COLUMNS * kWidth;
// Of one segment: two warpgroups' tokens, or those that both have; a paged block goes on with the next segment's.
constexpr uint32_t kQueries = PAGED ? 1 : 2;
constexpr int kQuerySlots = PAGED ? 2 : 1;
constexpr uint32_t kMathWarps = 8;
constexpr int kProducerRegisters = 40;
constexpr int kMathRegisters = 232;

// Shared memory, from its start.
constexpr uint32_t kKeysAt = kQuerySlots * kQueries * kQueryBytes;
constexpr uint32_t kScalesAt = kKeysAt + STAGES * kStageBytes;
constexpr uint32_t kMappedAt = kScalesAt + STAGES * kTileKeys * 4;
constexpr uint32_t kPipelineAt = kMappedAt + (STAGES * 4 + 15) / 16 * 16;
constexpr uint32_t kQueryPipelineAt = kPipelineAt + tile::Pipeline<STAGES>::kBytes;
constexpr uint32_t kSharedBytes = kQueryPipelineAt + tile::Pipeline<kQuerySlots>::kBytes;
static_assert(THREADS == 3 * tile::kWarpgroup && SHARED == kSharedBytes, "the launch");

using Pipeline = tile::Pipeline<STAGES>;
using Position = tile::PipelinePosition<STAGES>;
using QueryPipeline = tile::Pipeline<kQuerySlots>;
using QueryPosition = tile::PipelinePosition<kQuerySlots>;
#if PAGED
using Work = mla::PagedWork<kTileKeys>;
#else
using Work = mla::RangeWork<kTileKeys>;
#endif
using Accumulators = float[COLUMNS / 2];

extern __shared__ __align__(1024) uint8_t shared[];

// One warp.
__device__ __forceinline__ void copy_tiles(const NgIndexerLogitsParams& p, Work work, uint32_t base, Pipeline pipeline,
                                           QueryPipeline query_pipeline, uint32_t tokens_at_once) {
    const uint32_t lane = ptx::lane_id();
    // Pieces of a stage that are adjacent in a page.
    const uint32_t piece = min(p.page_tokens, kPart), pieces = kTileKeys / piece;
    uint32_t* const mapped_pieces = reinterpret_cast<uint32_t*>(shared + kMappedAt);
    Position at;
    QueryPosition query_at;
    mla::Segment segment;
    uint32_t status = work.bad(tokens_at_once * kQueries) ? NG_STATUS_BAD_LENGTH : 0;
    while (work.next(segment)) {
        query_pipeline.wait_empty(query_at);
        if (lane == 0) {
            const uint32_t full = query_pipeline.full(query_at.stage);
            ptx::mbarrier_arrive_expect_tx(full, kQueries * kQueryBytes);
            for (uint32_t i = 0; i < kQueries; ++i) {
                ptx::tma_load_4d(base + (query_at.stage * kQueries + i) * kQueryBytes, &p.query, full, 0, 0,
                                 segment.token + i * tokens_at_once, segment.batch);
            }
        }
        query_at.advance();
        const auto* table = tile::pointer<const int32_t>(p.page_table) + segment.batch * p.table_stride;
        // What the segment's last token sees, all others see at most.
        const int32_t end = work.visible(segment.batch, min(segment.token + tokens_at_once * kQueries, p.tokens) - 1).end;
        for (uint32_t tile = segment.tile; tile < segment.end; ++tile, at.advance()) {
            const uint32_t key = tile * kTileKeys + lane * piece;
            int32_t page = 0;
            if (PAGED) {
                // Beyond the cache the copy fills with zeros and reads nothing.
                page = -1;
                if (lane < pieces && int32_t(key) < end) {
                    page = table[key / p.page_tokens];
                    if (page < 0 || uint32_t(page) >= p.cache_pages) {
                        page = -1;
                        status |= NG_STATUS_BAD_PAGE;
                    }
                }
            }
            const uint32_t mapped = ptx::ballot(page >= 0);
            pipeline.wait_empty(at);
            const uint32_t full = pipeline.full(at.stage);
            if (lane == 0) {
                mapped_pieces[at.stage] = mapped;
                ptx::mbarrier_arrive_expect_tx(full, kStageBytes + kTileKeys * 4);
            }
            ptx::warp_barrier();
            if (lane < pieces) {
                const uint32_t from = PAGED ? key % p.page_tokens : key;
                ptx::tma_load_3d(base + kKeysAt + at.stage * kStageBytes + lane * piece * kWidth, &p.keys, full, 0, from, page);
                ptx::tma_load_2d(base + kScalesAt + (at.stage * kTileKeys + lane * piece) * 4, &p.scales, full, from, page);
            }
        }
    }
    if (status != 0) ptx::report_status(tile::pointer<uint32_t>(p.status), status);
}

// Where a lane's logits go: of the key in `row` of a part, for one token, and where a token has 32 columns or fewer and there
// are 128, for a second.
struct Outputs {
    static constexpr int kTokens = COLUMNS / 64;
    float* rows[kTokens];
    mla::Visible visible[kTokens];
    bool wide;  // a token has 64 columns

    __device__ __forceinline__ Outputs(const NgIndexerLogitsParams& p, const Work& work, const mla::Segment& segment,
                                       uint32_t first_token, uint32_t half)
        : wide(p.padded_heads == 64) {
#pragma unroll
        for (int i = 0; i < kTokens; ++i) {
            // Of 64 columns one token or two, of 128 two or four.
            const uint32_t token = first_token + (COLUMNS == 64 ? (wide ? 0 : half) : (wide ? half : half * 2 + i));
            const bool mine = token < p.tokens && !(wide && (COLUMNS == 64 ? half : i) != 0);
            visible[i] = mine ? work.visible(segment.batch, token) : mla::Visible{0, 0};
            rows[i] = tile::pointer<float>(p.out) + (int64_t(segment.batch) * p.tokens + token) * p.out_row_stride;
        }
    }

    __device__ __forceinline__ void store(int token, int32_t key, float logit) const {
        if (key >= visible[token].begin && key < visible[token].end) rows[token][key] = logit;
    }
};

struct Math {
    Pipeline pipeline;
    uint64_t keys;     // descriptors of stage 0 and slot 0, this warpgroup's first part
    uint64_t queries;
    uint32_t row;      // of the key of a part that this lane stores
    uint32_t first_part;
    uint32_t piece_shift;
    bool leader;
    float weights[COLUMNS / 4];

    __device__ __forceinline__ void load_weights(const NgIndexerLogitsParams& p, uint32_t batch, uint32_t first_token) {
        const auto* from = tile::pointer<const float>(p.weights) + batch * p.weights_batch_stride;
#pragma unroll
        for (uint32_t i = 0; i < COLUMNS / 4; ++i) {
            const uint32_t column = i / 2 * 8 + ptx::lane_id() % 4 * 2 + i % 2;
            const uint32_t head = column & (p.padded_heads - 1), token = first_token + (column >= p.padded_heads ? column / p.padded_heads : 0);
            const bool exists = head < p.heads && token < p.tokens;
            // Half: what they weight is doubled.
            weights[i] = exists ? 0.5f * from[token * p.weights_token_stride + head] : 0.0f;
        }
    }

    __device__ __forceinline__ void multiply(Accumulators& values, Position at, uint32_t part, uint32_t slot) const {
        const uint64_t a = tile::descriptor_advance(keys, at.stage * kStageBytes + part * kPartBytes);
        const uint64_t b = tile::descriptor_advance(queries, slot * kQueries * kQueryBytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            ptx::wgmma_e4m3<COLUMNS>(values, tile::descriptor_advance(a, 32 * k), tile::descriptor_advance(b, 32 * k), k != 0);
        }
        ptx::wgmma_commit_group();
    }

    // Weighs and adds a part's products, whose wgmma are done, and stores the logits.
    __device__ __forceinline__ void finish(Accumulators& values, Position at, uint32_t part, uint32_t tile,
                                           const Outputs& outputs) const {
        constexpr int kGroups = COLUMNS / 32;
        ptx::pin_registers(values);
        const uint32_t in_stage = (first_part + part) * kPart + row;
        const float scale = reinterpret_cast<const float*>(shared + kScalesAt)[at.stage * kTileKeys + in_stage];
        const uint32_t mapped = reinterpret_cast<const uint32_t*>(shared + kMappedAt)[at.stage];
        if (part == 1) {
            ptx::warp_barrier();
            if (leader) pipeline.release(at);
        }
        // Of this thread's two rows, over each 32 columns.
        float sums[2][kGroups] = {};
#pragma unroll
        for (int octet = 0; octet < COLUMNS / 8; ++octet) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float value = values[octet * 4 + i];
                // Twice the positive part; NaN stays NaN.
                const float positive = __fadd_rn(value, fabsf(value));
                float& sum = sums[i / 2][octet / 4];
                sum = __fmaf_rn(positive, weights[octet * 2 + i % 2], sum);
            }
        }
        // Four lanes have the columns of a row: two by two they split the rows, and then the groups.
        const uint32_t lane = ptx::lane_id();
        const bool second_row = lane & 1, second_half = lane & 2;
        float totals[kGroups];
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
            totals[g] = (second_row ? sums[1][g] : sums[0][g]) + ptx::shuffle_xor(second_row ? sums[0][g] : sums[1][g], 1);
        }
        float logits[kGroups / 2];
#pragma unroll
        for (int g = 0; g < kGroups / 2; ++g) {
            const float own = second_half ? totals[g + kGroups / 2] : totals[g];
            logits[g] = own + ptx::shuffle_xor(second_half ? totals[g] : totals[g + kGroups / 2], 2);
        }
        const float both = COLUMNS == 64 ? logits[0] + ptx::shuffle_xor(logits[0], 2) : logits[0] + logits[kGroups / 2 - 1];
        const bool exists = !PAGED || (mapped >> (in_stage >> piece_shift) & 1);
        const int32_t key = tile * kTileKeys + in_stage;
        const auto answer = [&](float logit) { return exists ? logit * scale : ptx::f32_from_bits(0xff800000u); };
        outputs.store(0, key, answer(outputs.wide ? both : logits[0]));
        if (COLUMNS == 128) outputs.store(kGroups / 2 - 1, key, answer(logits[kGroups / 2 - 1]));
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 1) NG_ENTRY(const __grid_constant__ NgIndexerLogitsParams p) {
    const uint32_t base = ptx::shared_address(shared);
    const Pipeline pipeline{base + kPipelineAt};
    const QueryPipeline query_pipeline{base + kQueryPipelineAt};
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.keys);
        pipeline.init(kMathWarps);
        query_pipeline.init(kMathWarps);
    }
    __syncthreads();
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();

    const uint32_t tokens_at_once = COLUMNS / p.padded_heads;
    Work work(p, tokens_at_once * kQueries);
    if (threadIdx.x < tile::kWarpgroup) {
        ptx::set_max_registers_decrease<kProducerRegisters>();
        if (threadIdx.x < 32) copy_tiles(p, work, base, pipeline, query_pipeline, tokens_at_once);
        return;
    }

    ptx::set_max_registers_increase<kMathRegisters>();
    const tile::Consumer me;
    const uint32_t warpgroup = ptx::warp_uniform(me.warpgroup);
    Math math{pipeline};
    math.first_part = PAGED ? warpgroup * 2 : 0;
    math.keys = tile::descriptor_k_major_128(base + kKeysAt + math.first_part * kPartBytes);
    math.queries = tile::descriptor_k_major_128(base + (PAGED ? 0 : warpgroup * kQueryBytes));
    math.row = me.row + (ptx::lane_id() & 1) * 8;
    math.piece_shift = p.page_tokens < kPart ? 5 : 6;
    math.leader = me.leader;

    Position at;
    QueryPosition query_at;
    mla::Segment segment;
    while (work.next(segment)) {
        const uint32_t first_token = segment.token + (PAGED ? 0 : warpgroup * tokens_at_once);
        const Outputs outputs(p, work, segment, first_token, ptx::lane_id() / 2 % 2);
        math.load_weights(p, segment.batch, first_token);
        query_pipeline.wait_full(query_at);
#pragma unroll 1
        for (uint32_t tile = segment.tile; tile < segment.end; ++tile, at.advance()) {
            // While one warpgroup finishes its second part, the other's products keep the tensor core busy.
            Accumulators first, second;
            pipeline.wait_full(at);
            math.multiply(first, at, 0, query_at.stage);
            math.multiply(second, at, 1, query_at.stage);
            ptx::wgmma_wait_group<1>();
            math.finish(first, at, 0, tile, outputs);
            ptx::wgmma_wait_group<0>();
            math.finish(second, at, 1, tile, outputs);
        }
        ptx::warp_barrier();
        if (me.leader) query_pipeline.release(query_at);
        query_at.advance();
    }
}
