// Sequences that lie one behind the other, by cumulative lengths on the device.
#pragma once
#include <stdint.h>

#include "ptx/warp.cuh"

namespace ng::mla {

// Offsets of `count` sequences' queries and keys, [count + 1] each. One that falls, is negative or passes the end is
// pulled into range, so that sequences never overlap. Null: one sequence of everything.
struct Sequences {
    const int32_t* query_offsets;
    const int32_t* key_offsets;
    int32_t count, queries, keys;
};

// A tile of the queries of one sequence.
struct QueryTile {
    int32_t query_begin, query_end;  // of the sequence
    int32_t key_begin, key_end;
    int32_t row;  // of the tile within the sequence
    bool exists;
    bool bad;  // an offset seen on the way was out of range
};

// The tile of that number, by a whole warp. The tiles of a sequence count from its end: under a causal mask those have the
// most keys and should start first.
__device__ __forceinline__ QueryTile find_tile(const Sequences& all, uint32_t number, int32_t tile_rows) {
    const uint32_t lane = ptx::lane_id();
    const auto last_of = [](int32_t value) { return static_cast<int32_t>(ptx::shuffle_index(static_cast<uint32_t>(value), 31)); };
    QueryTile tile{0, all.queries, 0, all.keys, 0, false, false};
    int32_t query_before = 0, key_before = 0;
    uint32_t tiles_before = 0;
    if (all.query_offsets != nullptr) {
        query_before = min(max(all.query_offsets[0], 0), all.queries);
        key_before = min(max(all.key_offsets[0], 0), all.keys);
        tile.bad = query_before != all.query_offsets[0] || key_before != all.key_offsets[0];
    }
    for (int32_t first = 0; first < all.count; first += 32) {
        const int32_t sequence = first + static_cast<int32_t>(lane);
        int32_t query_end = all.queries, key_end = all.keys;
        if (all.query_offsets != nullptr) {
            const int32_t at = min(sequence, all.count - 1) + 1;
            const int32_t query_given = all.query_offsets[at], key_given = all.key_offsets[at];
            query_end = min(max(query_given, query_before), all.queries);
            key_end = min(max(key_given, key_before), all.keys);
#pragma unroll
            for (uint32_t step = 1; step < 32; step *= 2) {
                query_end = max(query_end, static_cast<int32_t>(ptx::shuffle_up(static_cast<uint32_t>(query_end), step)));
                key_end = max(key_end, static_cast<int32_t>(ptx::shuffle_up(static_cast<uint32_t>(key_end), step)));
            }
            tile.bad |= ptx::any(query_end != query_given || key_end != key_given);
        }
        int32_t query_begin = static_cast<int32_t>(ptx::shuffle_up(static_cast<uint32_t>(query_end), 1));
        int32_t key_begin = static_cast<int32_t>(ptx::shuffle_up(static_cast<uint32_t>(key_end), 1));
        if (lane == 0) {
            query_begin = query_before;
            key_begin = key_before;
        }
        const uint32_t tiles =
            sequence < all.count ? static_cast<uint32_t>(query_end - query_begin + tile_rows - 1) / tile_rows : 0;
        uint32_t through = tiles;
#pragma unroll
        for (uint32_t step = 1; step < 32; step *= 2) {
            const uint32_t other = ptx::shuffle_up(through, step);
            if (lane >= step) through += other;
        }
        through += tiles_before;
        const uint32_t reached = ptx::ballot(through > number);
        if (reached != 0) {
            const uint32_t at = __ffs(static_cast<int>(reached)) - 1;
            const auto of = [at](int32_t value) { return static_cast<int32_t>(ptx::shuffle_index(static_cast<uint32_t>(value), at)); };
            tile.query_begin = of(query_begin);
            tile.query_end = of(query_end);
            tile.key_begin = of(key_begin);
            tile.key_end = of(key_end);
            tile.row = (of(static_cast<int32_t>(through)) - 1 - static_cast<int32_t>(number)) * tile_rows;
            tile.exists = true;
            return tile;
        }
        query_before = last_of(query_end);
        key_before = last_of(key_end);
        tiles_before = ptx::shuffle_index(through, 31);
    }
    return tile;
}

}  // namespace ng::mla
