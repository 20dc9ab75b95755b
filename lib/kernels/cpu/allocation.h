// How this process's allocator treats large blocks. Not a pool of our own: torch's CPU allocator is
// malloc, and this sets malloc's knobs.
#pragma once

namespace tptrain::kernels::cpu {

/// Makes malloc keep what is freed. A step frees and allocates the same activations again and
/// again; by default glibc gives such blocks back to the kernel each time, and every page is
/// faulted in anew: more time than the elementwise kernels themselves take
/// (benchmarks/kernels_cpu.cpp measures both). Costs: the process never shrinks below its peak.
/// Call once, before the first step of a CPU run. Without effect outside glibc.
void retain_freed_memory();

}  // namespace tptrain::kernels::cpu
