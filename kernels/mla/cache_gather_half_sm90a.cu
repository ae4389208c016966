// Rows of sequences out of the paged latent cache, as 16-bit floats: row r of the output belongs to the sequence whose
// range of `offsets` has it. A warp a row, eight columns a lane and step. A row whose token the cache does not have
// becomes zero and is reported; a row of no sequence stays.
#include "abi.h"
#include "mla/cache.cuh"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"

using namespace ng;

namespace {

constexpr uint32_t kWarps = 4;

// Where a row of the output comes from, the same in all lanes of its warp.
struct Origin {
    bool wanted;
    const uint8_t* token;  // null: the cache does not have it
    uint32_t status;
};

__device__ __forceinline__ Origin origin(const NgCacheGatherParams& p, int32_t row) {
    const auto* offsets = tile::pointer<const int32_t>(p.offsets);
    // The last sequence that begins at the row or before it; of offsets that decrease, some sequence.
    uint32_t low = 0, high = p.sequences;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (offsets[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    const int32_t first = offsets[low];
    if (first < 0 || row < first || row >= offsets[low + 1]) return {false, nullptr, 0};
    const int32_t start = p.starts == 0 ? 0 : tile::pointer<const int32_t>(p.starts)[low];
    const int64_t place = int64_t(start) + (row - first);
    if (start < 0 || place >= int64_t(p.table_pages) * p.page_tokens) return {true, nullptr, NG_STATUS_BAD_LENGTH};
    const uint32_t page = uint32_t(place) / p.page_tokens;
    const int32_t id = tile::pointer<const int32_t>(p.page_table)[low * p.table_stride + page];
    if (id < 0 || uint32_t(id) >= p.cache_pages) return {true, nullptr, NG_STATUS_BAD_PAGE};
    const uint64_t slot = uint64_t(id) * p.page_tokens + uint32_t(place) % p.page_tokens;
    return {true, tile::pointer<const uint8_t>(p.cache) + slot * mla::token_bytes(p.layout), 0};
}

// Columns 8 * piece on of a token.
__device__ __forceinline__ uint4 columns(const NgCacheGatherParams& p, const uint8_t* token, uint32_t piece) {
    const bool rope = piece >= mla::kLatentPieces;
    float values[8];
    if (p.layout == NG_CACHE_FP8_FLAT || (p.layout == NG_CACHE_FP8_BLOCKS && !rope)) {
        const uint2 codes = reinterpret_cast<const uint2*>(token)[piece];
        const float scale = p.layout == NG_CACHE_FP8_FLAT
                                ? p.scale
                                : reinterpret_cast<const float*>(token + mla::kScalesAt)[piece / 16];
        float low[4], high[4];
        mla::decode_quad(codes.x, low);
        mla::decode_quad(codes.y, high);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            values[i] = low[i] * scale;
            values[i + 4] = high[i] * scale;
        }
        return mla::half_octet(values, p.output_f16);
    }
    const uint32_t at = p.layout == NG_CACHE_FP8_BLOCKS ? mla::kRopeAt + (piece - mla::kLatentPieces) * 16 : piece * 16;
    const uint4 octet = *reinterpret_cast<const uint4*>(token + at);
    const bool f16 = p.layout == NG_CACHE_F16;
    if (f16 == (p.output_f16 != 0)) return octet;
    mla::widen(octet, f16, values);
    return mla::half_octet(values, p.output_f16);
}

// Offsets that decrease or leave the rows, found by the first warp.
__device__ __forceinline__ uint32_t check_offsets(const NgCacheGatherParams& p, uint32_t lane) {
    const auto* offsets = tile::pointer<const int32_t>(p.offsets);
    uint32_t status = 0;
    for (uint32_t i = lane; i <= p.sequences; i += 32) {
        const int32_t offset = offsets[i];
        if (offset < (i == 0 ? 0 : offsets[i - 1]) || offset > int64_t(p.rows)) status = NG_STATUS_BAD_OFFSETS;
    }
    return status;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(32 * kWarps) NG_ENTRY(const __grid_constant__ NgCacheGatherParams p) {
    ptx::grid_dependency_wait();
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t row = blockIdx.x * kWarps + threadIdx.x / 32;
    uint32_t status = row == 0 ? check_offsets(p, lane) : 0;
    if (row < p.rows) {
        const Origin from = origin(p, static_cast<int32_t>(row));
        if (lane == 0) status |= from.status;
        if (from.wanted) {
            auto* out = tile::pointer<uint16_t>(p.out) + row * p.out_row_stride;
            for (uint32_t piece = lane; piece < mla::kPieces; piece += 32) {
                const uint4 octet = from.token == nullptr ? make_uint4(0, 0, 0, 0) : columns(p, from.token, piece);
                mla::store_octet(out + piece * 8, p.vectorised, octet);
            }
        }
    }
    if (status != 0) ptx::report_status(tile::pointer<uint32_t>(p.status), status);
}
