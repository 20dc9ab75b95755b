// The values that a run with adapters begins with: the base's from its source, or drawn; the
// adapters' drawn, or from an adapter that is there.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "sharding/initial_values.h"
#include "sharding/state_dict.h"

namespace tptrain::train {

class AdapterStart final : public sharding::TensorSource {
 public:
  /// null: drawn from the seed. Of `adapter` every tensor counts, also one that `base` has.
  struct From {
    const sharding::TensorSource* base = nullptr;
    const sharding::TensorSource* adapter = nullptr;
    uint64_t seed = 0;
  };
  AdapterStart(const model::Decoder& decoder, const From& from);

  std::vector<sharding::TensorInfo> tensors() const override;
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override;

 private:
  struct Tensor {
    sharding::TensorInfo info;
    sharding::Init init;
    const sharding::TensorSource* source = nullptr;  // null: drawn
  };
  uint64_t seed_;
  std::vector<std::string> order_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace tptrain::train
