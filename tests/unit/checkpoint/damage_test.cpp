// Damaged, foreign and hostile checkpoints: verify says so, whatever the bytes, and never throws;
// resume takes the newest whole one and says why not the others.
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"
#include "support/thread_group.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointStore;
using checkpoint::Depth;
using checkpoint::verify;
using Json = nlohmann::json;

constexpr const char* kShard = "shard-00000-of-00001.safetensors";

void put(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

// A directory with checkpoints of steps 1 to `saves`, by one rank.
struct Saved {
  explicit Saved(int64_t saves, const std::vector<TensorPlan>& model = small_model()) {
    CheckpointStore store(group, {.directory = dir.path(), .keep = 0});
    for (int64_t step = 1; step <= saves; ++step)
      store.save(state_of({}, 0, step, model), train_state_of(step));
  }
  fs::path step(int64_t number) const { return dir / cat("step-0000000", number); }

  TempDir dir;
  comm::SingleRank group;
};

// Two pieces in two files: small, so that every byte can be tried.
struct Tiny {
  Tiny() {
    run_ranks(2, [&](comm::ControlGroup& group) {
      CheckpointStore store(group, {.directory = dir.path()});
      const GridShape grid{.tp = 2, .dp = 1};
      store.save(state_of(grid, group.rank(), 1, {{"w", {2, 3}, 1}}), train_state_of(1, grid));
    });
  }
  fs::path path() const { return dir / "step-00000001"; }
  std::string problem(Depth depth = Depth::contents) const { return verify(path(), depth).problem; }

  TempDir dir;
};

std::string signed_text(Json manifest) {
  manifest.erase("self_hash");
  manifest["self_hash"] = sha256_hex(manifest.dump());
  return manifest.dump() + "\n";
}

TEST_CASE("a whole checkpoint verifies, also with a foreign file beside its own") {
  const Tiny tiny;
  put(tiny.path() / "notes.txt", "loss 2.31");
  CHECK(tiny.problem() == "");
  CHECK(verify(tiny.path(), Depth::manifest).info->state.step == 1);
}

TEST_CASE("every flipped byte of a manifest is found, by the manifest alone") {
  const Tiny tiny;
  const std::string whole = contents_of(tiny.path() / "manifest.json");
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int mask : {1 << (i % 8), 0x20}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ mask);
      put(tiny.path() / "manifest.json", damaged);
      INFO("byte " << i << " xor " << mask);
      REQUIRE(tiny.problem(Depth::manifest) != "");
    }
  }
}

TEST_CASE("a manifest cut anywhere, extended or rewritten in other words is found") {
  const Tiny tiny;
  const std::string whole = contents_of(tiny.path() / "manifest.json");
  for (size_t length = 0; length < whole.size(); length += 7) {
    put(tiny.path() / "manifest.json", whole.substr(0, length));
    REQUIRE(tiny.problem(Depth::manifest) != "");
  }
  for (const std::string& other :
       {whole + "\n", " " + whole, whole.substr(0, whole.size() - 1), Json::parse(whole).dump(2)}) {
    put(tiny.path() / "manifest.json", other);
    CHECK(has(tiny.problem(), "changed after it was committed"));
  }
  put(tiny.path() / "manifest.json", signed_text(Json::parse(whole)));
  CHECK(tiny.problem() == "");  // what the tests below sign is otherwise right
}

TEST_CASE("every flipped byte of a shard is found") {
  const Tiny tiny;
  const fs::path shard = tiny.path() / "shard-00001-of-00002.safetensors";
  const std::string whole = contents_of(shard);
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
    put(shard, damaged);
    REQUIRE(has(tiny.problem(), "shard-00001-of-00002.safetensors: SHA-256 is "));
  }
  put(shard, whole.substr(0, whole.size() - 1));
  CHECK(has(tiny.problem(), "it was truncated after it was committed"));
  put(shard, whole + "x");
  CHECK(has(tiny.problem(), "it was extended after it was committed"));
  fs::remove(shard);
  CHECK(tiny.problem() == "shard-00001-of-00002.safetensors is missing or no regular file");
  fs::create_directory(shard);
  CHECK(has(tiny.problem(), "no regular file"));
}

