// AdamW on CUDA against the loop on the CPU from the same numbers: every pair of types, ranges that
// begin anywhere, tiny and large ones in one update, steps that are not finite between others; and
// an update captured once in a CUDA graph.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "optim/adamw_reference.h"

using namespace tptrain::optim;
using namespace tptrain::testing;
using tptrain::sharding::slice_of;
using tptrain::sharding::whole_tensor;

namespace {

struct Types {
  at::ScalarType master;
  at::ScalarType moments;
  bool weights;
  at::ScalarType gradient = at::kFloat;
};
std::vector<Types> all_types() {
  std::vector<Types> types;
  for (const at::ScalarType master : {at::kFloat, at::kBFloat16}) {
    for (const at::ScalarType moments : {at::kFloat, at::kBFloat16}) {
      for (const bool weights : {false, true}) types.push_back({master, moments, weights});
      types.push_back({master, moments, master == at::kFloat, at::kBFloat16});
    }
  }
  return types;
}

/// Buffers that ranges lie in one behind the other, with a gap of `gap` elements before each.
struct Buffers {
  at::Tensor master, exp_avg, exp_avg_sq, gradient, weights;
  std::vector<UpdateRange> ranges;

  Buffers(const std::vector<int64_t>& sizes, int64_t gap, const Types& types, at::Device where) {
    int64_t numel = 0;
    for (const int64_t size : sizes) numel += size + gap;
    const at::TensorOptions on(where);
    master = normal({numel}, 50).to(where, types.master);
    exp_avg = (normal({numel}, 51) * 0.01).to(where, types.moments);
    exp_avg_sq = (normal({numel}, 52) * 0.01).square().to(where, types.moments);
    gradient = at::zeros({numel}, on.dtype(types.gradient));
    weights = at::full({numel}, 7.0, on.dtype(at::kBFloat16));
    int64_t begin = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      begin += gap;
      const auto of = [&](const at::Tensor& tensor) { return tensor.narrow(0, begin, sizes[i]); };
      UpdateRange range{
          .master = of(master), .slots = {of(exp_avg), of(exp_avg_sq)}, .gradient = of(gradient)};
      if (types.weights) range.weights = of(weights);
      range.options.weight_decay = i % 2 == 0 ? 0.1 : 0.0;
      if (i % 3 == 0) range.options.learning_rate_scale = 0.5;
      if (types.master == at::kBFloat16) {
        // Whole tensors, rows, and columns that begin anywhere in a group of eight; every other one
        // of the first two at the begin of one.
        const int64_t n = sizes[i];
        range.rounding =
            RoundingSite{i % 3 == 0   ? whole_tensor("a.weight", {n + (i % 2 == 0 ? 8 : 5)})
                         : i % 3 == 1 ? slice_of("b.weight", {3, n, 2}, 0, 1, 2)
                                      : slice_of("c.weight", {n + 2, 29}, 1, 3, 16),
                         static_cast<int64_t>(i % 3 == 0 ? i % 6 : i % 2)};
      }
      ranges.push_back(std::move(range));
      begin += sizes[i];
    }
  }
  std::vector<at::Tensor> state() const { return {master, exp_avg, exp_avg_sq, weights}; }
};

// The same operations in the same order, both without fused multiply-add; the constants come from
// two libraries' pow.
void check_alike(const Buffers& ours, const Buffers& twin, const Types& types) {
  CHECK(same_bits(ours.gradient, twin.gradient));
  const double moments = types.moments == at::kFloat ? 1e-6 : 4e-3;
  CHECK_CLOSE(ours.exp_avg, twin.exp_avg, moments);
  CHECK_CLOSE(ours.exp_avg_sq, twin.exp_avg_sq, moments);
  for (const auto& [a, b] :
       {std::pair(ours.exp_avg, twin.exp_avg), std::pair(ours.exp_avg_sq, twin.exp_avg_sq),
        std::pair(ours.master, twin.master), std::pair(ours.weights, twin.weights)}) {
    // Where a last bit of fp32 differs a rounding to bf16 may: once in some ten thousand.
    if (a.scalar_type() != at::kBFloat16) continue;
    CHECK(a.cpu().ne(b).to(at::kDouble).mean().item<double>() < 1e-3);
  }
  CHECK_CLOSE(ours.master, twin.master, types.master == at::kFloat ? 1e-6 : 8e-3);
  CHECK_CLOSE(ours.weights, twin.weights, 8e-3);
}

