// Multi-head latent attention in absorbed form for few rows (query token x head): at most ROWS, 8 to 32, of a sequence. The
// operands are swapped, so that nothing is padded to 64 rows: tokens, then latent columns, are on the 64-row side of wgmma
// and the rows are its N. The time of such an attention is the time of its tokens' bytes.
//
// S^T = K Q^T is made by one warpgroup for every block of 64 tokens, with its softmax; O^T += V^T P^T by the other, which
// keeps all 512 columns in registers. Weights go from one to the other through two buffers in shared memory, so that the
// scores of a block are made under the products of the one before. A third warpgroup copies: the tokens of a block are
// three parts of three tiles of 64 columns, in a ring of PARTS, each part copied by a warp of its own.
//
// A row's weights are relative to a reference that follows its largest score only where that has grown by more than 2^8,
// which a vote of the warpgroup finds out after weights were made with the old one. Every row decides for itself, so its
// bits depend on no other, nor on ROWS.
//
// Variants: ROWS, PARTS, QUERY_F16 (of queries and cache), THREADS and SHARED (of the launch).
#include "abi.h"
#include "mla/decode.cuh"
#include "mla/few_answer.cuh"
#include "mla/pages.cuh"
#include "mla/scores.cuh"
#include "ptx/fence.cuh"
#include "ptx/grid.cuh"
#include "ptx/matrix.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/memory.cuh"
#include "ptx/tma.cuh"
#include "ptx/warp.cuh"
#include "ptx/wgmma.cuh"
#include "tile/descriptor.cuh"
#include "tile/swizzle.cuh"

namespace {

using namespace ng;

constexpr int kTiles = 9;  // of 64 columns: 8 latent, 1 rotary
constexpr int kRotary = 8;
constexpr int kPartTiles = 3;  // also the parts of a block
constexpr uint32_t kTileBytes = 64 * 128;
constexpr uint32_t kPartBytes = kPartTiles * kTileBytes;
constexpr uint32_t kRowBytes = ROWS * 128;  // a tile of queries, or the weights of a block
constexpr uint32_t kThreads = 3 * 128;
constexpr int kOctets = ROWS / 8;
constexpr int kOwn = ROWS / 4;  // rows of a thread: two of every eight
static_assert(kThreads == THREADS && kOctets * 8 == ROWS, "the launch has other threads");

constexpr uint32_t kQueryAt = PARTS * kPartBytes;
constexpr uint32_t kWeightsAt = kQueryAt + kTiles * kRowBytes;
constexpr uint32_t kMaximaAt = kWeightsAt + 2 * kRowBytes;  // of each warp
constexpr uint32_t kRescaleAt = kMaximaAt + 4 * ROWS * 4;   // of each buffer of weights
constexpr uint32_t kChangedAt = kRescaleAt + 2 * ROWS * 4;  // of each buffer: whether any of those is not one
constexpr uint32_t kUsableAt = kChangedAt + 8;              // of each part: a bit for each token of its block
constexpr uint32_t kBarriersAt = kUsableAt + PARTS * 8;
static_assert(kBarriersAt + (2 * PARTS + 6) * 8 == SHARED, "the launch gives other shared memory");

extern __shared__ __align__(1024) uint8_t shared[];

// A part of the ring, and the parity of its round.
struct Position {
    uint32_t part = 0, phase = 0;

    __device__ __forceinline__ void advance(uint32_t by) {
        part += by;
        if (part < PARTS) return;
        part -= PARTS;
        phase ^= 1;
    }
};

// A buffer between the two warpgroups, and the parity of its round.
struct Item {
    uint32_t number = 0;

    __device__ __forceinline__ uint32_t buffer() const { return number & 1; }
    __device__ __forceinline__ uint32_t phase() const { return number >> 1 & 1; }
};

struct Shared {
    uint32_t base;

