// Dense attention with a key and a value for each head (prefill): HEAD columns of query and key, 128 of the value.
//
// One block: 128 queries of one head and sequence, 64 for each of two consumer warpgroups, and a producer that copies
// tiles of 128 keys and values into a ring each, from the last tile to the first, so that masked tiles come first.
//
// A consumer keeps two products in flight: the next tile's scores, and the last tile's weights times its values. Under
// the second it makes weights of the first. Consumers take turns to issue both, so that the tensor cores have the other
// one's products while this one is at its softmax.
//
// Variants: HEAD (192 or 128), STAGES of either ring, and of the launch THREADS and SHARED.
#include "abi.h"
#include "mla/prefill_softmax.cuh"
#include "mla/sequences.cuh"
#include "ptx/convert.cuh"
#include "ptx/fence.cuh"
#include "ptx/grid.cuh"
#include "ptx/matrix.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/memory.cuh"
#include "ptx/registers.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma_registers.cuh"
#include "tile/descriptor.cuh"
#include "tile/pipeline.cuh"
#include "tile/swizzle.cuh"
#include "tile/warp_roles.cuh"

using namespace ng;

namespace {

constexpr int kRows = NG_PREFILL_ROWS;
constexpr int kKeys = 128;
constexpr uint32_t kScoreTiles = HEAD / 64;  // of 64 columns
constexpr uint32_t kValueTiles = 2;
constexpr uint32_t kTileBytes = 128 * 128;
constexpr uint32_t kQueryBytes = kScoreTiles * kTileBytes;
constexpr uint32_t kKeyBytes = kScoreTiles * kTileBytes;
constexpr uint32_t kValueBytes = kValueTiles * kTileBytes;
constexpr uint32_t kConsumers = 256;
constexpr uint32_t kConsumerWarps = kConsumers / 32;

using Ring = tile::Pipeline<STAGES>;
using Position = tile::PipelinePosition<STAGES>;

// Shared memory, from its start. The output takes the queries' place.
constexpr uint32_t kKeysAt = kQueryBytes;
constexpr uint32_t kValuesAt = kKeysAt + STAGES * kKeyBytes;
constexpr uint32_t kKeyRingAt = kValuesAt + STAGES * kValueBytes;
constexpr uint32_t kValueRingAt = kKeyRingAt + Ring::kBytes;
constexpr uint32_t kQueryBarrierAt = kValueRingAt + Ring::kBytes;
static_assert(THREADS == tile::kWarpgroup + kConsumers && SHARED == kQueryBarrierAt + 8, "the launch");

// Named barriers: a consumer's turn (and one more), and values past the end made zero.
enum Barrier : uint32_t { kTurn = 1, kValuesEnd = 3 };

// What this block does.
struct Work {
    mla::QueryTile tile;
    uint32_t head, key_head;
    int32_t tiles;  // of keys that any of its rows sees
    uint32_t key_count;
    uint32_t queries;

    __device__ __forceinline__ explicit Work(const NgPrefillParams& p) {
        // Heads whose keys and values fit into the L2 cache together form a section; within it, tiles come by their
        // length and then by head.
        const uint32_t section_blocks = p.tiles * p.section_heads;
        const uint32_t section = blockIdx.x / section_blocks;
        const uint32_t inside = blockIdx.x % section_blocks;
        const uint32_t heads = min(p.section_heads, p.heads - section * p.section_heads);
        head = section * p.section_heads + inside % heads;
        key_head = head / p.group;
        tile = mla::find_tile(sequences(p), inside / heads, kRows);
        queries = tile.query_end - tile.query_begin;
        key_count = tile.key_end - tile.key_begin;
        const int32_t seen = visible(p, min(tile.row + kRows, static_cast<int32_t>(queries)) - 1);
        tiles = tile.exists ? (max(seen, 0) + kKeys - 1) / kKeys : 0;
    }

    static __device__ __forceinline__ mla::Sequences sequences(const NgPrefillParams& p) {
        return {reinterpret_cast<const int32_t*>(p.query_offsets), reinterpret_cast<const int32_t*>(p.key_offsets),
                static_cast<int32_t>(p.sequences), static_cast<int32_t>(p.queries), static_cast<int32_t>(p.keys)};
    }

