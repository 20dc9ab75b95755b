// ZeRO on GPUs: the checks of the CPU, and the passes that have code of their own on CUDA.
#include <ATen/ATen.h>

#include <cmath>
#include <limits>

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
                          .device = comm::DeviceType::cuda};
        INFO(setup.text());
        const std::vector<std::string> complaints = violations(setup);
        INFO(join(complaints, "\n"));
        CHECK(complaints.empty());
      }
    }
  }
}

TEST_CASE("bf16 state and a bf16 reduction on GPUs", "[zero]") {
  for (const Layout& layout : layouts()) {
    const Setup setup{.layout = layout,
                      .per_micro_batch = true,
                      .dtype = at::kBFloat16,
                      .reduce_dtype = at::kBFloat16,
                      .moments = "bf16",
                      .masters = "bf16",
                      .device = comm::DeviceType::cuda};
    INFO(setup.text());
    const std::vector<std::string> complaints = violations(setup);
    INFO(join(complaints, "\n"));
    CHECK(complaints.empty());
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
        if (poisoned) CHECK(grid.zero.parameter_name(culprit) == "layers.1.qkv");
        CHECK(same_bits(before, grid.snapshot()));
      }
    }
  }
}

TEST_CASE("hashes, marks and sums of squares on a GPU are the CPU's", "[zero]") {
  for (const int64_t numel : {1, 1000, (1 << 20) + 7, 5'000'000}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor values = at::arange(numel).mul(0.37).sin_().to(dtype);
      CHECK(zero::value_hash(values.to(gpu())).item<int64_t>() ==
            zero::value_hash(values).item<int64_t>());
    }
    const at::Tensor values = at::arange(numel).to(at::kFloat).mul_(0.37f).sin_().mul_(1e25f);
    const double expected = zero::sum_of_squares({values}, at::kCPU).item<double>();
    const double actual = zero::sum_of_squares({values.to(gpu())}, gpu()).item<double>();
    CHECK(std::abs(actual - expected) <= 1e-12 * expected);

    for (const float poison :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      at::Tensor marks = at::zeros({3}, at::TensorOptions().device(gpu()));
      at::Tensor bad = at::full({numel}, std::numeric_limits<float>::max()).to(gpu());
      const std::vector<at::Tensor> gradients = {at::ones({5}).to(gpu()), bad,
                                                 at::zeros({3}).to(gpu())};
      zero::mark_nonfinite(gradients, marks);
      CHECK(at::isfinite(marks).all().item<bool>());
      bad[numel / 2] = poison;
      zero::mark_nonfinite(gradients, marks);
      bad[numel / 2] = 0;
      zero::mark_nonfinite(gradients, marks);  // a mark stays
      CHECK(at::equal(at::isfinite(marks).cpu(), at::tensor({1, 0, 1}).to(at::kBool)));
    }
  }
}

}  // namespace
}  // namespace tptrain::testing
