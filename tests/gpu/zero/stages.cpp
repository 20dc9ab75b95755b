// ZeRO on GPUs: the checks of the CPU, and the passes that have code of their own on CUDA.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "mpi/zero/stage_comparison.h"
#include "support/catch.h"
#include "zero/gradient_norm.h"
#include "zero/nonfinite.h"
#include "zero/value_hash.h"

namespace tptrain::testing {
namespace {

at::Device gpu() { return {at::kCUDA, static_cast<at::DeviceIndex>(session().local_rank())}; }

TEST_CASE("all stages agree bitwise on GPUs and follow the CPU", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const bool per_micro_batch : {false, true}) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const Setup setup{.layout = layout,
                          .per_micro_batch = per_micro_batch,
                          .head = dtype == at::kFloat ? Head::own_table : Head::tied,
                          .dtype = dtype,
                          .device = comm::DeviceType::cuda,
                          .looks_up = per_micro_batch == (dtype == at::kFloat)};
        INFO(setup.text());
        const std::vector<std::string> complaints = violations(setup);
        INFO(join(complaints, "\n"));
        CHECK(complaints.empty());
      }
    }
  }
}

TEST_CASE("a table whose look-ups come as rows: the rows of others are zeros", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Setup setup{.layout = layout,
                        .head = Head::own_table,
                        .dtype = dtype,
                        .device = comm::DeviceType::cuda,
                        .looks_up = true};
      INFO(setup.text());
      const std::vector<std::string> complaints = violations(setup);
      INFO(join(complaints, "\n"));
      CHECK(complaints.empty());
    }
  }
}

TEST_CASE("bf16 state and a bf16 reduction on GPUs", "[zero]") {
  for (const Layout& layout : layouts()) {
    const Setup setup{.layout = layout,
                      .per_micro_batch = true,
                      .dtype = at::kBFloat16,
                      .reduce_dtype = at::kBFloat16,
                      .moments = config::Dtype::bf16,
                      .masters = config::Dtype::bf16,
                      .device = comm::DeviceType::cuda};
    INFO(setup.text());
    const std::vector<std::string> complaints = violations(setup);
    INFO(join(complaints, "\n"));
    CHECK(complaints.empty());
  }
}

TEST_CASE("bf16 gradients on GPUs", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const bool per_micro_batch : {false, true}) {
      const Setup setup{.layout = layout,
                        .per_micro_batch = per_micro_batch,
                        .dtype = at::kBFloat16,
                        .gradient_dtype = at::kBFloat16,
                        .device = comm::DeviceType::cuda};
      INFO(setup.text());
      const std::vector<std::string> complaints = violations(setup);
      INFO(join(complaints, "\n"));
      CHECK(complaints.empty());
    }
  }
}

TEST_CASE("a non-finite number on a GPU leaves everything as it was and is named", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1, 2, 3}) {
      for (const float poison :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        const Setup setup{.layout = layout, .stage = stage, .device = comm::DeviceType::cuda};
        INFO(setup.text() << ", " << poison);
        GridRun grid(setup);
        grid.step(0);
        const std::vector<at::Tensor> before = grid.snapshot();
        const bool poisoned = session().rank() == session().size() - 1;
        const zero::StepNumbers numbers =
            grid.step(1, {.gradient = [&](int block) {
                        if (!poisoned || block != 2) return;
                        grid.model.parameter("layers.1.qkv").main_grad.view({-1})[11] = poison;
                      }});
        CHECK_FALSE(numbers.finite.item<bool>());
        const auto culprit = numbers.culprit.item<int64_t>();
        CHECK((culprit >= 0) == poisoned);
        if (poisoned) CHECK(grid.buckets.parameter_name(culprit) == "layers.1.qkv");
        CHECK(same_bits(before, grid.snapshot()));
      }
    }
  }
}

TEST_CASE("hashes on a GPU are the CPU's", "[zero]") {
  for (const int64_t numel : {1, 1000, (1 << 20) + 7, 5'000'000}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor values = at::arange(numel).mul(0.37).sin_().to(dtype);
      CHECK(zero::value_hash(values.to(gpu())).item<int64_t>() ==
            zero::value_hash(values).item<int64_t>());
    }
  }
}