    // Keys that a row of the sequence sees; none where not positive.
    __device__ __forceinline__ int32_t visible(const NgPrefillParams& p, int32_t row) const {
        const int32_t count = static_cast<int32_t>(key_count);
        return p.causal != 0 ? min(count - static_cast<int32_t>(queries) + row + 1, count) : count;
    }
};

__device__ __forceinline__ void load_tiles(uint32_t to, const NgTensorMap& map, uint32_t barrier, uint32_t count, uint32_t head,
                                           int32_t token) {
    for (uint32_t i = 0; i < count; ++i)
        ptx::tma_load_3d(to + i * kTileBytes, &map, barrier, i * 64, head, token);
}

__device__ __forceinline__ void produce(const NgPrefillParams& p, const Work& work, uint32_t base, Ring keys, Ring values) {
    const uint32_t barrier = base + kQueryBarrierAt;
    ptx::mbarrier_arrive_expect_tx(barrier, kQueryBytes);
    load_tiles(base, p.query, barrier, kScoreTiles, work.head, work.tile.query_begin + work.tile.row);
    Position key_at, value_at;
    const auto load_values = [&](int32_t tile) {
        values.wait_empty(value_at);
        ptx::mbarrier_arrive_expect_tx(values.full(value_at.stage), kValueBytes);
        load_tiles(base + kValuesAt + value_at.stage * kValueBytes, p.value, values.full(value_at.stage), kValueTiles,
                   work.key_head, work.tile.key_begin + tile * kKeys);
        value_at.advance();
    };
    for (int32_t tile = work.tiles - 1; tile >= 0; --tile) {
        const uint32_t full = keys.full(key_at.stage);
        const uint32_t to = base + kKeysAt + key_at.stage * kKeyBytes;
        const int32_t token = work.tile.key_begin + tile * kKeys;
        keys.wait_empty(key_at);
        ptx::mbarrier_arrive_expect_tx(full, kKeyBytes);
        load_tiles(to, p.key, full, 2, work.key_head, token);
        if constexpr (kScoreTiles == 3)
            ptx::tma_load_3d(to + 2 * kTileBytes, &p.key_rope, full, 0, p.shared_rope != 0 ? 0 : work.key_head, token);
        key_at.advance();
        if (tile + 1 < work.tiles) load_values(tile + 1);
    }
    load_values(0);
}

// A consumer warpgroup.
template <bool F16>
struct Consumer {
    const NgPrefillParams& p;
    const Work& work;
    uint32_t base;
    Ring keys, values;
    uint32_t group, warp, lane;
    Position key_at, value_at;
    float scores[mla::kTileScores];
    float output[64];
    uint32_t weights[8][4];

    static __device__ __forceinline__ uint32_t pair(float low, float high) {
        return F16 ? ptx::f16x2_from_f32(low, high) : ptx::bf16x2_from_f32(low, high);
    }

    __device__ __forceinline__ void take_turn() const { ptx::barrier_sync(kTurn + group, kConsumers); }
    __device__ __forceinline__ void give_turn() const { ptx::barrier_arrive(kTurn + 1 - group, kConsumers); }

    __device__ __forceinline__ void issue_scores() {
        const uint64_t query = tile::descriptor_k_major_128(base + group * (kTileBytes / 2));
        const uint64_t key = tile::descriptor_k_major_128(base + kKeysAt + key_at.stage * kKeyBytes);
        ptx::pin_registers(scores);
        ptx::wgmma_fence();
#pragma unroll
        for (uint32_t i = 0; i < kScoreTiles; ++i) {
#pragma unroll
            for (uint32_t k = 0; k < 4; ++k)
                ptx::wgmma_half<kKeys, F16, 0, 0>(scores, tile::descriptor_advance(query, i * kTileBytes + k * 32),
                                                  tile::descriptor_advance(key, i * kTileBytes + k * 32), i + k > 0);
        }
        ptx::wgmma_commit_group();
    }

    __device__ __forceinline__ void issue_output() {
        const uint64_t value =
            tile::descriptor_mn_major_128(base + kValuesAt + value_at.stage * kValueBytes, kTileBytes, 1024);
        ptx::pin_registers(output);
        ptx::wgmma_fence();
#pragma unroll
        for (uint32_t k = 0; k < 8; ++k) {
            const uint64_t at = tile::descriptor_advance(value, k * 16 * 128);
            if constexpr (F16) {
                ptx::wgmma_f16_registers(output, weights[k], at);
            } else {
                ptx::wgmma_bf16_registers(output, weights[k], at);
            }
        }
        ptx::wgmma_commit_group();
    }

