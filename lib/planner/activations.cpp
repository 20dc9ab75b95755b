// Every function here has the name of the one it mirrors.
#include "planner/activations.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/wildcard.h"
#include "comm/peer_exchange.h"
#include "model/adapter.h"
#include "model/loss_head.h"
#include "planner/activation_sizes.h"
#include "planner/layer_activations.h"
#include "planner/timeline.h"

namespace tptrain::planner {

namespace {

struct HeadInput {
  Buffer sum, statistics, input;
};

class Run {
 public:
  Run(const model::DecoderConfig& config, const ActivationOptions& options)
      : config_(config),
        options_(options),
        s_(config, options),
        make_(options, s_, t_),
        layers_(options, s_, make_, t_) {}

  int64_t forward_backward() {
    // Ids and targets; of documents, their positions (their ends are too few to count).
    const Buffer batch = t_.make((s_.masked ? 3 : 2) * s_.tokens * kInt64);
    const Buffer rotary = t_.make(rotary_bytes(s_.longest));
    const Buffer of_documents = t_.make(s_.masked ? rotary_bytes(s_.tokens) : 0);
    const auto layers = static_cast<size_t>(config_.num_hidden_layers);
    Buffer for_logits = memory_for_logits();
    Stream stream = {.residual = embed(), .delta = {}};
    const auto frozen = std::min<size_t>(layers, std::max(0, options_.first_training_block - 1));
    std::vector<Kept> kept(layers);
    for (size_t i = 0; i < layers; ++i) {
      kept[i].fp8 = options_.training.fp8.takes(static_cast<int64_t>(i), config_.num_hidden_layers);
      stream = layers_.forward(std::move(stream), kept[i]);
      if (i < frozen) kept[i] = {};
    }
    HeadInput head = head_input(std::exchange(stream, {}));
    Buffer grad = head_backward(std::exchange(head, {}), std::move(for_logits));
    for (size_t i = layers; i-- > frozen;)
      grad = layers_.backward(std::move(grad), std::exchange(kept[i], {}));
    if (options_.first_training_block == 0) embedding_backward(grad);
    return t_.peak();
  }

 private:
  int64_t rotary_bytes(int64_t rows) const {
    return s_.learned_positions ? 0 : rows * s_.head_dim * kFp32;
  }