    __device__ __forceinline__ uint32_t part(uint32_t part) const { return base + part * kPartBytes; }
    __device__ __forceinline__ uint32_t weights(uint32_t buffer) const { return base + kWeightsAt + buffer * kRowBytes; }
    __device__ __forceinline__ uint32_t full(uint32_t part) const { return base + kBarriersAt + part * 8; }
    __device__ __forceinline__ uint32_t empty(uint32_t part) const { return full(PARTS + part); }
    __device__ __forceinline__ uint32_t weights_full(uint32_t buffer) const { return full(2 * PARTS + buffer); }
    __device__ __forceinline__ uint32_t weights_empty(uint32_t buffer) const { return full(2 * PARTS + 2 + buffer); }
    __device__ __forceinline__ uint32_t query_full() const { return full(2 * PARTS + 4); }
    __device__ __forceinline__ uint32_t query_empty() const { return full(2 * PARTS + 5); }
    __device__ __forceinline__ uint64_t& usable(uint32_t part) const {
        return *reinterpret_cast<uint64_t*>(shared + kUsableAt + part * 8);
    }
    __device__ __forceinline__ float* rescale(uint32_t buffer) const {
        return reinterpret_cast<float*>(shared + kRescaleAt) + buffer * ROWS;
    }
    __device__ __forceinline__ uint32_t& changed(uint32_t buffer) const {
        return *reinterpret_cast<uint32_t*>(shared + kChangedAt + buffer * 4);
    }
    // At the end of a piece instead of weights: each warp's sums, then the references.
    __device__ __forceinline__ float* statistics(uint32_t buffer) const {
        return reinterpret_cast<float*>(shared + kWeightsAt + buffer * kRowBytes);
    }
};

enum NamedBarrier : uint32_t { kVote = 1, kMaxima = 2 };

__device__ __forceinline__ void arrive(uint32_t barrier, uint32_t lane) {
    ptx::warp_barrier();
    if (lane == 0) ptx::mbarrier_arrive(barrier);
}

// The lower word of a descriptor.
__device__ __forceinline__ uint32_t lower_word(uint32_t address) {
    return ptx::warp_uniform((address & 0x3FFFF) >> 4 | 1u << 16);
}

// Tokens of every block: the tiles number 0, 1 and 2 of a part are these columns' of a block.
__device__ __forceinline__ constexpr int tile_of(int part, int i) {
    return part + i == 0 ? kRotary : part * kPartTiles + i - 1;
}

__device__ __forceinline__ void copy_part(const NgMlaAttentionParams& p, Shared at, int part) {
    const uint32_t lane = threadIdx.x % 32;
    const mla::PagedBlocks<1> pages(p, 0, lane);
    Position position;
    position.advance(part);
    uint32_t status = 0;
    mla::Pieces pieces(p, blockIdx.x);
    while (pieces.next(p)) {
        const mla::Group group(p, pieces.group);
        status |= group.sequence.status;
        if (!pieces.takes(p, group)) continue;
        for (int32_t block = pieces.begin; block < pieces.end; ++block) {
            const mla::BlockPages ids = pages.find(p, group.sequence, block);
            const uint32_t full = at.full(position.part), to = at.part(position.part);
            ptx::mbarrier_wait_parity(at.empty(position.part), position.phase ^ 1);
            if (part == 0) {
                uint64_t usable;
                status |= pages.check(p, group.sequence, block, ids, usable);
                if (lane == 0) at.usable(position.part) = usable;
            }
            const auto tile = [&](int i) { return mla::Tile{to + i * kTileBytes, tile_of(part, i)}; };
            if (pages.tiled()) {
                if (lane == 0) ptx::mbarrier_arrive_expect_tx(full, kPartBytes);
                ptx::warp_barrier();
                pages.copy(p, ids, block, kPartTiles, full, tile);
            } else {
                pages.gather(p, ids, kPartTiles, tile);
                arrive(full, lane);
            }
            position.advance(kPartTiles);
        }
    }
    if (part == 0 && status != 0) ptx::report_status(reinterpret_cast<uint32_t*>(p.status), status);
}

__device__ __forceinline__ void copy_queries(const NgMlaAttentionParams& p, Shared at) {
    const uint32_t lane = threadIdx.x % 32;
    uint32_t phase = 0;
    mla::Pieces pieces(p, blockIdx.x);
    while (pieces.next(p)) {
        const mla::Group group(p, pieces.group);
        if (!pieces.takes(p, group) || pieces.begin == pieces.end) continue;
        ptx::mbarrier_wait_parity(at.query_empty(), phase ^ 1);
        phase ^= 1;
        if (lane == 0) ptx::mbarrier_arrive_expect_tx(at.query_full(), kTiles * kRowBytes);
        ptx::warp_barrier();
        const bool packed = p.query_offsets != 0;
        const int32_t row = packed ? group.sequence.first * p.heads : 0;
        if (lane < kTiles)
            ptx::tma_load_3d(at.base + kQueryAt + lane * kRowBytes, &p.query, at.query_full(), lane * 64, row,
                             packed ? 0 : group.sequence.batch);
    }
}

// The warpgroup that makes scores and weights. A thread has tokens g and g + 8 of its warp's 16, in each of its rows: rows
// 2q and 2q + 1 of every eight, numbers 2 * octet and one more.
struct Scorer {
    const NgMlaAttentionParams& p;
    const Shared at;
    const uint32_t warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;

