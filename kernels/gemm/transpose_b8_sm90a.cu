// Bytes of matrices transposed, out[c][r] = x[r][c] for each of several matrices: FP8 operands whose K is not their last
// dimension, which the tensor core does not take.
//
// A block moves a tile of 128 x 128. A lane holds four neighbouring columns of four rows, turns these 4 x 4 bytes in its
// registers, and puts words of four rows into shared memory. Words stand there in an order in which a warp meets each bank
// once on both ways. Global memory is read and written in runs of 128 bytes.
#include "abi.h"
#include "ptx/grid.cuh"
#include "tile/rows.cuh"

using namespace ng;

namespace {

constexpr uint32_t kTile = NG_TRANSPOSE_TILE;
constexpr uint32_t kWarps = NG_TRANSPOSE_THREADS / 32;
constexpr uint32_t kQuads = kTile / 4;
static_assert(kQuads == 32, "a lane a word");

// Up to four bytes, those that do not exist as zeros. `words` promises an aligned address.
__device__ __forceinline__ uint32_t load_word(const uint8_t* from, uint32_t left, bool words) {
    if (words && left >= 4) return *reinterpret_cast<const uint32_t*>(from);
    uint32_t word = 0;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        if (i < left) word |= uint32_t(from[i]) << 8 * i;
    }
    return word;
}

__device__ __forceinline__ void store_word(uint8_t* to, uint32_t word, uint32_t left, bool words) {
    if (words && left >= 4) {
        *reinterpret_cast<uint32_t*>(to) = word;
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        if (i < left) to[i] = uint8_t(word >> 8 * i);
    }
}

// Four rows of four bytes become four columns.
__device__ __forceinline__ void turn(uint32_t (&rows)[4]) {
    const uint32_t low[2] = {__byte_perm(rows[0], rows[1], 0x5140), __byte_perm(rows[2], rows[3], 0x5140)};
    const uint32_t high[2] = {__byte_perm(rows[0], rows[1], 0x7362), __byte_perm(rows[2], rows[3], 0x7362)};
    rows[0] = __byte_perm(low[0], low[1], 0x5410);
    rows[1] = __byte_perm(low[0], low[1], 0x7632);
    rows[2] = __byte_perm(high[0], high[1], 0x5410);
    rows[3] = __byte_perm(high[0], high[1], 0x7632);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(NG_TRANSPOSE_THREADS) NG_ENTRY(const __grid_constant__ NgTransposeParams p) {
    __shared__ uint32_t words[kTile * kQuads];
    ptx::grid_dependency_wait();
    ptx::grid_launch_dependents();
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t row_tiles = (p.rows + kTile - 1) / kTile, column_tiles = (p.columns + kTile - 1) / kTile;
    const uint32_t band = blockIdx.x / column_tiles;
    const uint32_t first_column = (blockIdx.x - band * column_tiles) * kTile;
    const uint32_t batch = band / row_tiles;
    const uint32_t first_row = (band - batch * row_tiles) * kTile;
    const uint32_t rows = min(p.rows - first_row, kTile), columns = min(p.columns - first_column, kTile);

    const uint32_t column = lane * 4;
    const auto* const x = tile::pointer<const uint8_t>(p.x) + batch * p.x_batch_stride + first_row * p.x_row_stride +
                          first_column + column;
    const uint32_t columns_left = column < columns ? columns - column : 0;
    uint32_t held[kQuads / kWarps][4];
#pragma unroll
    for (uint32_t i = 0; i < kQuads / kWarps; ++i) {
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j) {
            const uint32_t row = (i * kWarps + warp) * 4 + j;
            held[i][j] = row < rows ? load_word(x + row * p.x_row_stride, columns_left, p.x_words) : 0;
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < kQuads / kWarps; ++i) {
        turn(held[i]);
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j) words[(column + j) * kQuads + ((i * kWarps + warp) ^ lane)] = held[i][j];
    }
    __syncthreads();

    const uint32_t row = lane * 4;
    const uint32_t rows_left = row < rows ? rows - row : 0;
    auto* const out = tile::pointer<uint8_t>(p.out) + batch * p.out_batch_stride + first_column * p.out_row_stride +
                      first_row + row;
#pragma unroll 4
    for (uint32_t at = warp; at < columns; at += kWarps) {
        store_word(out + at * p.out_row_stride, words[at * kQuads + (lane ^ at / 4)], rows_left, p.out_words);
    }
}