  // --- model/decoder.cpp and tensor_parallel/vocab_parallel.cpp
  /// Local rows of the ids, int64, and which lie elsewhere.
  Buffer local_ids() { return t_.make(s_.cut_vocab && !s_.on_gpu ? s_.tokens * (kInt64 + 1) : 0); }
  Buffer embed() {
    const Buffer ids = local_ids();
    const Buffer output = make_.columns(s_.hidden);
    Buffer outside = make_.reduce(output);
    if (s_.learned_positions && s_.masked) make_.slice();  // rows of the table, looked up
    return outside;
  }
  void embedding_backward(const Buffer& outside) {
    if (s_.learned_positions && s_.masked) {
      t_.touch(options_.bf16 && !s_.on_gpu ? s_.slice_tokens * s_.hidden * kFp32 : 0);
    } else if (s_.learned_positions) {  // the sum over the sequences of a position, bf16 widened
                                        // before
      const int64_t wide = options_.bf16 ? s_.slice_tokens * s_.hidden * kFp32 : 0;
      t_.touch(wide, s_.slice_tokens / s_.batch * s_.hidden * kFp32);
    }
    if (s_.on_gpu) {
      const Buffer whole = make_.gather(outside);
      t_.touch(s_.tokens * (2 * 4 + 2 * kInt64));  // ids of 32 bits, sorted; their order; scratch
      return;
    }
    const Buffer ids = local_ids();
    const int64_t wide = s_.tokens * s_.hidden * kFp32;
    Buffer grad = make_.gather(outside);
    if (options_.bf16) grad = t_.make(wide);
    if (s_.cut_vocab) grad = t_.make(wide);  // without the tokens of other ranks
  }
  // --- model/loss_head.cpp
  int64_t chunk_tokens() const {
    const int64_t chosen = options_.training.head_chunk_tokens;
    return std::min(s_.tokens, chosen > 0 ? chosen : model::head_chunk_of(s_.tokens));
  }
  Buffer chunk_of_logits(int64_t width, int64_t element) {
    return t_.make(chunk_tokens() * width * element);
  }
  /// Taken ahead on GPUs, where rows begin at multiples of 64 elements.
  Buffer memory_for_logits() {
    return s_.on_gpu ? chunk_of_logits((s_.vocab + 63) / 64 * 64, s_.element) : Buffer{};
  }
  HeadInput head_input(Stream stream) {
    Norm normed = make_.norm(stream);
    stream = {};
    HeadInput head;
    head.sum = std::move(normed.sum);
    head.statistics = std::move(normed.statistics);
    head.input = make_.gather(normed.output);
    return head;
  }
  bool head_trains() const {
    const std::string head =
        config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    const model::TrainingOptions& training = options_.training;
    const bool frozen = std::ranges::any_of(
        training.freeze, [&](const std::string& glob) { return matches_wildcards(glob, head); });
    if (frozen || !training.adapter) return !frozen;
    return model::tensors_saved_whole(config_, *training.adapter).contains(head);
  }
  Buffer head_backward(HeadInput kept, Buffer for_logits) {
    Buffer partial = make_.columns(s_.hidden);
    {
      const bool widened = options_.bf16 && !s_.on_gpu;  // on GPUs bf16 stays
      // Of one chunk: the others take its memory again.
      Buffer logits = s_.on_gpu ? std::move(for_logits) : chunk_of_logits(s_.vocab, s_.element);
      Buffer exp = widened ? chunk_of_logits(s_.vocab, kFp32) : std::move(logits);
      logits.reset();
      const Buffer statistics = t_.make(3 * chunk_tokens() * kFp32);
      Buffer grad_logits = widened ? chunk_of_logits(s_.vocab, s_.element) : std::move(exp);
      exp.reset();
      if (widened && head_trains())
        t_.touch(chunk_tokens() * s_.vocab * kFp32, chunk_tokens() * s_.hidden * kFp32);
    }
    kept.input.reset();
    const Buffer grad = make_.reduce(std::move(partial));
    return make_.slice();
  }

  const model::DecoderConfig& config_;
  const ActivationOptions& options_;
  Timeline t_;
  Sizes s_;
  ActivationTensors make_;
  LayerActivations layers_;
};

// Gathers of the compute dtype have the size of a sum; of bytes half of it, in their own blocks
// where they come first, else in those of the larger.
int64_t gather_slot_bytes(const Sizes& s, const ActivationOptions& options) {
  const int64_t bytes = s.padded_tokens * s.hidden;
  const model::Fp8Layers& fp8 = options.training.fp8;
  if (!fp8.on || !fp8.all_gather || fp8.first_in_bf16 > 0) return bytes * s.element;
  const int64_t of_fp8 = bytes > comm::kMostDirectBytes ? bytes : 0;
  return of_fp8 + (fp8.last_in_bf16 > 0 ? bytes * s.element : 0);
}

}  // namespace

int64_t peak_activation_bytes(const model::DecoderConfig& config,
                              const ActivationOptions& options) {
  return Run(config, options).forward_backward();
}

int64_t push_buffer_bytes(const model::DecoderConfig& config, const ActivationOptions& options) {
  const Sizes s(config, options);
  constexpr int64_t kOfDirectCalls = 3 * comm::kMostDirectBytes;  // two slots and the control
  int64_t bytes = 0;
  if (pushes_over_dp(options)) bytes += kOfDirectCalls + comm::kPushLanes * comm::kPushSlotBytes;
  if (!pushes_over_tp(options)) return bytes;
  bytes += kOfDirectCalls;
  const int64_t slot = s.padded_tokens * s.hidden * s.element;
  if (s.sliced && slot > comm::kMostDirectBytes)
    bytes += comm::kReduceSlots * slot + comm::kGatherSlots * gather_slot_bytes(s, options);
  return bytes;
}

}  // namespace tptrain::planner
