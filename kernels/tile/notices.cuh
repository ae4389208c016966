// What the thread that copies tiles tells the math warps about each: where it lies. They need not work it out again, nor
// keep it in registers while they multiply.
#pragma once
#include <stdint.h>

#include "ptx/mbarrier.cuh"
#include "ptx/warp.cuh"
#include "tile/groups.cuh"
#include "tile/pipeline.cuh"

namespace ng::tile {

// A ring of notices in shared memory, on its way through it. One side of it a thread.
class Notices {
    static constexpr int kSlots = 4;
    static constexpr uint32_t kSlotBytes = 32;

    uint8_t* slots;
    Pipeline<kSlots> pipeline;
    PipelinePosition<kSlots> at;

    __device__ __forceinline__ uint4* slot() const { return reinterpret_cast<uint4*>(slots + at.stage * kSlotBytes); }

public:
    static constexpr uint32_t kBytes = kSlots * kSlotBytes + Pipeline<kSlots>::kBytes;

    // `shared` is a multiple of 16.
    explicit __device__ __forceinline__ Notices(uint8_t* shared)
        : slots(shared), pipeline{ptx::shared_address(shared) + kSlots * kSlotBytes} {}

    // One thread; the block synchronises afterwards.
    __device__ __forceinline__ void init(uint32_t readers) const { pipeline.init(readers); }

    // One thread: the next tile, or that there is none. Gives back which.
    __device__ __forceinline__ bool put(bool exists, const Tile& tile) {
        pipeline.wait_empty(at);
        uint4* const to = slot();
        to[0] = exists ? make_uint4(1, tile.row, tile.row_end, tile.column) : make_uint4(0, 0, 0, 0);
        if (exists) to[1] = make_uint4(tile.group, tile.batch, tile.k_blocks, 0);
        ptx::mbarrier_arrive(pipeline.full(at.stage));
        at.advance();
        return exists;
    }

    // Whole warps, each of which calls release after it: false when there are no more tiles.
    __device__ __forceinline__ bool wait() const {
        pipeline.wait_full(at);
        return ptx::any(slot()->x != 0);
    }

    // Whether the tile has a row `row`, counted from its first.
    __device__ __forceinline__ bool has_row(uint32_t row) const {
        const uint4 notice = *slot();
        return ptx::any(notice.y + row < notice.z);
    }

    __device__ __forceinline__ Tile tile() const {
        const uint4 first = slot()[0], second = slot()[1];
        return {first.y, first.z, first.w, second.x, second.y, second.z};
    }

    __device__ __forceinline__ void release() {
        ptx::warp_barrier();
        if (ptx::lane_id() == 0) pipeline.release(at);
        at.advance();
    }
};

}  // namespace ng::tile
