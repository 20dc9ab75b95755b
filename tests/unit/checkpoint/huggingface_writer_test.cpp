// Exports: what is written is read back, file for file as transformers cuts and names them; nothing
// is replaced unasked; and a fault at any step leaves no directory that is taken for a whole model.
#include "checkpoint/huggingface_writer.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/huggingface_source.h"
#include "checkpoint/stored_stream.h"
#include "support/catch.h"
#include "support/huggingface_dirs.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::EarlierExport;
using checkpoint::HuggingFaceExport;
using checkpoint::HuggingFaceSource;
using checkpoint::write_huggingface_model;
using formats::Dtype;

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

checkpoint::ExportedModel write(const HuggingFaceExport& order) {
  const auto model = small_stored_model();
  return write_huggingface_model(ComputedSource(model), model, order);
}

int64_t wrong_elements(const fs::path& directory) {
  const HuggingFaceSource source(directory, small_stored_model());
  int64_t wrong = 0;
  for (const sharding::TensorInfo& info : source.tensors()) {
    at::Tensor out = at::empty({numel_of(info.shape)}, at::kFloat);
    source.read_slice(sharding::whole_tensor(info.name, info.shape), 0, out.numel(), out);
    for (int64_t i = 0; i < out.numel(); ++i) {
      wrong += out.data_ptr<float>()[i] == stored_value(info.name, i) ? 0 : 1;
    }
  }
  return wrong;
}

/// What transformers (and every other reader) asks of a directory before it loads it.
bool taken_for_a_model(const fs::path& directory) {
  return fs::exists(directory / "config.json") && checkpoint::has_huggingface_weights(directory);
}

TEST_CASE("an export is read back, whatever type it has") {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    const TempDir dir;
    const auto done = write({.directory = dir / "new/out",
                             .dtype = dtype,
                             .side_files = {{.name = "config.json", .text = "{}"}}});
    CHECK(names_in(dir / "new/out") == std::set<std::string>{"config.json", "model.safetensors"});
    CHECK(done.weight_files == std::vector<std::string>{"model.safetensors"});
    CHECK(done.parameters == 37 * 6 + 6 + 14 * 6 + 14 + 150 * 70);
    CHECK(done.total_bytes == done.parameters * formats::dtype_bits(dtype) / 8);
    CHECK(wrong_elements(dir / "new/out") == 0);
    const formats::SafetensorsFile file(dir / "new/out/model.safetensors");
    CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
    CHECK(file.find("transformer.c_attn.weight")->shape == std::vector<int64_t>{6, 14});
    CHECK(file.find("transformer.c_attn.weight")->dtype == dtype);
  }
}

TEST_CASE("import and export give the same bytes, each tensor in its type") {
  const TempDir dir;
  const auto model = small_stored_model();
  write_stored_file(dir / "in", model, {.dtype = Dtype::bf16});
  const HuggingFaceSource source(dir / "in", model);
  write_huggingface_model(source, model,
                          {.directory = dir / "out", .dtypes = source.stored_dtypes()});
  const formats::SafetensorsFile in(dir / "in/model.safetensors");
  const formats::SafetensorsFile out(dir / "out/model.safetensors");
  REQUIRE(in.entries().size() == out.entries().size());
  for (const formats::SafetensorsEntry& entry : in.entries()) {
    const auto* other = out.find(entry.name);
    REQUIRE(other != nullptr);
    CHECK(std::ranges::equal(in.bytes(entry), out.bytes(*other)));
  }
}

TEST_CASE("files are cut and named as transformers does") {
  const TempDir dir;
  // Bytes as F32: embed 888, norm 24, c_attn.weight 336, c_attn.bias 56, up 42000 (beyond the
  // limit, so alone, before the file that was being filled).
  const auto done = write({.directory = dir.path(), .max_shard_bytes = 920});
  CHECK(done.weight_files == std::vector<std::string>{"model-00001-of-00003.safetensors",
                                                      "model-00002-of-00003.safetensors",
                                                      "model-00003-of-00003.safetensors"});
  const auto index = nlohmann::json::parse(contents_of(dir / "model.safetensors.index.json"));
  CHECK(index["metadata"]["total_size"] == done.total_bytes);
  CHECK(index["metadata"]["total_parameters"] == done.parameters);
  CHECK(index["weight_map"]["transformer.norm.weight"] == "model-00001-of-00003.safetensors");
  CHECK(index["weight_map"]["transformer.up.weight"] == "model-00002-of-00003.safetensors");
  CHECK(index["weight_map"]["transformer.c_attn.bias"] == "model-00003-of-00003.safetensors");
  CHECK(wrong_elements(dir.path()) == 0);
}

