// Hugging Face directories as a source: every slice of every stored form, one file or several,
// links of the hub's cache; and every way in which a directory is not the model.
#include "checkpoint/huggingface_source.h"

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "support/catch.h"
#include "support/huggingface_dirs.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::HuggingFaceSource;
using formats::Dtype;
using sharding::ShardSpec;
using sharding::StoredModel;

std::string refusal(const fs::path& directory, const StoredModel& model = small_stored_model()) {
  return message_of<DataError>([&] { HuggingFaceSource source(directory, model); });
}

int64_t wrong_elements(const HuggingFaceSource& source, const ShardSpec& spec, int64_t begin,
                       int64_t end) {
  at::Tensor out = at::full({end - begin}, -1.0, at::kFloat);
  source.read_slice(spec, begin, end, out);
  const float* values = out.data_ptr<float>();
  int64_t wrong = 0;
  for (const sharding::Run& run : sharding::runs_of(spec, begin, end)) {
    for (int64_t i = 0; i < run.count; ++i) {
      const float expected = stored_value(spec.name, run.global_begin + i);
      wrong += values[run.local_begin - begin + i] == expected ? 0 : 1;
    }
  }
  return wrong;
}

// Whole tensors, slices of each dimension, and ranges that begin and end inside a row.
void check_all_slices(const HuggingFaceSource& source) {
  for (const sharding::TensorInfo& info : source.tensors()) {
    std::vector<ShardSpec> specs = {sharding::whole_tensor(info.name, info.shape)};
    for (int64_t dim = 0; dim < static_cast<int64_t>(info.shape.size()); ++dim) {
      const int64_t extent = info.shape[static_cast<size_t>(dim)];
      specs.push_back(sharding::slice_of(info.name, info.shape, dim, 0, extent / 2));
      specs.push_back(sharding::slice_of(info.name, info.shape, dim, extent / 3, extent));
      specs.push_back(sharding::slice_of(info.name, info.shape, dim, extent, extent));
    }
    for (const ShardSpec& spec : specs) {
      const int64_t numel = spec.local_numel();
      for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
               {0, numel}, {numel / 3, numel}, {numel / 5, numel / 2}, {numel / 2, numel / 2}}) {
        INFO(info.name << " dim " << spec.dim << " [" << spec.begin << ", " << spec.end
                       << ") elements " << begin << " to " << end);
        CHECK(wrong_elements(source, spec, begin, end) == 0);
      }
    }
  }
}

void write_two_files(const fs::path& directory, const std::string& index = "") {
  write_stored_file(directory, small_stored_model(),
                    {.file = "model-00001-of-00002.safetensors",
                     .names = {"transformer.embed.weight", "transformer.norm.weight"}});
  write_stored_file(
      directory, small_stored_model(),
      {.file = "model-00002-of-00002.safetensors",
       .names = {"transformer.c_attn.weight", "transformer.c_attn.bias", "transformer.up.weight"}});
  const std::string standard = R"({"metadata":{"total_size":1},"weight_map":{
    "transformer.embed.weight":"model-00001-of-00002.safetensors",
    "transformer.norm.weight":"model-00001-of-00002.safetensors",
    "transformer.c_attn.weight":"model-00002-of-00002.safetensors",
    "transformer.c_attn.bias":"model-00002-of-00002.safetensors",
    "transformer.up.weight":"model-00002-of-00002.safetensors"}})";
  std::ofstream(directory / "model.safetensors.index.json") << (index.empty() ? standard : index);
}

TEST_CASE("every slice of every stored form is read as fp32, from each type of weights") {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    const TempDir dir;
    write_stored_file(dir.path(), small_stored_model(), {.dtype = dtype});
    const HuggingFaceSource source(dir.path(), small_stored_model());
    CHECK(source.stored_dtype() == dtype);
    CHECK(source.stored_dtypes().at("transformer.c_attn.bias") == dtype);
    CHECK(source.tensors().size() == small_stored_model().tensors.size());
    check_all_slices(source);
  }
}

TEST_CASE("a model in several files, with an index, by way of the hub's links") {
  const TempDir dir;
  write_two_files(dir / "blobs");
  fs::create_directories(dir / "snapshots/x");
  for (const fs::directory_entry& entry : fs::directory_iterator(dir / "blobs")) {
    const std::string name = entry.path().filename();
    fs::create_symlink("../../blobs/" + name, dir / "snapshots/x" / name);
  }
  check_all_slices(HuggingFaceSource(dir / "snapshots/x", small_stored_model()));

  fs::remove(dir / "blobs/model-00002-of-00002.safetensors");
  CHECK(has(refusal(dir / "snapshots/x"),
            "model-00002-of-00002.safetensors: this symbolic link "
            "points to ../../blobs/model-00002"));
}

