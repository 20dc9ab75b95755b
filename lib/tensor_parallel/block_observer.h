// BlockObserver: the one boundary of a block of parameters. ZeRO gathers and frees here, graphs are
// captured here. The model calls it in a fixed order: forward 0..n-1, backward n-1..0. Block b is
// Decoder::blocks()[b].
#pragma once

#include <ATen/core/Tensor.h>

#include "parameters/parameter.h"

namespace tptrain::tensor_parallel {

class BlockObserver {
 public:
  virtual ~BlockObserver() = default;
  virtual void before_forward(int block) = 0;
  virtual void after_forward(int block) = 0;
  virtual void before_backward(int block) = 0;
  /// Every gradient of the block's parameters for this micro-batch is in main_grad (a table that a
  /// later block also uses belongs to both: its own block is the last to add).
  virtual void after_backward(int block) = 0;

  /// Within the forward of block 0: what its table's rows are for `ids` ([T], any shape), [T, H],
  /// zeros for ids of other slices. Here, from the table itself.
  virtual at::Tensor look_up(const parameters::Parameter& table, const at::Tensor& ids);
  /// Within the backward of block 0: its table was looked up at `ids` ([T], any shape), and `rows`
  /// [T, H] is the gradient of what was found. To be added to the table's gradient; here, to
  /// main_grad.
  virtual void add_table_rows(parameters::Parameter& table, at::Tensor rows, const at::Tensor& ids);
};

}  // namespace tptrain::tensor_parallel
