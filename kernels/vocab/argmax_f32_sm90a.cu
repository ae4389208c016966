// Index of the largest of each row's values, a block a row. The lowest index wins ties; NaN never wins and is reported; a
// row of nothing but NaN gives -1.
#include "abi.h"
#include "ptx/grid.cuh"
#include "ptx/memory.cuh"
#include "ptx/warp.cuh"
#include "tile/rows.cuh"

using namespace ng;

namespace {

struct Best {
    float value;
    uint32_t index;
};

constexpr uint32_t kNone = 0xffffffffu;

// No index is larger than any index, so an empty candidate loses every tie.
__device__ __forceinline__ bool beats(Best a, Best b) {
    return a.value > b.value || (a.value == b.value && a.index < b.index);
}

__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
    for (uint32_t mask = 16; mask > 0; mask /= 2) {
        const Best other = {ptx::shuffle_xor(best.value, mask), ptx::shuffle_xor(best.index, mask)};
        if (beats(other, best)) best = other;
    }
    return best;
}

}  // namespace

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgArgmaxParams p) {
    __shared__ Best partial[32];
    ptx::grid_dependency_wait();
    const auto* row = tile::pointer<const float>(p.logits) + blockIdx.x * p.logits_row_stride;
    Best best = {ptx::f32_from_bits(0xff800000u), kNone};
    bool nan = false;
    for (uint32_t i = threadIdx.x; i < p.vocabulary; i += blockDim.x) {
        const Best candidate = {row[i], i};
        nan |= candidate.value != candidate.value;
        if (beats(candidate, best)) best = candidate;
    }
    if (nan) ptx::report_status(tile::pointer<uint32_t>(p.status), NG_STATUS_NAN_SCORE);
    best = warp_best(best);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = best;
    ptx::block_barrier();
    if (threadIdx.x == 0) {
        for (uint32_t warp = 1; warp < blockDim.x / 32; ++warp) {
            if (beats(partial[warp], best)) best = partial[warp];
        }
        tile::pointer<int32_t>(p.out)[blockIdx.x] = int32_t(best.index);
    }
}
