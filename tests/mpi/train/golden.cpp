// Against transformers, in process: logits, loss and every gradient of the golden models, read from
// their Hugging Face files, on every tp and dp of the ranks. (Whole trainings through the program:
// tests/e2e/train/golden.cpp.)
#include <ATen/Parallel.h>

#include "checkpoint/huggingface_source.h"
#include "support/golden_checks.h"

namespace tptrain::testing {

TEST_CASE("logits of the golden models are those of transformers", "[golden]") {
  at::set_num_threads(1);
  for (const auto& directory : golden_directories(TPTRAIN_GOLDEN_MODELS)) {
    const GoldenModel golden(directory);
    CAPTURE(golden.name());
    if (!model::check_tp_size(golden.config(), session().size()).empty()) continue;
    const checkpoint::HuggingFaceSource source(directory, golden.stored());
    CHECK(worst_logits(golden, golden.config(), {}, source) <= kLargestLogitError);
  }
}

TEST_CASE("loss and gradients of the golden models are those of transformers", "[golden]") {
  at::set_num_threads(1);
  for (const auto& directory : golden_directories(TPTRAIN_GOLDEN_MODELS)) {
    const GoldenModel golden(directory);
    const checkpoint::HuggingFaceSource source(directory, golden.stored());
    for (const comm::MeshShape shape : layouts_for(golden.config())) {
      CAPTURE(golden.name(), shape.tp_size, shape.dp_size);
      check_golden_gradients(golden, golden.config(),
                             {.sequence_parallel = tensor_parallel::SequenceParallel::on},
                             golden.stored(), source, shape);
    }
  }
}

}  // namespace tptrain::testing
