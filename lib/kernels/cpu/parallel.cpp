#include "kernels/cpu/parallel.h"

#include <omp.h>

#include <algorithm>

namespace tptrain::kernels::cpu {

int64_t piece_count(int64_t count, int64_t grain) {
  if (omp_in_parallel()) return 1;
  const int64_t wanted = count / std::max<int64_t>(grain, 1);
  return std::clamp<int64_t>(wanted, 1, omp_get_max_threads());
}

void run_pieces(int64_t count, int64_t pieces, void (*body)(void*, int64_t, int64_t, int64_t),
                void* context) {
  if (pieces <= 1) {
    body(context, 0, 0, count);
    return;
  }
#pragma omp parallel for num_threads(static_cast <int>(pieces)) schedule(static, 1)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    body(context, piece, count * piece / pieces, count * (piece + 1) / pieces);
  }
}

}  // namespace tptrain::kernels::cpu
