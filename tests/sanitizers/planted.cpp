// What the sanitizers must see in spite of what is left out by name, and one thing that they must
// not take for a fault: planted FAULT, of which the first finds nothing wrong.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <cstdio>
#include <string_view>
#include <vector>

#include "kernels/cpu/parallel.h"

namespace {

constexpr int64_t kRows = 64;

int64_t handed_over_and_back() {
  std::vector<int64_t> values(kRows, 1);
  for (int round = 0; round < 3; ++round) {
    tptrain::kernels::cpu::parallel_rows(kRows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += i;
    });
    for (int64_t& value : values) value *= 2;
  }
  return values.back();
}

int64_t race_in_a_loop() {
  int64_t sum = 0;
  tptrain::kernels::cpu::parallel_rows(kRows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sum += i;
  });
  return sum;
}

__attribute__((noinline)) int64_t leaked_tensor() {
  return at::zeros({kRows}).unsafeReleaseTensorImpl()->numel();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view fault = argc > 1 ? argv[1] : "";
  at::set_num_threads(4);
  int64_t result = 0;
  if (fault == "none") result = handed_over_and_back() + at::ones({kRows}).sum().item<int64_t>();
  if (fault == "race") result = race_in_a_loop();
  if (fault == "leak") result = leaked_tensor();
  std::printf("%s: %ld\n", argv[1], static_cast<long>(result));
  return result > 0 ? 0 : 2;
}
