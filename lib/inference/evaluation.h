// The loss of a model on a text, on any tp x dp. Which tokens are predicted, and from what, is
// data::SequentialBatches'; the files are the caller's.
#pragma once

#include <cstdint>

#include "comm/device_mesh.h"
#include "data/sequential_batches.h"
#include "model/decoder.h"

namespace tptrain::inference {

struct Evaluation {
  double loss = 0;  // mean cross entropy of the target tokens, in nats
  int64_t target_tokens = 0;

  double perplexity() const;
};

/// Runs the decoder over all batches, without gradients; each dp rank takes its share. Every target
/// token weighs the same, and the sums are added in double in the order of the ranks, so the result
/// depends on the layout in rounding alone, and is the same on every rank. `batches` has the mesh's
/// dp_size. Throws DataError where there is no target, NumericsError where the loss is not finite,
/// on every rank alike. Collective over the mesh and `ranks`, which are all its ranks.
Evaluation evaluate(model::Decoder& decoder, const data::SequentialBatches& batches,
                    const comm::DeviceMesh& mesh, comm::ControlGroup& ranks);

}  // namespace tptrain::inference
