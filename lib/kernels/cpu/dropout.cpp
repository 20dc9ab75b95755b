// Dropout rows in place: random numbers for 256 elements at a time, which stay in the first-level
// cache.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/philox_block.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

constexpr int64_t kElements = 4 * PhiloxBlock::kCounters;

template <typename T>
TPTRAIN_INLINE void drop(const DropoutRows<T>& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const int64_t sample = args.first_sample + r % args.batch;
    const int64_t position = args.first_position + r / args.batch % args.positions;
    const int64_t head = args.first_head + r / (args.batch * args.positions);
    const int64_t skip = args.first_element % 4;  // words of the first counter
    for (int64_t first = -skip; first < args.width; first += kElements) {
      PhiloxBlock block;
      for (int64_t i = 0; i < PhiloxBlock::kCounters; ++i) {
        block.word[0][i] = static_cast<uint32_t>((args.first_element + first) / 4 + i);
        block.word[1][i] = static_cast<uint32_t>(position);
        block.word[2][i] = static_cast<uint32_t>(sample);
        block.word[3][i] = static_cast<uint32_t>(head);
      }
      philox_block(block, args.key);
      uint32_t words[kElements];
      for (int64_t i = 0; i < PhiloxBlock::kCounters; ++i) {
        for (int64_t word = 0; word < 4; ++word) words[4 * i + word] = block.word[word][i];
      }
      const int64_t drawn_before = first < 0 ? -first : 0;
      T* __restrict row = args.x + r * args.width + first + drawn_before;
      const uint32_t* __restrict word = words + drawn_before;
      const int64_t left = args.width - first;
      const int64_t count = (left < kElements ? left : kElements) - drawn_before;
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) {
        const float kept = widen(row[i]) * args.scale;
        row[i] = narrow<T>(word[i] < args.threshold ? 0.0f : kept);
      }
    }
  }
}

}  // namespace

TPTRAIN_CPU_CLONES
void dropout_rows(const DropoutRows<float>& args, int64_t begin, int64_t end) {
  drop(args, begin, end);
}
TPTRAIN_CPU_CLONES
void dropout_rows(const DropoutRows<Bf16>& args, int64_t begin, int64_t end) {
  drop(args, begin, end);
}

}  // namespace tptrain::kernels::cpu
