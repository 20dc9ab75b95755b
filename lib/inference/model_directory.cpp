#include "inference/model_directory.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "base/text.h"
#include "checkpoint/huggingface_source.h"
#include "model/families/family.h"

namespace tptrain::inference {

namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr int64_t kElementsAtOnce = int64_t{4} << 20;

/// Bit by bit: what differs only there is still another file than a copy.
bool equal_values(const sharding::TensorSource& source, const model::DecoderConfig& config) {
  const auto whole = [&](const char* name) {
    return sharding::ShardSpec{.name = name,
                               .global_shape = {config.vocab_size, config.hidden_size}};
  };
  const sharding::ShardSpec head = whole(kHead);
  const sharding::ShardSpec embedding = whole(kEmbedding);
  const int64_t numel = config.vocab_size * config.hidden_size;
  at::Tensor a = at::empty({std::min(numel, kElementsAtOnce)}, at::kFloat);
  at::Tensor b = at::empty_like(a);
  for (int64_t begin = 0; begin < numel; begin += kElementsAtOnce) {
    const int64_t count = std::min(kElementsAtOnce, numel - begin);
    at::Tensor part_a = a.narrow(0, 0, count);
    at::Tensor part_b = b.narrow(0, 0, count);
    source.read_slice(head, begin, begin + count, part_a);
    source.read_slice(embedding, begin, begin + count, part_b);
    const auto bytes = static_cast<size_t>(count) * sizeof(float);
    if (std::memcmp(part_a.data_ptr<float>(), part_b.data_ptr<float>(), bytes) != 0) return false;
  }
  return true;
}

bool has_other_head(const std::filesystem::path& directory, const model::DecoderConfig& tied) {
  if (!checkpoint::has_huggingface_weights(directory)) return false;
  if (!checkpoint::HuggingFaceFiles(directory).tensors().contains(kHead)) return false;
  model::DecoderConfig untied = tied;
  untied.tie_word_embeddings = false;
  const checkpoint::HuggingFaceSource source(directory, model::stored_model(untied));
  return !equal_values(source, tied);
}

void untie(const std::filesystem::path& directory, DecidedModel& decided) {
  decided.decoder.tie_word_embeddings = false;
  decided.notes.push_back(cat(printable_line(directory.string()),
                              ": config.json says tie_word_embeddings: true, but ", kHead,
                              " holds other values than the embedding: both are used, untied"));
}

}  // namespace

DecidedModel decide_head(const std::filesystem::path& directory, model::DecoderConfig decoder) {
  DecidedModel decided = {.decoder = std::move(decoder)};
  if (decided.decoder.tie_word_embeddings && has_other_head(directory, decided.decoder)) {
    untie(directory, decided);
  }
  return decided;
}

DecidedModel decide_model(comm::ControlGroup& group, const config::ModelConfig& model,
                          int64_t tokenizer_vocab_size) {
  DecidedModel decided;
  bool other_head = false;
  comm::agree(group, [&] {
    decided.decoder = model::decoder_config(model, tokenizer_vocab_size);
    if (group.rank() != 0 || model.architecture || model.init == config::Init::random) return;
    if (decided.decoder.tie_word_embeddings) {
      other_head = has_other_head(model.path, decided.decoder);
    }
  });
  if (group.broadcast(other_head ? "other head" : "", 0) == "other head") {
    untie(model.path, decided);
  }
  const int64_t rows = decided.decoder.vocab_size;
  if (rows < tokenizer_vocab_size) {
    decided.notes.push_back(cat("the tokenizer has ", tokenizer_vocab_size, " ids, the model ",
                                rows, " rows: a text that gives an id from ", rows,
                                " on is refused"));
  }
  return decided;
}

}  // namespace tptrain::inference
