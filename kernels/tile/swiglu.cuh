// The activation of gated layers.
#pragma once
#include <stdint.h>

#include "ptx/math.cuh"

namespace ng::tile {

// silu(gate) * up. A `limit` above zero first cuts the gate from above and up on both sides; NaN stays NaN.
__device__ __forceinline__ float swiglu(float gate, float up, float limit = 0.0f) {
    if (limit > 0.0f) {
        gate = gate > limit ? limit : gate;
        up = up > limit ? limit : up < -limit ? -limit : up;
    }
    const float sigmoid = ptx::reciprocal_approximate(__fadd_rn(1.0f, expf(-gate)));
    return __fmul_rn(__fmul_rn(gate, sigmoid), up);
}

}  // namespace ng::tile
