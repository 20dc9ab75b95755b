#include "train/adapter_start.h"

#include "base/error.h"
#include "base/text.h"

namespace tptrain::train {

AdapterStart::AdapterStart(const model::Decoder& decoder, const From& from) : seed_(from.seed) {
  std::set<std::string> in_adapter;
  if (from.adapter != nullptr) {
    for (const sharding::TensorInfo& tensor : from.adapter->tensors())
      in_adapter.insert(tensor.name);
  }
  std::vector<parameters::Parameter*> all = decoder.parameters();
  const std::vector<parameters::Parameter*>& packed = decoder.packed_parameters();
  all.insert(all.end(), packed.begin(), packed.end());
  for (const parameters::Parameter* parameter : all) {
    for (const parameters::NamedSlice& slice : parameter->slices) {
      const std::string& name = slice.spec.name;
      Tensor tensor{.info = {.name = name, .shape = slice.spec.global_shape}, .init = slice.init};
      if (in_adapter.count(name) > 0)
        tensor.source = from.adapter;
      else if (!parameter->adapter)
        tensor.source = from.base;
      if (tensors_.emplace(name, tensor).second) order_.push_back(name);
    }
  }
}

std::vector<sharding::TensorInfo> AdapterStart::tensors() const {
  std::vector<sharding::TensorInfo> all;
  for (const std::string& name : order_) all.push_back(tensors_.at(name).info);
  return all;
}

void AdapterStart::read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                              at::Tensor& out) const {
  const auto found = tensors_.find(spec.name);
  if (found == tensors_.end()) {
    throw InternalError(problem(cat("'", spec.name, "' is no tensor of the decoder"))
                            .must("be one of those that it declares"));
  }
  const Tensor& tensor = found->second;
  if (tensor.source != nullptr) return tensor.source->read_slice(spec, begin, end, out);
  sharding::fill_initial(out, spec, begin, end, tensor.init, seed_);
}

}  // namespace tptrain::train