TEST_CASE("hashes alone do not make a checkpoint: shards must hold what the manifest lists") {
  const Tiny tiny;
  const Json manifest = Json::parse(contents_of(tiny.path() / "manifest.json"));
  const auto problem_with = [&](const auto& change) {
    Json changed = manifest;
    change(changed);
    put(tiny.path() / "manifest.json", signed_text(changed));
    return tiny.problem();
  };
  // Of one tensor: [file, number, slice begin, slice end, range begin, range end].
  const auto masters = [](Json& m) -> Json& { return m["tensors"][0]["kinds"]["master"]; };
  CHECK(
      has(problem_with([&](Json& m) { masters(m)[0][1] = 7; }), "lacks the tensor \"master/w#7\""));
  CHECK(has(problem_with([](Json& m) {
              for (const char* hash : {"root", "chunks"})
                std::swap(m["files"][0][hash], m["files"][1][hash]);
            }),
            "SHA-256 is"));
  CHECK(has(problem_with([](Json& m) { std::swap(m["files"][0]["root"], m["files"][1]["root"]); }),
            "is not that over its chunks"));
  CHECK(has(problem_with([](Json& m) {
              for (Json& file : m["files"]) file.erase("chunks");  // as older manifests are
              std::swap(m["files"][0]["root"], m["files"][1]["root"]);
            }),
            "SHA-256 is"));
  CHECK(has(problem_with([&](Json& m) { masters(m).erase(0); }), "saved by no piece"));
  CHECK(has(problem_with([&](Json& m) { masters(m).push_back(masters(m)[0]); }),
            "stands for two pieces"));
  CHECK(has(problem_with([&](Json& m) {
              masters(m).push_back(masters(m)[0]);
              masters(m).back()[1] = 7;
            }),
            "saved twice"));
  CHECK(has(problem_with([&](Json& m) {
              for (Json& piece : masters(m)) piece[0] = 0;
            }),
            "stands for two pieces"));
  CHECK(has(problem_with([&](Json& m) { masters(m)[0][0] = 2; }), "is in file 2 of 2"));
  CHECK(has(problem_with([](Json& m) {
              m["tensors"][0]["shape"] = {3, 2};
            }),
            "manifest: piece of \"w\""));
  CHECK(has(problem_with([](Json& m) { m["tensors"] = Json::array(); }), "the manifest lists 0"));
  CHECK(has(problem_with([](Json& m) { m["tensors"][0]["kinds"].erase("master"); }),
            "tensor w has exp_avg but no master"));
  CHECK(has(problem_with([](Json& m) { m["tensors"][0]["kinds"]["a/b"] = Json::array(); }),
            "unknown kind"));
  CHECK(has(problem_with([](Json& m) { m["pieces"] = Json::array(); }), "another format version"));
}

TEST_CASE(
    "a manifest of a newer format says what to do, one of something else that it is not ours") {
  const Tiny tiny;
  Json manifest = Json::parse(contents_of(tiny.path() / "manifest.json"));
  manifest["format_version"] = 3;
  put(tiny.path() / "manifest.json", manifest.dump());  // it may well hash and be written otherwise
  CHECK(tiny.problem() ==
        "manifest has format version 3, this tptrain reads up to 2: use a newer tptrain");
  manifest["format"] = "other";
  put(tiny.path() / "manifest.json", manifest.dump());
  CHECK(tiny.problem() == "manifest.json is not of a tptrain checkpoint");
}

TEST_CASE("a save_sequence that leaves no room for the next is refused") {
  const Tiny tiny;
  Json manifest = Json::parse(contents_of(tiny.path() / "manifest.json"));
  manifest["save_sequence"] = (int64_t{1} << 62) + 1;
  put(tiny.path() / "manifest.json", signed_text(manifest));
  CHECK(has(tiny.problem(), "save_sequence is no whole number"));
}

TEST_CASE("a file name that leads out of the directory is refused, even signed") {
  const Tiny tiny;
  const Json manifest = Json::parse(contents_of(tiny.path() / "manifest.json"));
  for (const char* name :
       {"../../etc/passwd", "/etc/passwd", "..", "", "shard-00000-of-00002.safetensors/..",
        "shard-00001-of-00002.safetensors", "a\nb"}) {
    Json changed = manifest;
    changed["files"][0]["name"] = name;
    put(tiny.path() / "manifest.json", signed_text(changed));
    CHECK(has(tiny.problem(), "where shard-00000-of-00002.safetensors must stand"));
    CHECK(!has(tiny.problem(), "\n"));
  }
}