void check_updates(const std::vector<int64_t>& sizes, int64_t gap, const Types& types) {
  CAPTURE(sizes.size(), gap, types.weights, at::toString(types.master), at::toString(types.moments),
          at::toString(types.gradient));
  Buffers ours(sizes, gap, types, device()), twin(sizes, gap, types, at::kCPU);
  AdamWUpdate adamw(ours.ranges, {.device = device(), .seed = 5});
  AdamWUpdate on_cpu(twin.ranges, {.device = at::kCPU, .seed = 5});
  const at::Tensor updates = scalar(0.0), cpu_updates = at::zeros({});
  for (uint64_t t = 1; t <= 4; ++t) {
    Numbers numbers{
        .learning_rate = 1e-2 / static_cast<double>(t), .gradient_scale = 0.7, .finite = t != 3};
    twin.gradient.copy_(normal({twin.gradient.numel()}, 60 + t, 0.1));
    if (!numbers.finite) twin.gradient.fill_(std::numeric_limits<double>::quiet_NaN());
    ours.gradient.copy_(twin.gradient);
    std::vector<at::Tensor> before;
    for (const at::Tensor& tensor : ours.state()) before.push_back(tensor.clone());
    adamw.update(step_of(updates, numbers));
    on_cpu.update(step_of(cpu_updates, numbers));
    if (numbers.finite) continue;
    for (size_t i = 0; i < before.size(); ++i) CHECK(same_bits(ours.state()[i], before[i]));
  }
  CHECK(updates.item<float>() == 3.0f);
  check_alike(ours, twin, types);
}

}  // namespace

TEST_CASE("three updates on CUDA are the CPU's, for every type and alignment", "[optim]") {
  std::vector<int64_t> sizes = {1, 2, 3, 4, 5, 7, 8, 31, 896, 2047, 2048, 2049, 4096, 70001};
  for (int64_t i = 0; i < 60; ++i) sizes.push_back(100 + 61 * i);
  for (const Types& types : all_types()) {
    for (const int64_t gap : {0, 1, 2, 4, 8}) check_updates(sizes, gap, types);
  }
}

TEST_CASE("ranges of ten million elements beside tiny ones", "[optim]") {
  for (const Types& types :
       {Types{at::kFloat, at::kFloat, true}, Types{at::kBFloat16, at::kBFloat16, false}}) {
    check_updates({3, 10'000'000, 896}, 0, types);
    check_updates({10'000'000, 3, 896}, 0, types);  // of bf16 masters: in words
  }
}

TEST_CASE("more ranges than travel with one launch", "[optim]") {
  for (const at::ScalarType moments : {at::kFloat, at::kBFloat16}) {
    for (const at::ScalarType gradient : {at::kFloat, at::kBFloat16})
      check_updates(std::vector<int64_t>(160, 2056), 0,
                    {at::kBFloat16, moments, gradient == at::kFloat, gradient});
  }
}

// What quick roots and quotients do not take: eights of it go the exact way, beside others.
TEST_CASE("moments that are zero, tiny or huge beside plain ones, of bf16 masters", "[optim]") {
  const Types types{at::kBFloat16, at::kBFloat16, false};
  Buffers ours({8192, 4096}, 0, types, device()), twin({8192, 4096}, 0, types, at::kCPU);
  const double odd[][2] = {{0.0, 0.0},    {0.0, 1e-3},   {1e-38, 1e-36}, {1e30, 1e30},
                           {-1e20, 1e38}, {1e-3, 1e-38}, {-0.0, 0.0},    {1e-33, 1e-30}};
  for (Buffers* buffers : {&ours, &twin}) {
    buffers->gradient.copy_(normal({12288}, 71, 0.1));
    for (int64_t i = 0; i < 8; ++i) {
      // A whole eight, and one element among plain ones.
      for (const auto& [first, count] :
           {std::pair<int64_t, int64_t>(512 * i, 8), {512 * i + 99, 1}}) {
        buffers->exp_avg.narrow(0, first, count).fill_(odd[i][0]);
        buffers->exp_avg_sq.narrow(0, first, count).fill_(odd[i][1]);
        buffers->gradient.narrow(0, first, count).fill_(0.0);
      }
    }
    AdamWUpdate(buffers->ranges, {.device = buffers->master.device(), .seed = 5})
        .update(step_of(at::zeros({}, buffers->gradient.options()), {.learning_rate = 1e-2}));
  }
  for (const auto& [a, b] :
       {std::pair(ours.master, twin.master), std::pair(ours.exp_avg, twin.exp_avg),
        std::pair(ours.exp_avg_sq, twin.exp_avg_sq)})
    CHECK(a.cpu().ne(b).to(at::kDouble).sum().item<double>() <= 4);
}

