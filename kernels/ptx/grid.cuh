// Programmatic dependent launch.
#pragma once

namespace ng::ptx {

// Every kernel calls this before its first global access: earlier grids are complete and flushed after it.
__device__ __forceinline__ void grid_dependency_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

__device__ __forceinline__ void grid_launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace ng::ptx