    __device__ __forceinline__ void release(Ring ring, Position& at) {
        if (lane == 0) ring.release(at);
        at.advance();
    }

    // Rows of the last tile past the sequence's end may hold anything, NaN too, and 0 * NaN is NaN.
    __device__ __forceinline__ void clear_values_from(int32_t end) const {
        values.wait_full(value_at);
        extern __shared__ __align__(1024) uint8_t shared[];
        for (int32_t row = end + static_cast<int32_t>(group * 8 + warp * 2 + lane / 16); row < kKeys; row += 16) {
            const uint32_t chunk = lane % 16;
            *reinterpret_cast<uint4*>(shared + kValuesAt + value_at.stage * kValueBytes + (chunk / 8) * kTileBytes + row * 128 +
                                      (chunk % 8) * 16) = uint4{};
        }
        ptx::fence_proxy_async_shared();
        ptx::barrier_sync(kValuesEnd, kConsumers);
    }

    __device__ __forceinline__ void narrow() {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
#pragma unroll
            for (int i = 0; i < 4; ++i) weights[k][i] = pair(scores[8 * k + 2 * i], scores[8 * k + 2 * i + 1]);
        }
    }

    __device__ __forceinline__ void soften(int32_t tile, mla::PrefillRow& row0, mla::PrefillRow& row1, int32_t visible0,
                                           int32_t visible1, int32_t least) {
        const int32_t before = tile * kKeys;
        if (least < before + kKeys) mla::mask(scores, visible0 - before, visible1 - before, lane);
        mla::tile_softmax(scores, row0, row1, p.scale_log2);
    }

    __device__ __forceinline__ void run() {
#pragma unroll
        for (float& x : output) x = 0.0f;
#pragma unroll
        for (float& x : scores) x = 0.0f;
        const int32_t warp_row = work.tile.row + static_cast<int32_t>(group * 64 + warp * 16);
        const int32_t row = warp_row + static_cast<int32_t>(lane / 4);
        const int32_t visible0 = work.visible(p, row), visible1 = work.visible(p, row + 8);
        const int32_t least = work.visible(p, warp_row);
        mla::PrefillRow row0, row1;
        if (work.tiles > 0) {
            int32_t tile = work.tiles - 1;
            ptx::mbarrier_wait_parity(base + kQueryBarrierAt, 0);
            keys.wait_full(key_at);
            if (group != 0) take_turn();
            issue_scores();
            if (group == 0 || tile > 0) give_turn();
            ptx::wgmma_wait_group<0>();
            ptx::pin_registers(scores);
            release(keys, key_at);
            soften(tile, row0, row1, visible0, visible1, least);
            const int32_t end = static_cast<int32_t>(work.key_count) - tile * kKeys;
            if (end < kKeys) clear_values_from(end);
            narrow();
            if (tile > 0) keys.wait_full(key_at);

#pragma unroll 1
            while (--tile >= 0) {
                take_turn();
                issue_scores();
                values.wait_full(value_at);
                issue_output();
                if (group == 0 || tile > 0) give_turn();
                ptx::wgmma_wait_group<1>();
                ptx::pin_registers(scores);
                release(keys, key_at);
                soften(tile, row0, row1, visible0, visible1, least);
                ptx::pin_registers(scores);
                // Here and not where they are used: the loop ends a basic block, without which ptxas would move the wait
                // for the values' product before the weights are made.
                if (tile > 0) keys.wait_full(key_at);
                ptx::wgmma_wait_group<0>();
                ptx::pin_registers(output);
                release(values, value_at);
                if (ptx::any(row0.rescale != 1.0f || row1.rescale != 1.0f)) {
#pragma unroll
                    for (int i = 0; i < 64; ++i) output[i] *= i % 4 >= 2 ? row1.rescale : row0.rescale;
                }
                ptx::pin_registers(scores);
                narrow();
            }
            values.wait_full(value_at);
            issue_output();
            ptx::wgmma_wait_group<0>();
            ptx::pin_registers(output);
        }
        finish(warp_row, row0, row1);
    }

