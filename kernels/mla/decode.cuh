// How the rows and tokens of a decode are handed out: what the scheduler, the attention and the combination agree on.
//
// A sequence's rows (query token x head, flattened) lie in groups of 64 for each block of a cluster; a group's tokens lie
// in blocks of 64. A group's blocks may be cut into pieces, each worked on by one cluster ("worker"). Either every group
// is cut alike (`pieces`), or a scheduler has dealt all blocks of all groups evenly to the workers (`cuts`).
#pragma once
#include <stdint.h>

#include "abi.h"

namespace ng::mla {

constexpr int32_t kRows = 64;    // of one block of threads
constexpr int32_t kTokens = 64;  // of one block of tokens
// What a group costs besides its blocks, in blocks; and the fewest blocks worth a piece of their own.
constexpr int32_t kGroupCost = 3;
constexpr int32_t kLeastPiece = 2;

// One sequence of the batch.
struct Sequence {
    int32_t batch;
    int32_t first;    // query token, where sequences follow each other
    int32_t queries;  // query tokens
    int32_t length;   // cached tokens
    uint32_t status;

    template <class Params>
    __device__ __forceinline__ Sequence(const Params& p, int32_t at) : batch(at), first(0), queries(p.tokens), status(0) {
        const int32_t capacity = p.table_tokens;
        const int32_t given = reinterpret_cast<const int32_t*>(p.lengths)[at];
        length = min(max(given, 0), capacity);
        if (given != length) status |= NG_STATUS_BAD_LENGTH;
        if (p.query_offsets != 0) {
            const int32_t* offsets = reinterpret_cast<const int32_t*>(p.query_offsets) + at;
            const int32_t begin = offsets[0], end = offsets[1];
            first = min(max(begin, 0), p.query_tokens);
            queries = min(max(min(end, p.query_tokens), first) - first, p.tokens);
            if (begin != first || end < begin || queries != end - begin) status |= NG_STATUS_BAD_OFFSETS;
        }
    }

    template <class Params>
    __device__ __forceinline__ int32_t rows(const Params& p) const {
        return queries * p.heads;
    }

    // Number of tokens that a row may see; none where not positive.
    template <class Params>
    __device__ __forceinline__ int32_t visible(const Params& p, int32_t row) const {
        if (row >= rows(p)) return 0;
        return p.causal ? length - queries + row / p.heads + 1 : length;
    }
};

// The rows that one cluster works on at a time.
struct Group {
    Sequence sequence;
    int32_t row;
    int32_t rows;    // of the sequence
    int32_t blocks;  // that the last of the rows sees part of

    template <class Params>
    __device__ __forceinline__ Group(const Params& p, int32_t group) : sequence(p, group / p.groups) {
        row = group % p.groups * (kRows * p.cluster);
        rows = sequence.rows(p);
        const int32_t keys = exists() ? sequence.visible(p, min(row + kRows * p.cluster, rows) - 1) : 0;
        blocks = (max(keys, 0) + kTokens - 1) / kTokens;
    }

    __device__ __forceinline__ bool exists() const { return row < rows; }
};

// Blocks of each piece but the last, where every group is cut alike.
template <class Params>
__device__ __forceinline__ int32_t piece_blocks(const Params& p, int32_t blocks) {
    return p.piece_blocks != 0 ? p.piece_blocks : (blocks + p.pieces - 1) / p.pieces;
}

// The pieces that a worker does, one after the other.
struct Pieces {
    int2 from, to;    // group and block
    int32_t worker;
    int32_t group, begin, end;
    int32_t slot;     // of the partial result; negative where the piece is a whole group

    template <class Params>
    __device__ __forceinline__ Pieces(const Params& p, int32_t worker) : worker(worker) {
        if (p.cuts != 0) {
            const int2* cuts = reinterpret_cast<const int2*>(p.cuts) + worker;
            from = cuts[0];
            to = cuts[1];
        } else {
            from = make_int2(worker / p.pieces, 0);
            to = make_int2(from.x + 1, 0);
        }
        group = from.x - 1;
    }

    // Whether there is another piece.
    template <class Params>
    __device__ __forceinline__ bool next(const Params& p) {
        ++group;
        return group < to.x || (group == to.x && to.y > 0);
    }

    // Whether this worker has anything to do for the group; then begin, end and slot say what.
    template <class Params>
    __device__ __forceinline__ bool takes(const Params& p, const Group& all) {
        if (!all.exists()) return false;
        if (p.cuts != 0) {
            begin = group == from.x ? from.y : 0;
            end = group == to.x ? to.y : all.blocks;
            slot = begin > 0 ? 2 * worker : end < all.blocks ? 2 * worker + 1 : -1;
            return true;
        }
        const int32_t piece = worker % p.pieces;
        const int32_t share = piece_blocks(p, all.blocks);
        begin = piece * share;
        end = min(begin + share, all.blocks);
        slot = all.blocks > share ? worker : -1;
        return begin < end || piece == 0;
    }
};

}  // namespace ng::mla