TEST_CASE("a large tensor is never whole in memory") {
  const TempDir dir;
  for (const bool transposed : {false, true}) {
    sharding::StoredModel model;
    model.tensors.push_back(
        {"w",
         {3000, 2000},
         "w",
         transposed ? std::vector<int64_t>{2000, 3000} : std::vector<int64_t>{3000, 2000},
         transposed,
         0});
    const ComputedSource source(model);
    write_huggingface_model(source, model,
                            {.directory = dir / (transposed ? "t" : "n"), .dtype = Dtype::bf16});
    CHECK(source.largest_read <= checkpoint::kStreamElements);
    const formats::SafetensorsFile file(dir / (transposed ? "t" : "n") / "model.safetensors");
    const std::vector<float> expected = stored_values(model, "w");
    std::vector<float> values(expected.size());
    formats::to_float32(Dtype::bf16, file.bytes(*file.find("w")).data(), values.data(),
                        static_cast<int64_t>(values.size()));
    CHECK(values == expected);
  }
}

TEST_CASE("an earlier export is replaced on request only, and as a set") {
  const TempDir dir;
  write({.directory = dir.path(),
         .max_shard_bytes = 920,
         .side_files = {{.name = "config.json", .text = "old"}}});
  dir.put("adapter.safetensors", "another tool's");
  HuggingFaceExport order = {.directory = dir.path(),
                             .side_files = {{.name = "config.json", .text = "new"},
                                            {.name = "tokenizer.json", .text = "t"}}};
  CHECK(message_of<ConfigError>([&] { write(order); }) ==
        "config error: " + dir.path().string() +
            ": the directory already holds 5 files of a model: it must be new, empty or without "
            "such files.\n"
            "  Choose another directory, or give --overwrite to replace them as a set.\n"
            "  config.json\n"
            "  model-00001-of-00003.safetensors\n"
            "  model-00002-of-00003.safetensors\n"
            "  model-00003-of-00003.safetensors\n"
            "  model.safetensors.index.json");
  order.earlier = EarlierExport::replace;
  write(order);
  CHECK(names_in(dir.path()) == std::set<std::string>{"adapter.safetensors", "config.json",
                                                      "model.safetensors", "tokenizer.json"});
  CHECK(contents_of(dir / "config.json") == "new");
  CHECK(wrong_elements(dir.path()) == 0);
}

TEST_CASE("a fault at any step leaves the old export, no model, or the new one") {
  // Once over nothing, once over an export of one file, once over one of three.
  for (const int64_t earlier_shard_bytes : {int64_t{0}, int64_t{1'000'000}, int64_t{920}}) {
    for (int fault = 0;; ++fault) {
      const TempDir dir;
      if (earlier_shard_bytes > 0) {
        write({.directory = dir.path(),
               .max_shard_bytes = earlier_shard_bytes,
               .side_files = {{.name = "config.json", .text = "old"}}});
      }
      const std::set<std::string> before = names_in(dir.path());
      int step = 0;
      bool removed_entry = false;
      bool committed = false;
      bool faulted = false;
      HuggingFaceExport order = {.directory = dir.path(),
                                 .dtype = Dtype::f16,
                                 .max_shard_bytes = 600,
                                 .earlier = EarlierExport::replace,
                                 .side_files = {{.name = "config.json", .text = "new"}}};
      order.fault_point = [&](std::string_view name) {
        removed_entry = removed_entry || name == "entry removed";
        committed = committed || name == "committed";
        if (step++ == fault) {
          faulted = true;
          throw std::runtime_error("fault");
        }
      };
      try {
        write(order);
      } catch (const std::runtime_error&) {
      }
      INFO("fault " << fault << ", earlier files of up to " << earlier_shard_bytes << " bytes");
      for (const std::string& name : names_in(dir.path())) CHECK(name[0] != '.');
      if (committed) {
        CHECK(contents_of(dir / "config.json") == "new");
        CHECK(wrong_elements(dir.path()) == 0);
        CHECK_FALSE(fs::exists(dir / "model.safetensors"));
      } else if (removed_entry) {
        CHECK_FALSE((taken_for_a_model(dir.path()) && contents_of(dir / "config.json") == "old"));
        // config.json comes last, so the one moment at which all is named counts as committed.
        if (taken_for_a_model(dir.path())) CHECK(wrong_elements(dir.path()) == 0);
      } else {
        CHECK(names_in(dir.path()) == before);
        CHECK(taken_for_a_model(dir.path()) == (earlier_shard_bytes > 0));
      }
      if (!faulted) break;
      // The same command again makes it whole (each costs a dozen fsyncs, so after some faults).
      if (fault % 4 != 3) continue;
      order.fault_point = nullptr;
      write(order);
      CHECK(wrong_elements(dir.path()) == 0);
    }
  }
}

