#include "adapters/peft_files.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <limits>
#include <system_error>
#include <utility>

#include "adapters/peft_targets.h"
#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/python_json.h"
#include "base/text.h"
#include "checkpoint/huggingface_files.h"
#include "checkpoint/huggingface_source.h"
#include "checkpoint/huggingface_writer.h"
#include "formats/links.h"
#include "model/adapter.h"
#include "model/families/family.h"

namespace tptrain::adapters {

namespace fs = std::filesystem;

namespace {

constexpr const char* kTable = "model.embed_tokens.weight";
constexpr const char* kHeadWord = "lm_head";
constexpr const char* kHead = "lm_head.weight";
constexpr const char* kPrefix = "base_model.model.";

/// "model.embed_tokens" -> "embed_tokens"
std::string last_component(const std::string& path) {
  return path.substr(path.rfind('.') + 1);  // npos + 1 is 0
}

/// The stored name of the table where it is tied and trains whole; "" elsewhere.
std::string trained_tied_table(const model::DecoderConfig& decoder,
                               const sharding::StoredModel& stored) {
  if (!decoder.tie_word_embeddings) return "";
  for (const sharding::StoredTensor& tensor : stored.tensors) {
    if (tensor.name == kTable) return tensor.stored_name;
  }
  return "";
}

// Two tables of one adapter, where PEFT does not keep them one.
std::vector<std::string> tie_problems(const PeftConfig& peft, const config::AdapterConfig& adapter,
                                      const model::DecoderConfig& decoder) {
  const std::string table = trained_tied_table(decoder, model::stored_adapter(decoder, adapter));
  if (table.empty() || peft.keeps_tie) return {};
  return {cat("modules_to_save is ", join(peft.modules_to_save),
              ", and this model's embedding and head are one table: without ensure_weight_tying "
              "PEFT has made two of it, which is another model")};
}

// lm_head.weight, of an adapter file that holds a tied table twice.
class WithTiedHead final : public sharding::TensorSource {
 public:
  explicit WithTiedHead(const sharding::TensorSource& source) : source_(source) {}
  std::vector<sharding::TensorInfo> tensors() const override { return source_.tensors(); }
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override {
    sharding::ShardSpec wanted = spec;
    if (spec.name == kHead) wanted.name = kTable;
    source_.read_slice(wanted, begin, end, out);
  }