TEST_CASE("a file may lack the optional prefix as a whole, and hold what is ignored") {
  const TempDir dir;
  write_stored_file(
      dir.path(), small_stored_model(),
      {.dropped_prefix = "transformer.",
       .extra = {{.name = "h.0.attn.mask", .dtype = Dtype::boolean, .shape = {1, 1, 8, 8}},
                 {.name = "lm_head.weight", .dtype = Dtype::f32, .shape = {37, 6}}}});
  check_all_slices(HuggingFaceSource(dir.path(), small_stored_model()));
}

TEST_CASE("model.safetensors is taken where both it and an index are there, as transformers does") {
  const TempDir dir;
  write_stored_file(dir.path(), small_stored_model());
  dir.put("model.safetensors.index.json", "this is not looked at");
  check_all_slices(HuggingFaceSource(dir.path(), small_stored_model()));
  CHECK(checkpoint::HuggingFaceFiles(dir.path()).ignored_index());
}

TEST_CASE("all that does not fit the model is said at once") {
  const TempDir dir;
  StoredModel other = small_stored_model();
  other.tensors[0] = {"embed.weight", {38, 6}, "transformer.embed.weight", {38, 6}};
  write_stored_file(
      dir.path(), other,
      {.names = {"transformer.embed.weight", "transformer.c_attn.bias", "transformer.up.weight"},
       .extra = {{.name = "transformer.norm.weight", .dtype = Dtype::i8, .shape = {6}},
                 {.name = "transformer.h.9.x", .dtype = Dtype::f32, .shape = {2, 2}}}});
  CHECK(
      refusal(dir.path()) ==
      "data error: " + dir.path().string() +
          ": the tensors are not those of the model in config.json: 1 missing, 1 of another "
          "shape, 1 of another type than F32, BF16, F16 and F64, 1 that it does not have: it must "
          "hold each of its tensors and no other.\n"
          "  Check that the weights and the config beside them belong together.\n"
          "  other shape: transformer.embed.weight is [38, 6], it must be [37, 6]\n"
          "  other type: transformer.norm.weight is I8\n"
          "  missing: transformer.c_attn.weight [6, 14]\n"
          "  not one of them: \"transformer.h.9.x\" [2, 2] in model.safetensors");
}

TEST_CASE("a long list of misfits is cut, with their number") {
  const TempDir dir;
  std::vector<formats::SafetensorsEntry> extra;
  for (int i = 0; i < 25; ++i) extra.push_back({.name = "x" + std::to_string(i), .shape = {1}});
  write_stored_file(dir.path(), small_stored_model(), {.extra = extra});
  const std::string message = refusal(dir.path());
  CHECK(has(message, "25 that it does not have"));
  CHECK(has(message, "\n  ... and 5 more"));
  CHECK(!has(message, "x9"));  // names sort as text: x0, x1, x10 ... and x9 last
}

TEST_CASE("files that are not what the index says are named, all of them") {
  const TempDir dir;
  write_two_files(dir.path(), R"({"weight_map":{
    "transformer.embed.weight":"model-00001-of-00002.safetensors",
    "transformer.norm.weight":"model-00002-of-00002.safetensors",
    "transformer.c_attn.weight":"model-00002-of-00002.safetensors",
    "transformer.c_attn.bias":"model-00002-of-00002.safetensors"}})");
  const std::string message = refusal(dir.path());
  CHECK(has(message,
            "model.safetensors.index.json: 3 tensors are not where the index says: it "
            "must name every tensor of its files, each in its file.\n  The files are not "
            "all of one model: download or copy it again.\n"));
  CHECK(has(message,
            "  the index says that \"transformer.norm.weight\" is in "
            "model-00002-of-00002.safetensors, which lacks it\n"
            "  model-00001-of-00002.safetensors holds \"transformer.norm.weight\", which the index "
            "says is in model-00002-of-00002.safetensors"));
  CHECK(has(message,
            "  model-00002-of-00002.safetensors holds \"transformer.up.weight\", which the index "
            "does not name"));

  write_two_files(dir / "b", R"({"weight_map":{"a":"x.safetensors","b":"y.safetensors",
    "c":"model-00002-of-00002.safetensors"}})");
  CHECK(has(refusal(dir / "b"),
            "2 of the 3 files that the index names are not here.\n  Finish the "
            "download or the copy. Missing:\n  x.safetensors\n  y.safetensors"));
}

