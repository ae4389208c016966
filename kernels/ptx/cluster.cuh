// Clusters: blocks that run together and reach each other's shared memory (PTX ISA 9.7.13.4, 9.7.9.22).
#pragma once
#include <stdint.h>

namespace ng::ptx {

__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Blocks of this cluster; 1 where the launch asked for none.
__device__ __forceinline__ uint32_t cluster_size() {
    uint32_t size;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return size;
}

// Every thread of every block of the cluster; what they wrote before is seen by all after.
__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The address that names, in block `rank`, what `shared` names here.
__device__ __forceinline__ uint32_t cluster_address(uint32_t shared, uint32_t rank) {
    uint32_t address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared), "r"(rank));
    return address;
}

// `address` is one of cluster_address.
__device__ __forceinline__ uint32_t cluster_load_u32(uint32_t address) {
    uint32_t value;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}

// The same.
__device__ __forceinline__ float4 cluster_load_f32x4(uint32_t address) {
    float4 values;
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(values.x), "=f"(values.y), "=f"(values.z), "=f"(values.w)
                 : "r"(address)
                 : "memory");
    return values;
}

// Arrival at a barrier of any block of the cluster; it releases to the whole cluster.
__device__ __forceinline__ void cluster_mbarrier_arrive(uint32_t address) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(address) : "memory");
}

// The same at no cost of a fence: it releases to its own block, and in another frees what only copies write.
__device__ __forceinline__ void cluster_mbarrier_release(uint32_t address) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(address) : "memory");
}

// A wait on this block's own barrier for arrivals from the whole cluster.
__device__ __forceinline__ void cluster_mbarrier_wait_parity(uint32_t barrier, uint32_t parity) {
    uint32_t done;
    do {
        asm volatile(
            "{\n\t.reg .pred p;\n\t"
            "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
            "selp.u32 %0, 1, 0, p;\n\t}"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
    } while (done == 0);
}

}  // namespace ng::ptx
