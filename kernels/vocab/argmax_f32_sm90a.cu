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

// Of a search that has seen nothing: no index is larger than any index, so it loses every tie.
__device__ __forceinline__ Best nothing() { return {ptx::f32_from_bits(0xff800000u), 0xffffffffu}; }

__device__ __forceinline__ bool beats(Best a, Best b) {
    return a.value > b.value || (a.value == b.value && a.index < b.index);
}

// The best of the warp's candidates, in lane 0 alone.
__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
    for (uint32_t delta = 16; delta > 0; delta /= 2) {
        const Best other = {ptx::shuffle_down(best.value, delta), ptx::shuffle_down(best.index, delta)};
        if (beats(other, best)) best = other;
    }
    return best;
}

}  // namespace

extern "C" __global__ void NG_ENTRY(const __grid_constant__ NgArgmaxParams p) {
    __shared__ Best partial[32];
    ptx::grid_dependency_wait();
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const auto* row = tile::pointer<const float>(p.logits) + blockIdx.x * p.logits_row_stride;
    Best best = nothing();
    bool nan = false;
    for (uint32_t i = threadIdx.x; i < p.vocabulary; i += blockDim.x) {
        const Best candidate = {row[i], i};
        nan |= candidate.value != candidate.value;
        if (beats(candidate, best)) best = candidate;
    }
    if (nan) ptx::report_status(tile::pointer<uint32_t>(p.status), NG_STATUS_NAN_SCORE);
    best = warp_best(best);
    if (lane == 0) partial[warp] = best;
    ptx::block_barrier();
    if (warp == 0) {
        best = warp_best(lane < blockDim.x / 32 ? partial[lane] : nothing());
        if (lane == 0) tile::pointer<int32_t>(p.out)[blockIdx.x] = int32_t(best.index);
    }
}
