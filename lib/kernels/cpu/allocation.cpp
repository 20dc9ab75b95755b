#include "kernels/cpu/allocation.h"

#include <cstdlib>

#ifdef __GLIBC__
#include <malloc.h>

#include <climits>
#endif

namespace tptrain::kernels::cpu {

void retain_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);  // large blocks from the heap, where they are found again, not from mmap
  mallopt(M_TRIM_THRESHOLD, INT_MAX);  // and the heap's top is not handed back
  mallopt(M_TOP_PAD, 64 << 20);        // it grows in large steps
#endif
}

}  // namespace tptrain::kernels::cpu