 private:
  const sharding::TensorSource& source_;
};

/// The stored form with the table under the head's name as well.
sharding::StoredModel with_tied_head(sharding::StoredModel stored) {
  for (const sharding::StoredTensor& tensor : stored.tensors) {
    if (tensor.name != kTable) continue;
    sharding::StoredTensor head = tensor;
    head.name = kHead;
    head.stored_name = cat(kPrefix, kHead);
    stored.tensors.push_back(std::move(head));
    return stored;
  }
  return stored;
}

bool equal_tables(const sharding::TensorSource& source, const model::DecoderConfig& decoder) {
  constexpr int64_t kAtOnce = sharding::kStateChunkElements;
  const int64_t numel = decoder.vocab_size * decoder.hidden_size;
  for (int64_t begin = 0; begin < numel; begin += kAtOnce) {
    const int64_t end = std::min(begin + kAtOnce, numel);
    at::Tensor a = at::empty({end - begin}, at::kFloat);
    at::Tensor b = at::empty_like(a);
    const std::vector<int64_t> shape = {decoder.vocab_size, decoder.hidden_size};
    source.read_slice(sharding::whole_tensor(kTable, shape), begin, end, a);
    source.read_slice(sharding::whole_tensor(kHead, shape), begin, end, b);
    if (!at::equal(a, b)) return false;
  }
  return true;
}

checkpoint::HuggingFaceFiles files_of(const fs::path& directory) {
  if (!is_taken(directory / kPeftWeightsName)) {
    const bool pickled = is_taken(directory / "adapter_model.bin");
    throw DataError(problem(cat(kPeftWeightsName, " is not here"))
                        .at(directory.string())
                        .remedy(pickled ? "The weights are pickled (adapter_model.bin), and "
                                          "loading them would run code out of the file. Save the "
                                          "adapter again with save_pretrained(OUT)."
                                        : "Give the directory that PEFT's save_pretrained or "
                                          "tptrain export has written."));
  }
  return checkpoint::HuggingFaceFiles(directory, kPeftWeightsName);
}

}  // namespace

PeftConfig peft_config_of(const fs::path& directory) {
  const fs::path path = directory / kPeftConfigName;
  if (!is_taken(path)) {
    throw DataError(problem(cat(kPeftConfigName, " is not here"))
                        .at(directory.string())
                        .must("be the directory of a PEFT adapter")
                        .remedy("Give the directory that PEFT's save_pretrained or tptrain export "
                                "has written."));
  }
  formats::refuse_broken_link(path);
  return parse_peft_config(read_file(path, kMostConfigJsonBytes, FailAs::data_error),
                           path.string());
}

config::AdapterConfig read_peft_config(const fs::path& directory,
                                       const model::DecoderConfig& decoder) {
  const PeftConfig peft = peft_config_of(directory);
  const std::string where = (directory / kPeftConfigName).string();
  TargetWords targets = target_words(peft, decoder, where);
  config::AdapterConfig adapter;
  adapter.rank = peft.rank;
  adapter.alpha = peft.alpha;
  adapter.dropout = peft.dropout;
  adapter.rslora = peft.rslora;
  adapter.targets = targets.words;
  for (const std::string& module : peft.modules_to_save) {
    const std::string word = last_component(module);
    std::vector<std::string>& saved = adapter.modules_to_save;
    if (std::find(saved.begin(), saved.end(), word) == saved.end()) saved.push_back(word);
  }
  std::vector<std::string> wrong = std::move(targets.wrong);
  if (wrong.empty()) {
    for (const Problem& p : model::check_adapter(decoder, adapter)) wrong.push_back(p.text());
  }
  if (wrong.empty()) wrong = tie_problems(peft, adapter, decoder);
  if (wrong.empty()) return adapter;
  throw DataError(problem("the adapter does not fit this model and this program")
                      .at(where)
                      .must("be a LoRA adapter of this model (docs/lora.md)")
                      .remedy(checkpoint::capped_list(wrong)));
}

std::unique_ptr<sharding::TensorSource> open_peft(const fs::path& directory,
                                                  const model::DecoderConfig& decoder,
                                                  const config::AdapterConfig& adapter) {
  const std::string whose = cat("the adapter of rank ", adapter.rank, " for ",
                                join(adapter.targets), " that ", kPeftConfigName, " describes");
  sharding::StoredModel stored = model::stored_adapter(decoder, adapter);
  checkpoint::HuggingFaceFiles files = files_of(directory);
  const bool twice =
      !trained_tied_table(decoder, stored).empty() && files.tensors().contains(cat(kPrefix, kHead));
  if (twice) stored = with_tied_head(std::move(stored));
  auto source =
      std::make_unique<checkpoint::HuggingFaceSource>(std::move(files), std::move(stored), whose);
  if (!twice || equal_tables(*source, decoder)) return source;
  throw DataError(problem(cat(kPrefix, kHead,
                              " differs from the embedding's table, and this "
                              "model's are one"))
                      .at((directory / kPeftWeightsName).string())
                      .must("hold the same values twice"));
}

ExportedAdapter write_peft(const sharding::TensorSource& source,
                           const model::DecoderConfig& decoder,
                           const config::AdapterConfig& adapter, const PeftExport& order) {
  sharding::StoredModel stored = model::stored_adapter(decoder, adapter);
  PeftConfig peft = {.rank = adapter.rank,
                     .alpha = adapter.alpha,
                     .dropout = adapter.dropout,
                     .rslora = adapter.rslora,
                     .modules_to_save = adapter.modules_to_save,
                     .base_model = order.base_model};
  for (const model::AdapterSite& site : model::adapter_sites(decoder, adapter)) {
    if (std::find(peft.targets.begin(), peft.targets.end(), site.word) == peft.targets.end()) {
      peft.targets.push_back(site.word);
    }
  }
  std::sort(peft.targets.begin(), peft.targets.end());
  const std::string table = trained_tied_table(decoder, stored);
  if (!table.empty()) {
    peft.keeps_tie = true;
    // PEFT knows a tied table by the head's name ("wte" it would not), and loads both.
    const std::string module = table.substr(0, table.rfind(".weight"));
    peft.modules_to_save = {last_component(module), kHeadWord};
    stored = with_tied_head(std::move(stored));
  }
  const sharding::StoredModel base = model::stored_model(decoder);
  const bool transposed = std::any_of(base.tensors.begin(), base.tensors.end(),
                                      [](const auto& tensor) { return tensor.transposed; });
  checkpoint::HuggingFaceExport files = {
      .directory = order.directory,
      .names = {.config = kPeftConfigName, .weights = "adapter_model"},
      .dtype = order.dtype};
  files.max_shard_bytes = std::numeric_limits<int64_t>::max();  // PEFT knows one file
  if (order.replace_earlier) files.earlier = checkpoint::EarlierExport::replace;
  files.on_file = order.on_file;
  files.side_files = {{.name = kPeftConfigName, .text = peft_config_text(peft, transposed)}};
  const WithTiedHead tied(source);  // an untied model has a head of its own
  const sharding::TensorSource& from = table.empty() ? source : tied;
  const checkpoint::ExportedModel done = checkpoint::write_huggingface_model(from, stored, files);
  return {.total_bytes = done.total_bytes, .parameters = done.parameters};
}

}  // namespace tptrain::adapters