    float scores[ROWS / 2];
    float weights[ROWS / 2];
    float reference[kOwn];  // the raw score that weights are relative to
    float addend[kOwn];     // so that score * scale + addend is a weight's logarithm
    float sum[kOwn];
    int32_t visible[kOwn];
    int32_t all_visible;  // tokens that every row sees

    static __device__ __forceinline__ int own(int element) { return element / 4 * 2 + element % 2; }
    __device__ __forceinline__ int row(int own) const { return own / 2 * 8 + lane % 4 * 2 + own % 2; }

    __device__ __forceinline__ void begin(const mla::Sequence& sequence) {
        all_visible = sequence.visible(p, 0);
#pragma unroll
        for (int r = 0; r < kOwn; ++r) {
            visible[r] = sequence.visible(p, row(r));
            sum[r] = 0.0f;
            set_reference(r, -mla::kInfinity);
        }
    }

    // References that are far away, or that there are none of yet, make every score look grown; rows that see nothing never do.
    __device__ __forceinline__ void set_reference(int r, float value) {
        reference[r] = value;
        addend[r] = -value * p.scale_log2;
        if (!(fabsf(addend[r]) < mla::kLargeScore)) addend[r] = visible[r] > 0 ? mla::kInfinity : -mla::kInfinity;
    }

    __device__ __forceinline__ void make_scores(Position& position) {
#pragma unroll
        for (int part = 0; part < kPartTiles; ++part) {
            // Of a uniform loop the assembler knows that accumulators may be in flight around it.
            while (!ptx::any(ptx::mbarrier_try_wait_parity(at.full(position.part), position.phase))) {
            }
            const uint32_t tokens = lower_word(at.part(position.part));
            const uint32_t query = lower_word(at.base + kQueryAt);
            if (part == 0) ptx::pin_registers(scores);
            ptx::wgmma_fence();
#pragma unroll
            for (int i = 0; i < kPartTiles; ++i) {
#pragma unroll
                for (int k = 0; k < 4; ++k)
                    ptx::wgmma_half<ROWS, QUERY_F16, 0, 0>(
                        scores, tile::descriptor_of(tokens + (i * kTileBytes + k * 32) / 16),
                        tile::descriptor_of(query + (tile_of(part, i) * kRowBytes + k * 32) / 16), part + i + k != 0);
            }
            position.advance(1);
        }
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<0>();
        ptx::pin_registers(scores);
    }

