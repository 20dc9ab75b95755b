// A source of every tensor of every model: the values training would begin with, made on demand.
// For tests that need some parameters and no file.
#pragma once

#include <cstdint>

#include "sharding/initial_values.h"
#include "sharding/state_dict.h"

namespace tptrain::testing {

class InitialSource final : public sharding::TensorSource {
 public:
  InitialSource(uint64_t seed, double std) : seed_(seed), std_(std) {}
  std::vector<sharding::TensorInfo> tensors() const override { return {}; }
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override {
    const bool norm = spec.name.find("norm") != std::string::npos;
    sharding::fill_initial(
        out, spec, begin, end,
        {.kind = norm ? sharding::Init::Kind::ones : sharding::Init::Kind::normal, .std = std_},
        seed_);
  }

 private:
  uint64_t seed_;
  double std_;
};

}  // namespace tptrain::testing