TEST_CASE("what a killed export left is removed by the next, and is no model") {
  const TempDir dir;
  dir.put(".model.safetensors.tptrain-export-00", "half");
  dir.put(".config.json.tptrain-export-00", "half");
  CHECK_FALSE(taken_for_a_model(dir.path()));
  write({.directory = dir.path()});
  CHECK(names_in(dir.path()) == std::set<std::string>{"model.safetensors"});
}

TEST_CASE("files are copied through, and a missing one stops the export before anything changes") {
  const TempDir dir;
  dir.put("from/tokenizer.json", "{\"t\": 1}");
  HuggingFaceExport order = {
      .directory = dir / "out",
      .side_files = {{.name = "tokenizer.json", .copied_from = dir / "from/tokenizer.json"}}};
  write(order);
  CHECK(contents_of(dir / "out/tokenizer.json") == "{\"t\": 1}");
  order.directory = dir / "out2";
  order.side_files[0].copied_from = dir / "from/gone";
  CHECK(has(message_of<CheckpointError>([&] { write(order); }), "from/gone: open failed"));
  CHECK(names_in(dir / "out2").empty());
}

TEST_CASE("what no export can be is refused") {
  const TempDir dir;
  for (const char* name : {"", "../x", "/a", "a/../b", "a/", "model.safetensors"}) {
    CHECK(has(message_of<InternalError>(
                  [&] { write({.directory = dir.path(), .side_files = {{.name = name}}}); }),
              "a side file of an export is named"));
  }
  // A folder within is one of the tokenizer's: additional_chat_templates.
  write({.directory = dir / "ok", .side_files = {{.name = "templates/rag.jinja", .text = "x"}}});
  CHECK(names_in(dir / "ok/templates") == std::set<std::string>{"rag.jinja"});
  CHECK(
      has(message_of<InternalError>([&] { write({.directory = dir.path(), .dtype = Dtype::i8}); }),
          "export of transformer.embed.weight as I8"));
  dir.put("file", "");
  CHECK(has(message_of<CheckpointError>([&] { write({.directory = dir / "file/out"}); }),
            "Not a directory"));
  // 2^50 elements: more than any disk has free. Nothing is read before space is checked.
  sharding::StoredModel huge;
  huge.tensors.push_back({"w", {1 << 25, 1 << 25}, "w", {1 << 25, 1 << 25}});
  CHECK(has(message_of<CheckpointError>([&] {
              write_huggingface_model(ComputedSource(huge), huge, {.directory = dir / "huge"});
            }),
            " are free here.\n  Free space, choose a directory on another file system"));
}

TEST_CASE("sizes of files are read as transformers reads them, and in powers of two") {
  const auto size = [](std::string_view text) {
    return checkpoint::parse_shard_size(text, "--max-shard-size");
  };
  CHECK(size("5GB") == 5'000'000'000);
  CHECK(size("500MB") == 500'000'000);
  CHECK(size("300KB") == 300'000);
  CHECK(size("1TB") == 1'000'000'000'000);
  CHECK(size("2GiB") == int64_t{2} << 30);
  CHECK(size("3MiB") == 3 << 20);
  CHECK(size("4096") == 4096);
  for (const char* text : {"", "GB", "0GB", "-5GB", "5 GB", "5gb", "1.5GB", "5GBx",
                           "9999999999999GB", "99999999999999999999"}) {
    INFO(text);
    CHECK(has(message_of<ConfigError>([&] { size(text); }),
              std::string("config error: --max-shard-size: \"") + text +
                  "\" is no size of a file: it must be a whole number with a unit, like 5GB, 500MB "
                  "or 4GiB"));
  }
}

}  // namespace
}  // namespace tptrain::testing
