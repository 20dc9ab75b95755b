// The weights of linears that do not train, kept in NF4 (kernels/nf4.h) and made anew in the
// compute dtype where a product reads them. Every dp rank holds those of its tp slice whole, at any
// ZeRO stage: they take a quarter of what their bf16 values would.
// Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, section 3.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/nf4.h"
#include "parameters/parameter.h"
#include "sharding/state_dict.h"

namespace tptrain::tensor_parallel {

/// Problems of this rank's slices: a cut within a block would make numbers that depend on the
/// layout. `tp_size`: for the message.
std::vector<Problem> check_nf4_cuts(const std::vector<parameters::Parameter*>& weights,
                                    int64_t tp_size);

class Nf4Base final : public parameters::PackedValues {
 public:
  struct Options {
    at::Device device = at::kCPU;
    at::ScalarType dtype = at::kFloat;  // of products: fp32 or bf16
  };
  /// Allocates the memory of `weights`, which no ParameterStore holds, and binds
  /// Parameter::packed. They must outlive it.
  Nf4Base(std::vector<parameters::Parameter*> weights, const Options& options);
  ~Nf4Base();
  Nf4Base(const Nf4Base&) = delete;

  /// Quantises. Reads every tensor whole, since scales are of all of it, and the own slice again;
  /// in pieces. Throws what the source throws, on the rank that meets it alone.
  void load(const sharding::TensorSource& source);

  /// The weight in the compute dtype, in memory that the next call takes.
  at::Tensor values(const parameters::Parameter& weight) const override;

  /// What a store of these weights allocates, the room for one of them in the compute dtype
  /// included.
  static int64_t bytes(const std::vector<parameters::Parameter*>& weights, at::ScalarType dtype);

 private:
  struct Slice;
  void load_slice(Slice& slice, const sharding::TensorSource& source);

  std::vector<parameters::Parameter*> weights_;
  Options options_;
  std::vector<std::unique_ptr<Slice>> slices_;
  at::Tensor map_;           // fp32 [256], dynamic_map() on the device
  mutable at::Tensor room_;  // of the largest weight
};

}  // namespace tptrain::tensor_parallel
