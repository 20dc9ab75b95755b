// The SwiGLU feed-forward sublayer: down(silu(gate(x)) * up(x)), gate and up packed into one GEMM.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder_config.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

class Mlp {
 public:
  /// `name` is the sublayer's: "model.layers.0.mlp".
  Mlp(const DecoderConfig& config, const std::string& name, comm::Communicator& tp);

  /// x [S, B, H] whole -> [S, B, H] whole. Collective over tp, in backward too.
  at::Tensor forward(const at::Tensor& x);

  /// In order of use.
  std::vector<sharding::Parameter*> parameters();

 private:
  tensor_parallel::ColumnParallelLinear gate_up_proj_;
  tensor_parallel::RowParallelLinear down_proj_;
};

}  // namespace tptrain::model