TEST_CASE("hostile values in a signed manifest are refused and never crash") {
  const Tiny tiny;
  const Json manifest = Json::parse(contents_of(tiny.path() / "manifest.json"));
  std::vector<Json::json_pointer> places;
  const Json flat = manifest.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    for (Json::json_pointer place(pointer); !place.empty(); place = place.parent_pointer())
      places.push_back(place);
  }
  const std::vector<Json> hostile{
      nullptr,
      true,
      -1,
      0.5,
      1e300,
      std::numeric_limits<uint64_t>::max(),
      std::numeric_limits<int64_t>::min(),
      std::numeric_limits<int64_t>::max(),
      int64_t{1} << 62,
      "x",
      std::string(100'000, 'y'),
      Json::array(),
      Json::object(),
      Json::array({-1, -1}),
      Json::array({0, std::numeric_limits<int64_t>::max()}),
      Json::array({std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max(), 4})};
  int refused = 0;
  for (const Json::json_pointer& place : places) {
    for (const Json& value : hostile) {
      Json changed = manifest;
      changed[place] = value;
      put(tiny.path() / "manifest.json",
          place.back() == "self_hash" ? changed.dump() + "\n" : signed_text(changed));
      const checkpoint::Verdict verdict = verify(tiny.path(), Depth::contents);
      refused += !verdict.problem.empty();
      // Texts and counts about the run may be anything of their type; whatever is about files must
      // be refused.
      const std::string where = place.to_string();
      const bool free_value = has(where, "/train_state/") || where == "/save_sequence";
      INFO(where << " = " << value.dump().substr(0, 100) << ": " << verdict.problem);
      if (!free_value) CHECK(!verdict.problem.empty());
      CHECK(!has(verdict.problem, "\n"));
      CHECK(verdict.problem.size() < 1500);
    }
    Json changed = manifest;
    if (place.parent_pointer().empty() || changed[place.parent_pointer()].is_object()) {
      changed[place.parent_pointer()].erase(place.back());
      put(tiny.path() / "manifest.json",
          place.back() == "self_hash" ? changed.dump() + "\n" : signed_text(changed));
      INFO(place.to_string() << " removed");
      // Without the hashes of a file's chunks the root over them is checked.
      CHECK(tiny.problem().empty() == (place.back() == "chunks"));
    }
  }
  CHECK(refused > 1000);
}

TEST_CASE("what is no directory, no file or no JSON is a verdict, not an exception") {
  const TempDir dir;
  CHECK(has(verify(dir / "nowhere", Depth::contents).problem, "there is no such directory"));
  CHECK(has(verify(dir.put("file", "x"), Depth::contents).problem, "has no manifest.json"));
  fs::create_directories(dir / "a" / "manifest.json");
  CHECK(has(verify(dir / "a", Depth::contents).problem, "this is a directory"));
  dir.put("b/manifest.json", std::string(200'000, '['));
  CHECK(has(verify(dir / "b", Depth::contents).problem, "nested deeper"));
  dir.put("c/manifest.json", "");
  CHECK(has(verify(dir / "c", Depth::contents).problem, "not valid JSON"));
  fs::create_directory(dir / "d");
  put(dir / "d" / "manifest.json", "");
  fs::resize_file(dir / "d" / "manifest.json", int64_t{300} << 20);  // sparse
  CHECK(has(verify(dir / "d", Depth::contents).problem, "larger than 256"));
}

TEST_CASE("resume takes the newest whole checkpoint and says why not the newer ones") {
  const Saved saved(4);
  fs::resize_file(saved.step(4) / kShard, 64);
  fs::remove(saved.step(3) / "manifest.json");
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = saved.dir.path()});
  const CheckpointStore::Found found = store.newest();
  REQUIRE(found.info);
  CHECK(found.info->state.step == 2);
  REQUIRE(found.refused.size() == 2);
  const std::string all = found.refused[0] + "\n" + found.refused[1];
  CHECK(has(all, (saved.step(4)).string() + ": " + kShard + " has 64 bytes, the manifest says"));
  CHECK(has(all, (saved.step(3)).string() + ": has no manifest.json"));
  CHECK(has(
      all,
      "Resuming from step-00000002, the newest valid one; remove step-00000004 to silence this."));
  CHECK(!has(found.refused[0], "\n"));
}

TEST_CASE("every rank hashes its share and all refuse alike") {
  const Saved saved(2);
  {
    std::fstream file(saved.step(2) / kShard, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-3, std::ios::end);
    file.put('!');
  }
  std::vector<std::string> refused(3);
  std::vector<int64_t> steps(3, -1);
  run_ranks(3, [&](comm::ControlGroup& group) {
    CheckpointStore store(group, {.directory = saved.dir.path()});
    const CheckpointStore::Found found = store.newest();
    steps[static_cast<size_t>(group.rank())] = found.info->state.step;
    refused[static_cast<size_t>(group.rank())] = join(found.refused, "\n");
  });
  CHECK(steps == std::vector<int64_t>{1, 1, 1});
  CHECK(has(refused[0], "the file changed after it was committed"));
  CHECK(refused == std::vector<std::string>(3, refused[0]));
}

TEST_CASE("checkpoints of which none is whole are an error, never a fresh start") {
  const Saved saved(2);
  fs::remove(saved.step(1) / kShard);
  put(saved.step(2) / "manifest.json", "{}");
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = saved.dir.path()});
  const std::string message = message_of<CheckpointError>([&] { store.newest(); });
  CHECK(has(message, "of 2 checkpoints none is valid"));
  CHECK(has(message, "step-00000001: shard-00000-of-00001.safetensors is missing"));
  CHECK(has(message, "step-00000002: manifest: manifest lacks the field format"));
  CHECK(has(message, "start anew in another run_dir"));
  CHECK(
      has(message_of<CheckpointError>([&] { checkpoint::CheckpointReader reader(saved.step(1)); }),
          "is missing"));
}