TEST_CASE("rows of a gradient that nothing has written are zeros, and not read", "[optim]") {
  // A row is a chunk: where a chunk holds rows of both kinds it is read.
  constexpr int64_t kRows = 40, kColumns = 2048;
  for (const Types& types : all_types()) {
    CAPTURE(types.weights, at::toString(types.master), at::toString(types.gradient));
    Buffers ours({kRows * kColumns}, 0, types, device()),
        twin({kRows * kColumns}, 0, types, at::kCPU);
    const at::Tensor written = (at::arange(kRows, at::kLong).remainder(5) == 2).to(at::kByte);
    const at::Tensor values = normal({kRows, kColumns}, 72, 0.1);
    twin.gradient.copy_((values * written.unsqueeze(1)).view({-1}));
    ours.gradient.copy_(at::where(written.unsqueeze(1).to(at::kBool), values,
                                  at::full_like(values, std::numeric_limits<double>::quiet_NaN()))
                            .view({-1}));
    ours.ranges[0].written_rows = written.to(device());
    for (Buffers* buffers : {&ours, &twin})
      AdamWUpdate(buffers->ranges, {.device = buffers->master.device(), .seed = 5})
          .update(step_of(at::zeros({}, buffers->master.device()), {.learning_rate = 1e-2}));
    twin.gradient.copy_(ours.gradient);  // of which check_alike wants the same bits
    check_alike(ours, twin, types);
  }
}

TEST_CASE("arrays that are not aligned alike are updated as well", "[optim]") {
  const Types types{at::kFloat, at::kFloat, true};
  Buffers ours({5000}, 8, types, device()), twin({5000}, 8, types, at::kCPU);
  for (Buffers* buffers : {&ours, &twin}) {
    UpdateRange& range = buffers->ranges[0];
    range.slots[0] = buffers->exp_avg.narrow(0, 7, 5000);
    range.gradient = buffers->gradient.narrow(0, 6, 5000);
    range.weights = buffers->weights.narrow(0, 3, 5000);
    buffers->gradient.copy_(normal({5008}, 70, 0.1));
    AdamWUpdate(buffers->ranges, {.device = buffers->master.device()})
        .update(step_of(at::zeros({}, buffers->gradient.options()), {.learning_rate = 1e-2}));
  }
  check_alike(ours, twin, types);
}

TEST_CASE("a captured update takes the learning rate, the flag and the counter of its replay",
          "[optim]") {
  const Types types{at::kFloat, at::kFloat, true};
  const std::vector<int64_t> sizes = {896, 5000, 3};
  Buffers ours(sizes, 0, types, device()), twin(sizes, 0, types, at::kCPU);
  AdamWUpdate adamw(ours.ranges, {.device = device()}), on_cpu(twin.ranges, {});
  const at::Tensor updates = scalar(0.0), cpu_updates = at::zeros({});
  const UpdateStep step = step_of(updates, {});
  step.finite.fill_(false);
  adamw.update(step);  // a kernel is loaded by its first launch, which a capture may not do
  at::cuda::CUDAGraph graph;
  {
    const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
    graph.capture_begin();
    adamw.update(step);
    graph.capture_end();
  }
  for (uint64_t t = 1; t <= 4; ++t) {
    const Numbers numbers{.learning_rate = 1e-3 * static_cast<double>(t),
                          .gradient_scale = 1.0 / static_cast<double>(t),
                          .finite = t != 2};
    twin.gradient.copy_(normal({twin.gradient.numel()}, 80 + t, 0.1));
    ours.gradient.copy_(twin.gradient);
    step.learning_rate.fill_(numbers.learning_rate);
    step.gradient_scale.fill_(numbers.gradient_scale);
    step.finite.fill_(numbers.finite);
    graph.replay();
    on_cpu.update(step_of(cpu_updates, numbers));
  }
  CHECK(updates.item<float>() == 3.0f);
  check_alike(ours, twin, types);
}