TEST_CASE("a directory without safetensors is refused with what to do") {
  const TempDir dir;
  CHECK(has(refusal(dir / "nowhere"), "nowhere: there is no such directory"));
  CHECK(has(refusal(dir.path()),
            "neither model.safetensors nor model.safetensors.index.json is here.\n  Give the "
            "directory of a downloaded model, with its config.json and *.safetensors files."));
  dir.put("pytorch_model.bin", "");
  CHECK(has(refusal(dir.path()),
            "The weights are pickled (pytorch_model.bin), and loading them would run code out of "
            "the file. Download the model's safetensors files, or convert it once in Python: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)."));
  fs::create_symlink("gone", dir / "model.safetensors.index.json");
  CHECK(has(refusal(dir.path()), "this symbolic link points to gone, which does not exist"));
}

TEST_CASE("a slice of what the model does not have is refused") {
  const TempDir dir;
  write_stored_file(dir.path(), small_stored_model());
  const HuggingFaceSource source(dir.path(), small_stored_model());
  at::Tensor out = at::empty({6}, at::kFloat);
  const auto read = [&](const ShardSpec& spec, int64_t end, at::Tensor& into) {
    source.read_slice(spec, 0, end, into);
  };
  CHECK(has(message_of<CheckpointError>([&] { read(sharding::whole_tensor("x", {6}), 6, out); }),
            "the model has no tensor x"));
  CHECK(has(message_of<CheckpointError>([&] {
              read(sharding::whole_tensor("norm.weight", {3, 2}), 6, out);
            }),
            "tensor norm.weight has shape [6], not [3, 2]"));
  CHECK(has(
      message_of<InternalError>([&] { read(sharding::whole_tensor("norm.weight", {6}), 5, out); }),
      "not contiguous fp32 [5] on CPU"));
}

TEST_CASE("a stored form that contradicts itself is refused") {
  const TempDir dir;
  write_stored_file(dir.path(), small_stored_model());
  const auto fault = [&](auto&& change) {
    StoredModel model = small_stored_model();
    change(model.tensors);
    return message_of<InternalError>([&] { HuggingFaceSource source(dir.path(), model); });
  };
  CHECK(has(fault([](auto& t) { t[3].first = 5; }), "its parts overlap or leave a hole"));
  CHECK(has(fault([](auto& t) { t.erase(t.begin() + 4); }), "its parts do not cover it"));
  CHECK(has(fault([](auto& t) { t.push_back(t[1]); }), "its parts do not stand side by side"));
  CHECK(has(fault([](auto& t) { t[1].name = "embed.weight"; }), "the name is given twice"));
  CHECK(has(fault([](auto& t) { t[4].stored_shape = {6, 15}; }), "its parts differ in form"));
  CHECK(has(fault([](auto& t) { t[0].shape = {37, 5}; }), "the inner dimensions differ"));
  CHECK(has(fault([](auto& t) { t[1].shape = {}; }), "different dimensions, or none"));
  CHECK(has(fault([](auto& t) { t[1].transposed = true; }), "it is transposed, but no matrix"));
}

TEST_CASE("what goes along with a model is told from what does not") {
  const TempDir dir;
  for (const char* name : {"tokenizer.json", "config.json", "model.safetensors", "README.md",
                           "qwen.tiktoken", "chat_template.jinja", "pytorch_model.bin"}) {
    dir.put(name, "");
  }
  fs::create_directories(dir / "vocab.json");
  dir.put("additional_chat_templates/rag.jinja", "");
  dir.put("additional_chat_templates/notes.txt", "");
  CHECK(checkpoint::side_files(dir.path()) ==
        std::vector<std::string>{"additional_chat_templates/rag.jinja", "chat_template.jinja",
                                 "qwen.tiktoken", "tokenizer.json"});
  dir.put("tokenizer.model", "a sentencepiece model");
  CHECK(checkpoint::side_files(dir.path()).back() == "tokenizer.model");
  // Ranks of tiktoken: converters take the name for a sentencepiece model.
  dir.put("tokenizer.model", "IQ== 0\nIg== 1\n");
  CHECK(checkpoint::side_files(dir.path()).back() == "tokenizer.json");
  fs::create_symlink("gone", dir / "merges.txt");
  CHECK(has(message_of<DataError>([&] { checkpoint::side_files(dir.path()); }),
            "merges.txt: this symbolic link points to gone"));
}

}  // namespace
}  // namespace tptrain::testing
