// Row ranges over the threads of torch's pool (at::set_num_threads). Not at::parallel_for: that is
// a header template which runs on one thread, without a word, in every file compiled without
// -fopenmp.
#pragma once

#include <cstdint>

namespace tptrain::kernels::cpu {

/// How many pieces parallel_pieces makes of `count` rows, at least `grain` rows each: a function of
/// these and the thread count alone, so the order of every sum is the same from run to run.
int64_t piece_count(int64_t count, int64_t grain);
/// Calls body(context, piece, begin, end) for `pieces` contiguous ranges that cover [0, count); one
/// piece is a plain call. body must not throw.
void run_pieces(int64_t count, int64_t pieces,
                void (*body)(void* context, int64_t piece, int64_t begin, int64_t end),
                void* context);

/// body(piece, begin, end)
template <typename Body>
void parallel_pieces(int64_t count, int64_t pieces, Body body) {
  run_pieces(
      count, pieces,
      [](void* context, int64_t piece, int64_t begin, int64_t end) {
        (*static_cast<Body*>(context))(piece, begin, end);
      },
      &body);
}
/// body(begin, end)
template <typename Body>
void parallel_rows(int64_t count, int64_t grain, Body body) {
  parallel_pieces(count, piece_count(count, grain),
                  [&](int64_t, int64_t begin, int64_t end) { body(begin, end); });
}

/// Rows of `row_elements` that are worth a thread of their own (as at::internal::GRAIN_SIZE).
inline int64_t grain_of(int64_t row_elements) {
  return row_elements >= 32768 ? 1 : 32768 / (row_elements > 0 ? row_elements : 1);
}

}  // namespace tptrain::kernels::cpu
