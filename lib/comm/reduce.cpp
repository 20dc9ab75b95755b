#include "comm/reduce.h"

#include <algorithm>
#include <type_traits>

#include "base/bf16.h"

namespace tptrain::comm {

namespace {

// Elements summed at a time: the running sum (at most 8 KiB) stays in the first-level cache, and
// output may alias a source, because each block is written only after all of its sources are read.
constexpr int64_t kBlock = 1024;

struct Fp32 {
  using Stored = float;
  using Running = float;
  static Running load(Stored x) { return x; }
  static Stored store(Running x) { return x; }
};
struct Bf16 {
  using Stored = uint16_t;
  using Running = float;
  static Running load(Stored x) { return bf16_to_float(x); }
  static Stored store(Running x) { return bf16_of(x); }
};
struct Int64 {
  using Stored = int64_t;
  using Running = uint64_t;  // sums wrap, as everywhere else, instead of being undefined
  static Running load(Stored x) { return static_cast<Running>(x); }
  static Stored store(Running x) { return static_cast<Stored>(x); }
};

template <typename Type, ReduceOp op>
typename Type::Running combine(typename Type::Running a, typename Type::Running b) {
  if constexpr (op == ReduceOp::sum) return a + b;
  if constexpr (std::is_same_v<Type, Int64>) {
    return static_cast<int64_t>(a) > static_cast<int64_t>(b) ? a : b;
  } else {
    return a > b ? a : b;
  }
}

template <typename Type, ReduceOp op>
void reduce_typed(void* output, const void* const* sources, int source_count, int64_t count) {
  using Stored = typename Type::Stored;
  typename Type::Running running[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const Stored* first = static_cast<const Stored*>(sources[0]) + begin;
    for (int64_t i = 0; i < n; ++i) running[i] = Type::load(first[i]);
    for (int s = 1; s < source_count; ++s) {
      const Stored* next = static_cast<const Stored*>(sources[s]) + begin;
      for (int64_t i = 0; i < n; ++i) {
        running[i] = combine<Type, op>(running[i], Type::load(next[i]));
      }
    }
    Stored* out = static_cast<Stored*>(output) + begin;
    for (int64_t i = 0; i < n; ++i) out[i] = Type::store(running[i]);
  }
}

}  // namespace

void reduce_elements(void* output, const void* const* sources, int source_count, int64_t count,
                     Element element, ReduceOp op) {
  const bool sum = op == ReduceOp::sum;
  switch (element) {
    case Element::fp32:
      return sum ? reduce_typed<Fp32, ReduceOp::sum>(output, sources, source_count, count)
                 : reduce_typed<Fp32, ReduceOp::max>(output, sources, source_count, count);
    case Element::bf16:
      return sum ? reduce_typed<Bf16, ReduceOp::sum>(output, sources, source_count, count)
                 : reduce_typed<Bf16, ReduceOp::max>(output, sources, source_count, count);
    case Element::int64:
      return sum ? reduce_typed<Int64, ReduceOp::sum>(output, sources, source_count, count)
                 : reduce_typed<Int64, ReduceOp::max>(output, sources, source_count, count);
  }
}

}  // namespace tptrain::comm
