// Where a token stands, in the two ways a decoder knows it: angles of the rotary embedding, or a
// learned table that is whole on every tp rank and added to the tokens' embeddings.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder_config.h"
#include "parameters/parameter.h"
#include "tensor_parallel/sequence_region.h"

namespace tptrain::model {

/// Angles a position of the pairs of a head, [head_dim / 2], scaled as the config says. Sources: Su
/// et al., "RoFormer", 2021; Chen et al., "Extending Context Window of Large Language Models via
/// Positional Interpolation", 2023 (linear); transformers, modeling_rope_utils (llama3).
std::vector<double> rotary_frequencies(const DecoderConfig& config);

class LearnedPositions {
 public:
  struct Options {
    std::string name;  // "model.embed_positions"; the tensor adds ".weight"
    /// partial where each rank adds to its slice of the sequence
    parameters::TpGradient gradient = parameters::TpGradient::whole;
  };
  LearnedPositions(const DecoderConfig& config, const Options& options,
                   const comm::Communicator& tp);

  /// Adds the rows of the positions from `first_position` on, in place on x [rows, B, H], of which
  /// the first `held` rows are positions and the others padding. Throws InternalError where the
  /// table ends before (check_seq_length tells a user so).
  void add(at::Tensor& x, int64_t first_position, int64_t held) const;
  /// The same of one sequence whose rows have the positions `of_rows` [T] int64, each within the
  /// table.
  void add_at(at::Tensor& x, int64_t first_row, int64_t held, const at::Tensor& of_rows) const;
  /// Adds the table's gradient from that of what add() was given.
  void backward(const at::Tensor& grad, int64_t first_position, int64_t held);
  void backward_at(const at::Tensor& grad, int64_t first_row, int64_t held,
                   const at::Tensor& of_rows);

  parameters::Parameter& table() { return table_; }

 private:
  parameters::Parameter table_;  // [max_position_embeddings, H]
};

/// Rows of a region's outside that are positions of the sequence: fewer than rows() at its end.
int64_t held_rows(const tensor_parallel::SequenceRegion& region);

}  // namespace tptrain::model