    // As operand B: rows of 64 tokens.
    __device__ __forceinline__ void store_weights(uint32_t buffer) const {
        uint32_t packed[ROWS / 4];
#pragma unroll
        for (int i = 0; i < ROWS / 4; ++i) packed[i] = mla::pack<QUERY_F16>(weights[2 * i], weights[2 * i + 1]);
        const uint32_t to = at.weights(buffer), chunk = 2 * warp + lane / 8 % 2;
#pragma unroll
        for (int octet = 0; octet + 1 < kOctets; octet += 2)
            ptx::stmatrix_x4_transposed(to + tile::swizzle_128((octet * 8 + lane / 16 * 8 + lane % 8) * 128 + chunk * 16),
                                        packed[2 * octet], packed[2 * octet + 1], packed[2 * octet + 2],
                                        packed[2 * octet + 3]);
        if constexpr (kOctets % 2 == 1)
            ptx::stmatrix_x2_transposed(to + tile::swizzle_128(((kOctets - 1) * 8 + lane % 8) * 128 + chunk * 16),
                                        packed[2 * kOctets - 2], packed[2 * kOctets - 1]);
        ptx::fence_proxy_async_shared();
    }

    // The scores of a block, which are there, to weights in a buffer. `first` is the first part of the block.
    __device__ __forceinline__ void weigh(Position first, int32_t block, Item item) {
        const uint64_t usable = at.usable(first.part);
        const bool hidden = usable != ~0ull || all_visible < (block + 1) * mla::kTokens;
        bool fits = true;
#pragma unroll
        for (int i = 0; i < ROWS / 2; ++i) {
            const float logarithm = ptx::fused_multiply_add(scores[i], p.scale_log2, addend[own(i)]);
            fits = fits && logarithm <= mla::kGrowth;
            weights[i] = ptx::exp2_approximate(logarithm);
        }
        store_weights(item.buffer());
        const bool changes = ptx::barrier_any(kVote, 128, hidden || !fits);
        if (changes) {
            if (hidden) clear_unused(first, usable);
            weigh_anew(usable, block, item.buffer());
            store_weights(item.buffer());
        }
        if (threadIdx.x == 0) at.changed(item.buffer()) = changes;
#pragma unroll
        for (int i = 0; i < ROWS / 2; ++i) sum[own(i)] += weights[i];
        arrive(at.weights_full(item.buffer()), lane);
    }

    // With tokens hidden and references that follow. Rows whose reference stays get the weights they had.
    __device__ __forceinline__ void weigh_anew(uint64_t usable, int32_t block, uint32_t buffer) {
        float largest[kOwn];
#pragma unroll
        for (int i = 0; i < ROWS / 2; ++i) {
            const uint32_t token = 16 * warp + lane / 4 + i % 4 / 2 * 8;
            const bool seen = (usable >> token & 1) && block * mla::kTokens + static_cast<int32_t>(token) < visible[own(i)];
            scores[i] = seen ? mla::finite(scores[i]) : -mla::kInfinity;
        }
        float* maxima = reinterpret_cast<float*>(shared + kMaximaAt);
#pragma unroll
        for (int r = 0; r < kOwn; ++r) {
            const int at_first = r / 2 * 4 + r % 2;
            largest[r] = ptx::maximum(scores[at_first], scores[at_first + 2]);
#pragma unroll
            for (uint32_t step = 4; step < 32; step *= 2)
                largest[r] = ptx::maximum(largest[r], ptx::shuffle_xor(largest[r], step));
            if (lane < 4) maxima[warp * ROWS + row(r)] = largest[r];
        }
        ptx::barrier_sync(kMaxima, 128);
        float subtrahend[kOwn], constant[kOwn];
#pragma unroll
        for (int r = 0; r < kOwn; ++r) {
            const float before = reference[r], shift = -before * p.scale_log2;
            largest[r] = -mla::kInfinity;
#pragma unroll
            for (int i = 0; i < 4; ++i) largest[r] = ptx::maximum(largest[r], maxima[i * ROWS + row(r)]);
            const float growth = fabsf(shift) < mla::kLargeScore
                                     ? ptx::fused_multiply_add(largest[r], p.scale_log2, shift)
                                     : (largest[r] - before) * p.scale_log2;
            set_reference(r, growth > mla::kGrowth ? largest[r] : before);
            const float rescale = mla::weight(before, reference[r], p.scale_log2);
            sum[r] *= rescale;
            if (threadIdx.x < 4) at.rescale(buffer)[row(r)] = rescale;
            const bool near = fabsf(addend[r]) < mla::kLargeScore;
            constant[r] = near ? addend[r] : 0.0f;
            subtrahend[r] = near || reference[r] == -mla::kInfinity ? 0.0f : reference[r];
        }
#pragma unroll
        for (int i = 0; i < ROWS / 2; ++i)
            weights[i] = ptx::exp2_approximate(
                ptx::fused_multiply_add(scores[i] - subtrahend[own(i)], p.scale_log2, constant[own(i)]));
    }

