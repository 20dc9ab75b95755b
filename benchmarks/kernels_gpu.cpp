// bench_kernels_gpu: what the CUDA kernels reach of the memory's speed. Each line: an operation,
// its best time, the bytes it must move a second, and their share of what a device-to-device copy
// of 2 GiB moves on the same device in the same run.
//   build/cuda/benchmarks/bench_kernels_gpu [PART OF A NAME]
// An entry prepares its tensors and returns the work; they are freed before the next entry's.
#include <ATen/ATen.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "optim/adamw.h"
#include "zero/gradient_norm.h"
#include "zero/nonfinite.h"

namespace {

struct Work {
  double bytes = 0;  // read and written, once each
  std::function<void()> run;
};
struct Entry {
  const char* name;
  Work (*prepare)();
};

at::TensorOptions cuda(at::ScalarType type) {
  return at::TensorOptions(at::Device("cuda")).dtype(type);
}

Work copy() {
  const at::Tensor from = at::zeros({int64_t{1} << 28}, cuda(at::kFloat)),
                   to = at::empty_like(from);
  return {.bytes = 2.0 * static_cast<double>(from.nbytes()), .run = [from, to] { to.copy_(from); }};
}

// 2^28 elements in 300 ranges, as the tensors of a model: from 896 elements of a norm up to 10^7,
// every one beginning at a multiple of eight.
constexpr int64_t kElements = int64_t{1} << 28;
std::vector<int64_t> range_sizes() {
  std::vector<int64_t> sizes;
  int64_t left = kElements;
  for (int64_t i = 0; i < 299; ++i) {
    sizes.push_back(i % 3 == 0 ? 896 : (left / (300 - i) + i % 7 * 100'000) / 8 * 8);
    left -= sizes.back();
  }
  sizes.push_back(left);
  return sizes;
}
std::vector<at::Tensor> views_of(const at::Tensor& whole) {
  return whole.split_with_sizes(range_sizes());
}

Work adamw(at::ScalarType master, at::ScalarType moments, bool weights) {
  const std::vector<at::Tensor> masters = views_of(at::ones({kElements}, cuda(master))),
                                exp_avgs = views_of(at::zeros({kElements}, cuda(moments))),
                                exp_avg_sqs = views_of(at::zeros({kElements}, cuda(moments))),
                                gradients = views_of(at::ones({kElements}, cuda(at::kFloat)));
  std::vector<at::Tensor> copies;
  if (weights) copies = views_of(at::zeros({kElements}, cuda(at::kBFloat16)));
  std::vector<tptrain::optim::AdamWRange> ranges;
  for (size_t i = 0; i < masters.size(); ++i) {
    tptrain::optim::AdamWRange range{.master = masters[i],
                                     .exp_avg = exp_avgs[i],
                                     .exp_avg_sq = exp_avg_sqs[i],
                                     .gradient = gradients[i],
                                     .weights = weights ? copies[i] : at::Tensor()};
    range.options.weight_decay = i % 3 == 0 ? 0.0 : 0.1;
    if (master == at::kBFloat16) {
      range.rounding = {tptrain::sharding::whole_tensor("w", {masters[i].numel()}), 0};
    }
    ranges.push_back(std::move(range));
  }
  const double an_element = 2.0 * static_cast<double>(at::elementSize(master)) +
                            4.0 * static_cast<double>(at::elementSize(moments)) + 4.0 +
                            (weights ? 2.0 : 0.0);
  at::Tensor updates = at::zeros({}, cuda(at::kFloat));
  const at::Tensor scale = at::ones({}, cuda(at::kFloat)), finite = at::ones({}, cuda(at::kBool));
  return {.bytes = an_element * static_cast<double>(kElements), .run = [=]() mutable {
            tptrain::optim::adamw_update(ranges, updates, scale, finite, {.learning_rate = 1e-4});
          }};
}

Work sums() {
  const std::vector<at::Tensor> views = views_of(at::ones({kElements}, cuda(at::kFloat)));
  return {.bytes = 4.0 * static_cast<double>(kElements),
          .run = [views] { tptrain::zero::sum_of_squares(views, at::Device("cuda")); }};
}

Work marks() {
  const std::vector<at::Tensor> views = views_of(at::ones({kElements}, cuda(at::kFloat)));
  at::Tensor words = at::zeros({static_cast<int64_t>(views.size())}, cuda(at::kFloat));
  return {.bytes = 4.0 * static_cast<double>(kElements),
          .run = [views, words]() mutable { tptrain::zero::mark_nonfinite(views, words); }};
}

const Entry kEntries[] = {
    {"adamw, fp32", [] { return adamw(at::kFloat, at::kFloat, false); }},
    {"adamw, fp32 and bf16 weights", [] { return adamw(at::kFloat, at::kFloat, true); }},
    {"adamw, bf16 moments", [] { return adamw(at::kFloat, at::kBFloat16, true); }},
    {"adamw, bf16 master", [] { return adamw(at::kBFloat16, at::kBFloat16, false); }},
    {"sum of squares", sums},
    {"marks of inf and nan", marks},
};

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  throw tptrain::InternalError(tptrain::problem(tptrain::cat("CUDA: ", cudaGetErrorString(error))));
}

/// The fastest of many runs, each between two events.
double best_ms(const Work& work) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  for (int i = 0; i < 3; ++i) work.run();
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 20; ++i) {
    check(cudaEventRecord(begin));
    work.run();
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    best = std::min(best, static_cast<double>(ms));
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return best;
}

double rate_of(const char* name, const Work& work, double limit) {
  const double ms = best_ms(work);
  const double rate = work.bytes / ms * 1e-6;
  std::printf("%-32s %9.3f %9.1f %8.1f %%\n", name, ms, rate,
              100.0 * rate / (limit > 0 ? limit : rate));
  std::fflush(stdout);
  return rate;
}

}  // namespace

int main(int argc, char** argv) {
  at::NoGradGuard no_grad;
  const std::string_view wanted = argc > 1 ? argv[1] : "";
  std::printf("%-32s %9s %9s %10s\n", "operation", "ms", "GB/s", "of a copy");
  const double limit = rate_of("copy, device to device", copy(), 0);
  for (const Entry& entry : kEntries) {
    if (std::string_view(entry.name).find(wanted) == std::string_view::npos) continue;
    rate_of(entry.name, entry.prepare(), limit);
  }
  return 0;
}
