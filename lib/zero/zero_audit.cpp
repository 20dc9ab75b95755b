// What audits ask: hashes of the parameters, and their names.
#include <ATen/Functions.h>

#include "base/error.h"
#include "base/text.h"
#include "zero/value_hash.h"
#include "zero/zero_impl.h"

namespace tptrain::zero {

const std::string& ZeroOptimizer::parameter_name(int64_t index) const {
  const auto count = static_cast<int64_t>(impl_->parameter_names.size());
  if (index < 0 || index >= count) {
    throw InternalError(
        problem(cat("name of parameter ", index)).must(cat("be one of ", count, ", from 0")));
  }
  return impl_->parameter_names[index];
}

void ZeroOptimizer::gather_parameters() {
  if (impl_->layout.parameter_buffers == Buffers::shared) {
    throw InternalError(problem("all parameters at once in ZeRO stage 3")
                            .must("be read block by block: memory holds no more than its slots"));
  }
  impl_->finish_update();
  const int blocks = static_cast<int>(impl_->buckets.blocks().size());
  for (int b = 0; b < blocks; ++b) impl_->gatherer.need(b);
}

std::vector<ZeroOptimizer::SliceHash> ZeroOptimizer::hash_parameters() {
  impl_->finish_update();
  std::vector<SliceHash> hashes;
  std::vector<at::Tensor> values;  // on the device until all are queued
  const auto& blocks = impl_->buckets.blocks();
  for (int b = 0; b < static_cast<int>(blocks.size()); ++b) {
    impl_->gatherer.need(b);
    for (const parameters::Parameter* parameter : blocks[b].parameters) {
      const at::Tensor flat = parameter->data.view({-1});
      for (const parameters::NamedSlice& slice : parameter->slices) {
        hashes.push_back(
            {.name = slice.spec.name, .begin = slice.spec.whole() ? -1 : slice.spec.begin});
        values.push_back(value_hash(flat.narrow(0, slice.offset, slice.spec.local_numel())));
      }
    }
  }
  if (values.empty()) return hashes;
  const at::Tensor on_host = at::stack(values).cpu();
  for (size_t i = 0; i < hashes.size(); ++i) {
    hashes[i].hash = static_cast<uint64_t>(on_host.const_data_ptr<int64_t>()[i]);
  }
  return hashes;
}

}  // namespace tptrain::zero