    // The cache past the last token may hold anything, NaN too, and 0 * NaN is NaN: unused values become zero.
    __device__ __forceinline__ void clear_unused(Position first, uint64_t usable) const {
        const uint32_t thread = threadIdx.x % 128;
        const uint32_t tile = 1 + thread / 8 % 8;  // behind the rotary one
        Position position = first;
        position.advance(tile / kPartTiles);
        uint8_t* const values = shared + position.part * kPartBytes + tile % kPartTiles * kTileBytes + thread % 8 * 16;
        for (uint32_t token = thread / 64; token < mla::kTokens; token += 2)
            if (!(usable >> token & 1)) *reinterpret_cast<uint4*>(values + token * 128) = uint4{};
        ptx::fence_proxy_async_shared();
    }

    __device__ __forceinline__ void end(uint32_t buffer) {
        float* const statistics = at.statistics(buffer);
#pragma unroll
        for (int r = 0; r < kOwn; ++r) {
            float total = sum[r];
#pragma unroll
            for (uint32_t step = 4; step < 32; step *= 2) total += ptx::shuffle_xor(total, step);
            if (lane < 4) statistics[warp * ROWS + row(r)] = total;
            if (threadIdx.x < 4) statistics[4 * ROWS + row(r)] = reference[r];
        }
        arrive(at.weights_full(buffer), lane);
    }
};

__device__ __forceinline__ void score(const NgMlaAttentionParams& p, Shared at) {
    Scorer me{p, at};
    Position position;
    Item item;
    uint32_t query_phase = 0;
    mla::Pieces pieces(p, blockIdx.x);
    while (ptx::any(pieces.next(p))) {
        const mla::Group group(p, pieces.group);
        if (!ptx::any(pieces.takes(p, group))) continue;
        const int32_t begin = ptx::warp_uniform(pieces.begin), end = ptx::warp_uniform(pieces.end);
        me.begin(group.sequence);
        if (begin < end) {
            ptx::mbarrier_wait_parity(at.query_full(), query_phase);
            query_phase ^= 1;
        }
        for (int32_t block = begin; block < end; ++block, ++item.number) {
            const Position first = position;
            me.make_scores(position);
            if (block + 1 == end) arrive(at.query_empty(), me.lane);
            ptx::mbarrier_wait_parity(at.weights_empty(item.buffer()), item.phase() ^ 1);
            me.weigh(first, block, item);
        }
        ptx::mbarrier_wait_parity(at.weights_empty(item.buffer()), item.phase() ^ 1);
        me.end(item.buffer());
        ++item.number;
    }
}

// The warpgroup that multiplies values: a thread has columns g and g + 8 of its warp's 16 of each tile.
__device__ __forceinline__ void multiply(const NgMlaAttentionParams& p, Shared at) {
    const uint32_t lane = threadIdx.x % 32;
    Position position;
    Item item;
    float output[8][ROWS / 2];
    mla::Pieces pieces(p, blockIdx.x);
    while (ptx::any(pieces.next(p))) {
        const mla::Group group(p, pieces.group);
        if (!ptx::any(pieces.takes(p, group))) continue;
        const int32_t begin = ptx::warp_uniform(pieces.begin), end = ptx::warp_uniform(pieces.end);
#pragma unroll
        for (int t = 0; t < 8; ++t) {
#pragma unroll
            for (int i = 0; i < ROWS / 2; ++i) output[t][i] = 0.0f;
        }
        for (int32_t block = begin; block < end; ++block, ++item.number) {
            const uint32_t buffer = item.buffer();
            ptx::mbarrier_wait_parity(at.weights_full(buffer), item.phase());
            if (ptx::any(at.changed(buffer) != 0)) mla::rescale_columns<ROWS>(output, at.rescale(buffer), lane);
            const uint32_t weights = lower_word(at.weights(buffer));
            uint32_t parts[kPartTiles], values[kPartTiles];
#pragma unroll
            for (int part = 0; part < kPartTiles; ++part) {
                parts[part] = position.part;
                values[part] = lower_word(at.part(position.part));
                position.advance(1);
            }
#pragma unroll
            for (int t = 0; t < 8; ++t) ptx::pin_registers(output[t]);
            ptx::wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; ++k) {
#pragma unroll
                for (int t = 0; t < 8; ++t) {
                    const uint32_t offset = (t + 1) % kPartTiles * kTileBytes + k * 16 * 128;
                    ptx::wgmma_half<ROWS, QUERY_F16, 1, 0>(
                        output[t], tile::descriptor_of(values[(t + 1) / kPartTiles] + offset / 16),
                        tile::descriptor_of(weights + k * 32 / 16), 1);
                }
            }
            ptx::wgmma_commit_group();
            ptx::wgmma_wait_group<0>();
#pragma unroll
            for (int t = 0; t < 8; ++t) ptx::pin_registers(output[t]);
            arrive(at.weights_empty(buffer), lane);
            if (lane < kPartTiles) {
                const uint32_t part = lane == 0 ? parts[0] : lane == 1 ? parts[1] : parts[2];
                ptx::mbarrier_arrive(at.empty(part));
            }
        }
        ptx::mbarrier_wait_parity(at.weights_full(item.buffer()), item.phase());
        const mla::FewAnswer<ROWS> answer(group, at.statistics(item.buffer()), threadIdx.x / 32 % 4, lane);
        arrive(at.weights_empty(item.buffer()), lane);
        ++item.number;
        if (ptx::any(pieces.slot >= 0)) {
            answer.store_partial(p, pieces.slot, output);
        } else {
            answer.store<QUERY_F16>(p, output);
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1) NG_ENTRY(const __grid_constant__ NgMlaAttentionParams p) {
    const Shared at{ptx::shared_address(shared)};
    if (threadIdx.x == 0) {
        ptx::prefetch_tensormap(&p.query);
        ptx::prefetch_tensormap(&p.cache);
        for (uint32_t part = 0; part < PARTS; ++part) {
            ptx::mbarrier_init(at.full(part), 1);
            ptx::mbarrier_init(at.empty(part), 4);
        }
        for (uint32_t buffer = 0; buffer < 2; ++buffer) {
            ptx::mbarrier_init(at.weights_full(buffer), 4);
            ptx::mbarrier_init(at.weights_empty(buffer), 4);
        }
        ptx::mbarrier_init(at.query_full(), 1);
        ptx::mbarrier_init(at.query_empty(), 4);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();

    const uint32_t warp = ptx::warp_uniform(threadIdx.x / 32);
    if (warp < 4) {
        score(p, at);
    } else if (warp < 8) {
        multiply(p, at);
    } else if (warp < 11) {
        copy_part(p, at, warp - 8);
    } else {
        copy_queries(p, at);
    }
}
