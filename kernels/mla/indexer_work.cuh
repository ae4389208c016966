// Which logits a block of the indexer computes: runs of tiles of keys for a group of query tokens.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "mla/scan.cuh"
#include "ptx/warp.cuh"
#include "tile/rows.cuh"

namespace ng::mla {

// Tiles of keys `tile .. end` of one sequence for the query tokens from `token` on.
struct Segment {
    uint32_t batch, token;
    uint32_t tile, end;
};

// Keys that a query token sees.
struct Visible {
    int32_t begin, end;
};

// The keys of all queries lie in one row; each token may see another range. A block has the tokens from its first on and one
// chunk of tiles. The longest ranges of causal attention are those of the last tokens: they begin first.
template <uint32_t TileKeys>
class RangeWork {
    const NgIndexerLogitsParams& p;
    Segment segment;
    bool left;

public:
    __device__ __forceinline__ RangeWork(const NgIndexerLogitsParams& p, uint32_t tokens_at_once) : p(p) {
        const uint32_t groups = (p.tokens + tokens_at_once - 1) / tokens_at_once;
        const uint32_t token = (groups - 1 - blockIdx.x / p.chunks) * tokens_at_once;
        int32_t begin = p.columns, end = 0;
        for (uint32_t i = 0; i < tokens_at_once; ++i) {
            const Visible one = visible(0, token + i);
            if (one.begin < one.end) {
                begin = min(begin, one.begin);
                end = max(end, one.end);
            }
        }
        const uint32_t first = blockIdx.x % p.chunks * p.chunk_tiles;
        segment = {0, token, max(begin / TileKeys, first), min((end + TileKeys - 1) / TileKeys, first + p.chunk_tiles)};
        left = segment.tile < segment.end;
    }

    __device__ __forceinline__ bool next(Segment& to) {
        to = segment;
        const bool had = left;
        left = false;
        return had;
    }

    __device__ __forceinline__ Visible visible(uint32_t, uint32_t token) const {
        if (token >= p.tokens) return {0, 0};
        const int32_t limit = p.columns;
        const int32_t begin = p.starts != 0 ? tile::pointer<const int32_t>(p.starts)[token] : 0;
        const int32_t end = p.ends != 0 ? tile::pointer<const int32_t>(p.ends)[token] : limit;
        return {min(max(begin, 0), limit), min(max(end, 0), limit)};
    }

    // One warp: whether a bound of this block's tokens had to be pulled into range; of all chunks the first says so.
    __device__ __forceinline__ bool bad(uint32_t tokens_at_once) const {
        const uint32_t token = segment.token + ptx::lane_id();
        if (blockIdx.x % p.chunks != 0 || ptx::lane_id() >= tokens_at_once || token >= p.tokens) return false;
        const Visible seen = visible(0, token);
        return (p.starts != 0 && tile::pointer<const int32_t>(p.starts)[token] != seen.begin) ||
               (p.ends != 0 && tile::pointer<const int32_t>(p.ends)[token] != seen.end);
    }
};

// Every sequence has pages of its own. Blocks share the tiles of all sequences evenly, whatever the lengths: each works out
// where its part begins.
template <uint32_t TileKeys>
class PagedWork {
    const NgIndexerLogitsParams& p;
    uint32_t groups;          // of query tokens, of a sequence
    uint32_t tokens_at_once;
    uint32_t at, tile = 0;    // sequence * groups + group
    uint32_t left = 0;        // tiles

    __device__ __forceinline__ int32_t length(uint32_t batch) const {
        return min(max(tile::pointer<const int32_t>(p.ends)[batch], 0), int32_t(p.columns));
    }

    __device__ __forceinline__ uint32_t tiles(uint32_t index) const {
        return index < p.batch * groups ? (uint32_t(length(index / groups)) + TileKeys - 1) / TileKeys : 0;
    }

public:
    // Whole warps.
    __device__ __forceinline__ PagedWork(const NgIndexerLogitsParams& p, uint32_t tokens_at_once)
        : p(p), groups((p.tokens + tokens_at_once - 1) / tokens_at_once), tokens_at_once(tokens_at_once) {
        const uint32_t count = p.batch * groups, lane = ptx::lane_id();
        uint32_t total = 0;
        for (uint32_t base = 0; base < count; base += 32) total += ptx::warp_sum(tiles(base + lane));
        const uint32_t first = uint32_t(uint64_t(total) * blockIdx.x / gridDim.x);
        left = uint32_t(uint64_t(total) * (blockIdx.x + 1) / gridDim.x) - first;
        at = count;
        uint32_t before = 0;
        for (uint32_t base = 0; left > 0 && base < count; base += 32) {
            const uint32_t own = tiles(base + lane);
            const uint32_t upto = before + scan_warp(own);
            const uint32_t beyond = ptx::ballot(upto > first);
            if (beyond != 0) {
                const uint32_t found = __ffs(beyond) - 1;
                at = base + found;
                tile = first - ptx::shuffle_index(upto - own, found);
                break;
            }
            before = ptx::shuffle_index(upto, 31);
        }
    }

    __device__ __forceinline__ bool next(Segment& to) {
        if (left == 0) return false;
        while (tile == tiles(at)) {
            ++at;
            tile = 0;
        }
        const uint32_t end = min(tile + left, tiles(at));
        to = {at / groups, at % groups * tokens_at_once, tile, end};
        left -= end - tile;
        tile = end;
        return true;
    }

    __device__ __forceinline__ Visible visible(uint32_t batch, uint32_t token) const {
        if (token >= p.tokens) return {0, 0};
        return {0, length(batch) - int32_t(p.tokens - 1 - token)};
    }

    // One warp of the first block: whether a length had to be pulled into range.
    __device__ __forceinline__ bool bad(uint32_t) const {
        bool bad = false;
        for (uint32_t batch = ptx::lane_id(); blockIdx.x == 0 && batch < p.batch; batch += 32) {
            bad |= length(batch) != tile::pointer<const int32_t>(p.ends)[batch];
        }
        return bad;
    }
};

}  // namespace ng::mla