TEST_CASE("a reader hashes the chunks that it reads, and no others") {
  constexpr int64_t kElements = (int64_t{32} << 20) / 4;  // each kind: one chunk and a little more
  const Saved saved(1, {{"w", {kElements + 1000}, -1}});
  const auto flip = [&](int64_t offset) {
    std::fstream file(saved.step(1) / kShard, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const auto byte = static_cast<char>(file.get());
    file.seekp(offset);
    file.put(static_cast<char>(byte ^ 4));
  };
  const auto spec = sharding::whole_tensor("w", {kElements + 1000});
  at::Tensor values = at::empty({kElements + 1000}, at::kFloat);
  const auto read = [&](const char* kind, int64_t begin, int64_t end) {
    const checkpoint::CheckpointReader reader(saved.step(1));
    return message_of<CheckpointError>([&] {
      at::Tensor out = values.narrow(0, 0, end - begin);
      reader.read_state(kind, spec, begin, end, out);
    });
  };
  const auto last = static_cast<int64_t>(fs::file_size(saved.step(1) / kShard)) - 1;
  flip(last);
  const std::string fault = "shard-00000-of-00001.safetensors: SHA-256 is ";
  CHECK(has(verify(saved.step(1), Depth::contents).problem, fault));
  CHECK(
      has(verify(saved.step(1), Depth::contents).problem, " in chunk 4 of 4 (bytes 100663296 to "));
  CHECK(verify(saved.step(1), Depth::weights).problem == "");
  const checkpoint::CheckpointReader whole(saved.step(1));
  CHECK_NOTHROW(whole.read_slice(spec, 0, kElements + 1000, values));
  CHECK(values[kElements].item<float>() == expected_value(sharding::kMaster, "w", kElements, 1));
  CHECK(has(read("exp_avg_sq", kElements + 900, kElements + 1000), fault));
  flip(last);
  CHECK(verify(saved.step(1), Depth::contents).problem == "");
  flip(1000);  // of the first weights
  CHECK(has(read("master", 0, 10), " in chunk 1 of 4 "));
  CHECK(has(read("exp_avg", 0, 10), " in chunk 1 of 4 "));  // the header's chunk
  CHECK(has(verify(saved.step(1), Depth::weights).problem, fault));
}

TEST_CASE("a checkpoint that changes between choice and loading is refused") {
  const Saved saved(1);
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = saved.dir.path()});
  checkpoint::CheckpointInfo info = *store.newest().info;
  fs::resize_file(saved.step(1) / kShard, 64);
  sharding::StateDict state = empty_state({}, 0);
  CHECK(has(message_of<Error>([&] { store.load_into(state, info); }), "truncated"));
  info.save_id = std::string(32, '0');
  CHECK(
      has(message_of<Error>([&] { store.load_into(state, info); }), "that was found there before"));
}

TEST_CASE("the list shows the newest first and the damaged last") {
  const Saved saved(3);
  put(saved.step(2) / "manifest.json", "{}");
  const auto list = checkpoint::list_checkpoints(saved.dir.path(), Depth::contents);
  REQUIRE(list.size() == 3);
  CHECK(list[0].info->state.step == 3);
  CHECK(list[1].info->state.step == 1);
  CHECK(list[2].path == saved.step(2));
  CHECK(!list[2].problem.empty());
  CHECK(checkpoint::list_checkpoints(saved.dir / "nowhere", Depth::manifest).empty());
}

}  // namespace
}  // namespace tptrain::testing
