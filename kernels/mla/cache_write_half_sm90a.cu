// New rows of the paged latent cache: 512 latent columns, 64 rotary columns rotated; 72 lanes a token, one block of 96
// threads. Bytes of a token by layout: 16-bit columns | e4m3, scales of 128 columns, 16-bit rotated columns | e4m3. What
// becomes e4m3 is what a 16-bit cache would hold. A slot of -1 is skipped; another slot or a position that does not exist
// is skipped and reported.
#include "abi.h"
#include "mla/cache.cuh"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "tile/rope.cuh"

using namespace ng;

namespace {

__device__ __forceinline__ void write_latent(const NgCacheWriteParams& p, const uint4& octet, uint32_t piece, uint8_t* out) {
    float values[8];
    mla::widen(octet, p.input_f16, values);
    if (p.layout == NG_CACHE_FP8_BLOCKS || p.layout == NG_CACHE_FP8_FLAT) {
        float scale = p.scale;
        if (p.layout == NG_CACHE_FP8_BLOCKS) {
            scale = mla::block_scale(values);
            if (piece % 16 == 0) *reinterpret_cast<float*>(out + mla::kScalesAt + piece / 16 * 4) = scale;
        }
        reinterpret_cast<uint2*>(out)[piece] =
            make_uint2(mla::code_quad(values, scale), mla::code_quad(values + 4, scale));
        return;
    }
    const bool f16 = p.layout == NG_CACHE_F16;
    reinterpret_cast<uint4*>(out)[piece] = f16 == (p.input_f16 != 0) ? octet : mla::half_octet(values, f16);
}

__device__ __forceinline__ void write_rotated(const NgCacheWriteParams& p, const float (&first)[4],
                                              const float (&second)[4], uint32_t piece, uint8_t* out) {
    const bool f16 = p.layout == NG_CACHE_F16;
    const uint2 low = make_uint2(mla::half_pair(first[0], first[1], f16), mla::half_pair(first[2], first[3], f16));
    const uint2 high = make_uint2(mla::half_pair(second[0], second[1], f16), mla::half_pair(second[2], second[3], f16));
    if (p.layout == NG_CACHE_FP8_FLAT) {
        float rounded[8];
        mla::widen(make_uint4(low.x, low.y, high.x, high.y), false, rounded);
        auto* to = reinterpret_cast<uint32_t*>(out + mla::kLatent);
        to[piece] = mla::code_quad(rounded, p.scale);
        to[piece + tile::kRopeLanes] = mla::code_quad(rounded + 4, p.scale);
        return;
    }
    auto* to = reinterpret_cast<uint2*>(out + (p.layout == NG_CACHE_FP8_BLOCKS ? mla::kRopeAt : 2 * mla::kLatent));
    to[piece] = low;
    to[piece + tile::kRopeLanes] = high;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(96) NG_ENTRY(const __grid_constant__ NgCacheWriteParams p) {
    ptx::grid_dependency_wait();
    const uint64_t token = blockIdx.x;
    const int32_t slot = tile::pointer<const int32_t>(p.slots)[token];
    if (slot == -1) return;
    const int32_t position = tile::pointer<const int32_t>(p.positions)[token];
    const uint32_t status = (slot < 0 || uint64_t(slot) >= p.cache_rows ? NG_STATUS_BAD_SLOT : 0) |
                            (uint32_t(position) >= p.max_positions ? NG_STATUS_BAD_POSITION : 0);
    if (status != 0) {
        if (threadIdx.x == 0) ptx::report_status(tile::pointer<uint32_t>(p.status), status);
        return;
    }
    auto* out = tile::pointer<uint8_t>(p.cache) + uint64_t(slot) * mla::token_bytes(p.layout);
    if (threadIdx.x < mla::kLatentPieces) {
        const auto* latent = tile::pointer<const uint16_t>(p.latent) + token * p.latent_row_stride;
        write_latent(p, mla::load_octet(latent + threadIdx.x * 8, p.vectorised), threadIdx.x, out);
    } else if (threadIdx.x < mla::kPieces) {
        const uint32_t piece = threadIdx.x - mla::kLatentPieces;
        const auto* x = tile::pointer<const uint16_t>(p.key_rope) + token * p.key_rope_row_stride;
        const uint64_t table = uint64_t(position) * (tile::kRopeColumns / 2);
        float pairs[8], first[4], second[4];
        mla::widen(mla::load_octet(x + piece * 8, p.vectorised), p.input_f16, pairs);
        tile::rotate_pairs(pairs, tile::pointer<const float>(p.cosines) + table, tile::pointer<const float>(p.sines) + table,
                           piece, first, second);
        write_rotated(p, first, second, piece, out);
    }
}