// Sizes around packs of four and chunks of 8192, each view behind the last.
std::vector<at::Tensor> views_of(const at::Tensor& values, int64_t first) {
  std::vector<at::Tensor> views;
  for (int64_t i = 0, begin = first; begin < values.numel(); ++i) {
    const std::vector<int64_t> sizes = {1, 896, 3, 8192, 0, 8191, 5, 100'003, 8193, 2, 1 + i % 97};
    const int64_t size = std::min(sizes[i % sizes.size()], values.numel() - begin);
    views.push_back(values.narrow(0, begin, size));
    begin += size;
  }
  return views;
}

TEST_CASE("sums of squares on a GPU: the CPU's, the same bits wherever the views lie", "[zero]") {
  for (const int64_t numel : {1, 1000, (1 << 20) + 7, 5'000'000}) {
    INFO(numel);
    const at::Tensor values = at::arange(numel).to(at::kFloat).mul_(0.37f).sin_().mul_(1e25f);
    const double whole = zero::SumsOfSquares({{values}}, at::kCPU)().item<double>();
    const at::Tensor of_views =
        zero::SumsOfSquares({{values}, {}, views_of(values, 0)}, at::kCPU)();
    at::Tensor first_bits;
    for (const int64_t offset : {0, 1, 2, 4}) {
      at::Tensor moved = at::zeros({numel + offset}, at::TensorOptions().device(gpu()));
      moved.narrow(0, offset, numel).copy_(values);
      const zero::SumsOfSquares sums(
          {{moved.narrow(0, offset, numel)}, {}, views_of(moved, offset)}, gpu());
      const at::Tensor actual = sums().cpu();
      CHECK(at::equal(actual, sums().cpu()));
      if (offset == 0) first_bits = actual;
      CHECK(at::equal(actual, first_bits));
      CHECK(std::abs(actual[0].item<double>() - whole) <= 1e-12 * whole);
      CHECK(actual[1].item<double>() == 0);
      CHECK(std::abs(actual[2].item<double>() - of_views[2].item<double>()) <= 1e-12 * whole);
    }
  }
  const at::Tensor bad = at::full({9000}, std::numeric_limits<float>::infinity()).to(gpu());
  CHECK_FALSE(std::isfinite(zero::SumsOfSquares({{bad}}, gpu())().item<double>()));
}

TEST_CASE("sums of squares do not read rows that nothing has written", "[zero]") {
  // A row is a chunk: where a chunk holds rows of both kinds it is read.
  constexpr int64_t kRows = 50, kColumns = zero::cuda::kChunkElements;
  const at::Tensor values = at::randn({kRows, kColumns}).to(gpu());
  const at::Tensor written =
      (at::arange(kRows, at::kLong).remainder(7) == 3).to(at::kByte).to(gpu());
  const at::Tensor zeros = (values * written.unsqueeze(1)).view({-1});
  const at::Tensor spoilt =
      values.masked_fill(written.eq(0).unsqueeze(1), std::numeric_limits<double>::quiet_NaN())
          .view({-1});
  const at::Tensor other = at::randn({777}).to(gpu());
  const at::Tensor expected = zero::SumsOfSquares({{zeros, other}}, gpu())();
  const at::Tensor received =
      zero::SumsOfSquares({{spoilt, other}}, gpu(), {}, {{written, at::Tensor()}})();
  CHECK(at::equal(received, expected));
}

TEST_CASE("sums of squares and marks of bf16 gradients among fp32 ones", "[zero]") {
  const at::Tensor values = at::arange(300'007).to(at::kFloat).mul_(0.37f).sin_().mul_(1e15f);
  for (const int64_t offset : {0, 1, 2, 4}) {
    at::Tensor wide = at::zeros({values.numel() + offset}, at::TensorOptions().device(gpu()));
    at::Tensor narrow = wide.to(at::kBFloat16);
    for (at::Tensor* tensor : {&wide, &narrow})
      tensor->narrow(0, offset, values.numel()).copy_(values);
    std::vector<at::Tensor> views = views_of(narrow, offset);
    for (const at::Tensor& view : views_of(wide, offset)) views.push_back(view);
    std::vector<at::Tensor> on_cpu;
    for (const at::Tensor& view : views) on_cpu.push_back(view.cpu());
    const double expected = zero::SumsOfSquares({on_cpu}, at::kCPU)().item<double>();
    const zero::SumsOfSquares sums({views}, gpu());
    CHECK(std::abs(sums().item<double>() - expected) <= 1e-12 * expected);
    const at::Tensor marks =
        at::zeros({static_cast<int64_t>(views.size())}, at::TensorOptions().device(gpu()));
    zero::NonfiniteFlags search(views, marks);
    search.update();
    CHECK(at::isfinite(marks).all().item<bool>());
    views[7].narrow(0, 99'999, 1).fill_(std::numeric_limits<float>::infinity());
    search.update();
    CHECK(at::isfinite(marks).logical_not().nonzero().view({-1}).cpu().equal(
        at::full({1}, 7, at::kLong)));
    CHECK_FALSE(std::isfinite(sums().item<double>()));
  }
}

TEST_CASE("inf and nan are found on a GPU in any of many views, and their marks stay", "[zero]") {
  for (const int64_t offset : {0, 1, 3}) {
    at::Tensor values = at::full({400'000}, std::numeric_limits<float>::max()).to(gpu());
    const std::vector<at::Tensor> views = views_of(values, offset);
    const auto count = static_cast<int64_t>(views.size());
    const at::Tensor marks = at::zeros({count}, at::TensorOptions().device(gpu()));
    zero::NonfiniteFlags search(views, marks);
    search.update();
    CHECK(at::isfinite(marks).all().item<bool>());
    // By the pass of the norm as well; every fifth has no word there.
    const at::Tensor of_sums = at::zeros({count}, marks.options());
    std::vector<at::Tensor> words;
    for (int64_t i = 0; i < count; ++i)
      words.push_back(i % 5 == 0 ? at::Tensor() : of_sums.narrow(0, i, 1));
    const zero::SumsOfSquares sums({{}, views}, gpu(), {{}, words});
    sums();
    CHECK(at::isfinite(of_sums).all().item<bool>());
    at::Tensor expected_of_sums = at::ones({count}, at::kBool);
    at::Tensor expected = at::ones({count}, at::kBool);
    for (int64_t i = 0; i < count; i += 7) {
      if (views[i].numel() == 0) continue;
      at::Tensor word = views[i].narrow(0, (i * 5) % views[i].numel(), 1);
      word.fill_(i % 2 == 0 ? std::numeric_limits<float>::quiet_NaN()
                            : -std::numeric_limits<float>::infinity());
      expected[i] = false;
      search.update();
      CHECK(at::equal(at::isfinite(marks).cpu(), expected));
      if (i % 5 != 0) expected_of_sums[i] = false;
      sums();
      CHECK(at::equal(at::isfinite(of_sums).cpu(), expected_of_sums));
      word.fill_(0);
    }
    search.update();
    CHECK(at::equal(at::isfinite(marks).cpu(), expected));
  }
}

}  // namespace
}  // namespace tptrain::testing