    // The natural logarithm and the factor of one row's sums.
    __device__ __forceinline__ float close(const mla::PrefillRow& row, int32_t at) const {
        constexpr float kLn2 = 0.693147180559945f;
        constexpr float kLog2e = 1.44269504088896f;
        const float sum = mla::quad_sum(row.sum);
        const float reference = row.reference(p.scale_log2);
        if (p.lse != 0 && lane % 4 == 0 && at < static_cast<int32_t>(work.queries))
            reinterpret_cast<float*>(p.lse)[work.head * p.lse_head_stride + (work.tile.query_begin + at) * p.lse_token_stride] =
                sum == 0.0f ? -mla::kInfinity : (reference + ptx::log2_approximate(sum)) * kLn2;
        if (p.sinks == 0 || sum == 0.0f) return mla::inverse_sum(sum);
        const float sink = reinterpret_cast<const float*>(p.sinks)[work.head];
        return ptx::reciprocal(sum + ptx::exp2_approximate(ptx::fused_multiply_add(sink, kLog2e, -mla::finite(reference))));
    }

    // Through this warp's own rows of the queries' tile, so that whole rows are stored.
    __device__ __forceinline__ void finish(int32_t warp_row, const mla::PrefillRow& row0, const mla::PrefillRow& row1) {
        const int32_t row = warp_row + static_cast<int32_t>(lane / 4);
        const float factor0 = close(row0, row), factor1 = close(row1, row + 8);
        const uint32_t staged = group * (kTileBytes / 2) + warp * 16 * 128;
#pragma unroll
        for (uint32_t i = 0; i < 16; i += 2) {
            const float* x = output + 4 * i;
            ptx::stmatrix_x4(
                base + staged + (i / 8) * kTileBytes + tile::swizzle_128((lane & 15) * 128 + (i % 8 + (lane >> 4)) * 16),
                pair(x[0] * factor0, x[1] * factor0), pair(x[2] * factor1, x[3] * factor1), pair(x[4] * factor0, x[5] * factor0),
                pair(x[6] * factor1, x[7] * factor1));
        }
        ptx::warp_barrier();
        extern __shared__ __align__(1024) uint8_t shared[];
        uint16_t* const out = reinterpret_cast<uint16_t*>(p.out) + static_cast<int64_t>(work.head) * p.out_head_stride;
        const uint32_t chunk = lane % 16;
#pragma unroll
        for (uint32_t i = 0; i < 16; i += 2) {
            const uint32_t inside = i + lane / 16;
            const int32_t to = warp_row + static_cast<int32_t>(inside);
            const uint4 piece = *reinterpret_cast<const uint4*>(shared + staged + (chunk / 8) * kTileBytes +
                                                                tile::swizzle_128(inside * 128 + chunk % 8 * 16));
            if (to < static_cast<int32_t>(work.queries))
                *reinterpret_cast<uint4*>(out + static_cast<int64_t>(work.tile.query_begin + to) * p.out_token_stride + chunk * 8) =
                    piece;
        }
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 1) NG_ENTRY(const __grid_constant__ NgPrefillParams p) {
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t base = ptx::shared_address(shared);
    const Ring keys{base + kKeyRingAt}, values{base + kValueRingAt};
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.query);
        ptx::prefetch_tensormap(&p.key);
        ptx::prefetch_tensormap(&p.value);
        ptx::mbarrier_init(base + kQueryBarrierAt, 1);
        keys.init(kConsumerWarps);
        values.init(kConsumerWarps);
    }
    __syncthreads();
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();
    const Work work(p);
    const uint32_t warp = ptx::warp_uniform(threadIdx.x / 32);
    if (threadIdx.x < tile::kWarpgroup) {
        ptx::set_max_registers_decrease<24>();
        if (threadIdx.x == 0 && work.tiles > 0) produce(p, work, base, keys, values);
        // One warp looks at all offsets.
        if (warp == 1 && blockIdx.x == 0 && mla::find_tile(Work::sequences(p), 0xFFFFFFFF, kRows).bad && threadIdx.x % 32 == 0)
            ptx::report_status(reinterpret_cast<uint32_t*>(p.status), NG_STATUS_BAD_OFFSETS);
        return;
    }
    ptx::set_max_registers_increase<240>();
    if (!work.tile.exists) return;
    const uint32_t consumer = warp - 4;
    if (p.f16 != 0) {
        Consumer<true> me{p, work, base, keys, values, consumer / 4, consumer % 4, threadIdx.x % 32};
        me.run();
    } else {
        Consumer<false> me{p, work, base, keys, values, consumer / 4, consumer % 4, threadIdx.x % 32};
        me.run();
    }
}
