// A base model with its adapter added in, as a source of canonical tensors: what export --merge
// writes, and what evaluate and generate read. W + scale * B A is summed in fp32 and rounded by
// whoever puts it down: once.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "model/decoder_config.h"
#include "sharding/state_dict.h"

namespace tptrain::adapters {

class MergedSource final : public sharding::TensorSource {
 public:
  /// `base`: the model's tensors; `adapter`: A, B and the modules that trained whole.
  MergedSource(std::unique_ptr<sharding::TensorSource> base,
               std::unique_ptr<sharding::TensorSource> adapter, const model::DecoderConfig& decoder,
               const config::AdapterConfig& config);

  /// The base's.
  std::vector<sharding::TensorInfo> tensors() const override;
  /// Each element's sum is made in the same order, whatever slice it is read in. Throws what the
  /// two sources throw.
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override;

 private:
  struct Factors {
    std::string a;  // [r, in]
    std::string b;  // [out, r]
  };
  void add_product(const Factors& factors, const sharding::ShardSpec& spec, int64_t begin,
                   int64_t end, at::Tensor& out) const;

  std::unique_ptr<sharding::TensorSource> base_;
  std::unique_ptr<sharding::TensorSource> adapter_;
  std::map<std::string, Factors> adapted_;  // by the weight's name
  std::set<std::string> replaced_;          // tensors that trained whole
  int64_t rank_;
  float scale_;
};

}  // namespace tptrain::adapters
