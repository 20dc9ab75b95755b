// Initial values made on a GPU are the CPU's, bit for bit, whatever is cut from a tensor.
#include "sharding/initial_values.h"

#include <ATen/ATen.h>

#include "support/catch.h"

namespace tptrain::sharding {

TEST_CASE("a GPU's initial values are the bits of the CPU's", "[sharding]") {
  const Init init = {.kind = Init::Kind::normal, .std = 0.02};
  const std::vector<ShardSpec> specs = {
      whole_tensor("w", {4'000'001}), slice_of("w", {3001, 701}, 0, 7, 2000),
      slice_of("w", {3001, 701}, 1, 101, 502), slice_of("w", {9, 500, 7}, 1, 3, 450)};
  for (const ShardSpec& spec : specs) {
    for (const int64_t begin : {0, 3}) {
      const int64_t count = spec.local_numel() - begin - 2;
      at::Tensor on_cpu = at::zeros({count});
      at::Tensor on_gpu = at::zeros({count}, at::TensorOptions().device(at::kCUDA));
      fill_initial(on_cpu, spec, begin, begin + count, init, 42);
      fill_initial(on_gpu, spec, begin, begin + count, init, 42);
      CAPTURE(spec.dim, begin);
      CHECK(at::equal(on_gpu.cpu(), on_cpu));
    }
  }
}

}  // namespace tptrain::sharding
