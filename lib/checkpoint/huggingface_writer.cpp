#include "checkpoint/huggingface_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <iomanip>
#include <set>
#include <sstream>
#include <system_error>
#include <utility>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/random_id.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/huggingface_files.h"
#include "checkpoint/stored_parts.h"
#include "checkpoint/stored_stream.h"
#include "formats/float_convert.h"
#include "formats/safetensors.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;

namespace {

using formats::Dtype;
using sharding::StoredTensor;

constexpr std::string_view kTemporaryMark = ".tptrain-export-";

using Parts = std::span<const StoredTensor>;

struct Shard {
  std::string file;
  std::vector<Parts> tensors;
};

struct Plan {
  std::vector<Shard> shards;
  std::map<std::string, std::string> weight_map;  // stored name -> file
  int64_t total_bytes = 0;
  int64_t parameters = 0;
};

std::string single_file_name(const ExportNames& names) { return names.weights + ".safetensors"; }

std::string index_name(const ExportNames& names) { return single_file_name(names) + ".index.json"; }

std::string shard_file_name(const ExportNames& names, size_t number, size_t count) {
  if (count == 1) return single_file_name(names);
  std::ostringstream out;
  out << std::setfill('0') << names.weights << "-" << std::setw(5) << number + 1 << "-of-"
      << std::setw(5) << count << ".safetensors";
  return std::move(out).str();
}

// model.safetensors, model-00001-of-00002.safetensors and the index: what an export writes.
bool is_weight_file(const ExportNames& names, const std::string& name) {
  if (name == single_file_name(names) || name == index_name(names)) return true;
  const std::string pattern = names.weights + "-#####-of-#####.safetensors";
  if (name.size() != pattern.size()) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool digit = name[i] >= '0' && name[i] <= '9';
    if (pattern[i] == '#' ? !digit : name[i] != pattern[i]) return false;
  }
  return true;
}

Dtype dtype_of(const std::string& stored_name, const HuggingFaceExport& order) {
  const auto own = order.dtypes.find(stored_name);
  return own == order.dtypes.end() ? order.dtype : own->second;
}

int64_t bytes_of(const StoredTensor& tensor, const HuggingFaceExport& order) {
  const std::optional<int64_t> bytes =
      formats::tensor_bytes(dtype_of(tensor.stored_name, order), tensor.stored_shape);
  if (bytes) return *bytes;
  throw InternalError(problem(cat("tensor ", tensor.stored_name, " of shape [",
                                  join(tensor.stored_shape), "] has no size in bytes")));
}

// The cut that transformers makes: a tensor beyond the limit alone, the others in turn into a file
// until the next would not fit.
Plan plan_of(const sharding::StoredModel& model, const HuggingFaceExport& order) {
  Plan plan;
  Shard open;
  int64_t open_bytes = 0;
  for (const Parts parts : stored_parts(model)) {
    const StoredTensor& tensor = parts.front();
    const Dtype dtype = dtype_of(tensor.stored_name, order);
    if (!formats::is_weight_dtype(dtype)) {
      throw InternalError(
          problem(cat("export of ", tensor.stored_name, " as ", formats::dtype_name(dtype))));
    }
    const int64_t bytes = bytes_of(tensor, order);
    plan.total_bytes += bytes;
    plan.parameters += bytes * 8 / formats::dtype_bits(dtype);
    if (bytes > order.max_shard_bytes) {
      plan.shards.push_back({.file = "", .tensors = {parts}});
      continue;
    }
    if (open_bytes + bytes > order.max_shard_bytes) {
      plan.shards.push_back(std::exchange(open, {}));
      open_bytes = 0;
    }
    open.tensors.push_back(parts);
    open_bytes += bytes;
  }
  if (!open.tensors.empty() || plan.shards.empty()) plan.shards.push_back(std::move(open));
  for (size_t i = 0; i < plan.shards.size(); ++i) {
    plan.shards[i].file = shard_file_name(order.names, i, plan.shards.size());
    for (const Parts parts : plan.shards[i].tensors) {
      plan.weight_map[parts.front().stored_name] = plan.shards[i].file;
    }
  }
  return plan;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const fs::path& path : entries_of(directory, FailAs::checkpoint_error))
    names.push_back(path.filename().string());
  return names;
}

void remove_file(const fs::path& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return;
  throw CheckpointError(
      problem(cat("unlink failed: ", std::generic_category().message(errno))).at(path.string()));
}

// The files of one export: first under temporary names, then under their own.
class FileSet {
 public:
  explicit FileSet(fs::path directory) : directory_(std::move(directory)), id_(random_id()) {}
  // What was not named goes: best effort, on the way out of an error that matters more.
  ~FileSet() {
    for (const std::string& name : written_) ::unlink(temporary(name).c_str());
  }
  FileSet(const FileSet&) = delete;
  FileSet& operator=(const FileSet&) = delete;

  /// Where to write the file `name`.
  fs::path begin(const std::string& name) {
    written_.insert(name);
    return temporary(name);
  }
  /// rename(2); durable with the next fsync of the directory.
  void give_name(const std::string& name) {
    create_directories_durably((directory_ / name).parent_path());
    if (::rename(temporary(name).c_str(), (directory_ / name).c_str()) != 0) {
      const int error = errno;
      throw CheckpointError(
          problem(cat("rename to ", name, " failed: ", std::generic_category().message(error)))
              .at(temporary(name).string()));
    }
    written_.erase(name);
  }
  const std::set<std::string>& unnamed() const { return written_; }

 private:
  // Neither *.json nor *.safetensors: no reader takes it for a part of a model.
  fs::path temporary(const std::string& name) const {
    std::string flat = name;  // additional_chat_templates/rag.jinja
    std::replace(flat.begin(), flat.end(), '/', '+');
    return directory_ / cat(".", flat, kTemporaryMark, id_);
  }

  fs::path directory_;
  std::string id_;
  std::set<std::string> written_;
};

class Export {
 public:
  Export(const sharding::TensorSource& source, const HuggingFaceExport& order, const Plan& plan)
      : source_(source), order_(order), plan_(plan), files_(order.directory) {}

  void run() {
    write_weights();
    if (plan_.shards.size() > 1) {
      write_text(
          index_name(order_.names),
          formats::safetensors_index_text(plan_.weight_map, plan_.total_bytes, plan_.parameters));
    }
    for (const SideFile& file : order_.side_files) {
      write_text(file.name, file.copied_from.empty() ? file.text
                                                     : read_file(file.copied_from, int64_t{1} << 31,
                                                                 FailAs::checkpoint_error));
    }
    take_over();
  }

 private:
  void reached(std::string_view step) const {
    if (order_.fault_point) order_.fault_point(step);
  }

  void write_weights() {
    // What is read from a map counts, too; tensors are read as fp32.
    const Work work("exporting", WorkUnit::parts, static_cast<int64_t>(plan_.weight_map.size()));
    for (const Shard& shard : plan_.shards) write_shard(shard);
  }

  void write_shard(const Shard& shard) {
    std::vector<formats::SafetensorsEntry> entries;
    for (const Parts parts : shard.tensors) {
      entries.push_back({.name = parts.front().stored_name,
                         .dtype = dtype_of(parts.front().stored_name, order_),
                         .shape = parts.front().stored_shape});
    }
    formats::SafetensorsWriter writer(files_.begin(shard.file), entries, {{"format", "pt"}});
    for (const Parts parts : shard.tensors) {
      stream_stored_tensor(
          source_, parts, dtype_of(parts.front().stored_name, order_),
          [&](std::span<const std::byte> bytes) { writer.write(bytes.data(), bytes.size()); });
      work_done(WorkUnit::parts, 1);
    }
    const DurableFile::Written written = writer.commit();
    if (order_.on_file) order_.on_file(shard.file, written.size_bytes);
    reached("file written");
  }

  void write_text(const std::string& name, std::string_view text) {
    DurableFile file(files_.begin(name));
    file.write(text);
    file.commit();
    reached("file written");
  }

  void sync() const { fsync_directory(order_.directory); }

  void give_name(const std::string& name) {
    files_.give_name(name);
    reached("file named");
  }

  // The order of the header comment.
  void take_over() {
    const std::vector<std::string> before = names_in(order_.directory);
    const std::string& config = order_.names.config;
    const std::string index = index_name(order_.names);
    const std::string single = single_file_name(order_.names);
    const std::string& entry = plan_.shards.size() > 1 ? index : single;
    for (const std::string& name : {config, index, single}) remove_file(order_.directory / name);
    sync();
    reached("entry removed");
    const std::set<std::string> ours = files_.unnamed();
    for (const std::string& name : ours) {
      if (name != entry && name != config) give_name(name);
    }
    sync();
    give_name(entry);
    sync();
    if (ours.contains(config)) {
      give_name(config);
      sync();
    }
    reached("committed");
    for (const std::string& name : before) {
      if (is_weight_file(order_.names, name) && !ours.contains(name)) {
        remove_file(order_.directory / name);
      }
    }
    sync();
    reached("stale removed");
  }

  const sharding::TensorSource& source_;
  const HuggingFaceExport& order_;
  const Plan& plan_;
  FileSet files_;
};

// What stands in the way of a first export: weights of any earlier one, and files of these names.
void refuse_existing(const HuggingFaceExport& order) {
  if (order.earlier == EarlierExport::replace) return;
  std::set<std::string> ours;
  for (const SideFile& file : order.side_files) ours.insert(file.name);
  std::vector<std::string> taken;
  for (const std::string& name : names_in(order.directory)) {
    if (is_weight_file(order.names, name)) taken.push_back(name);
  }
  for (const std::string& name : ours) {
    if (is_taken(order.directory / name)) taken.push_back(name);
  }
  std::sort(taken.begin(), taken.end());
  if (taken.empty()) return;
  throw ConfigError(
      problem(cat("the directory already holds ", taken.size(),
                  taken.size() == 1 ? " file" : " files", " of a model"))
          .at(order.directory.string())
          .must("be new, empty or without such files")
          .remedy(cat("Choose another directory, or give --overwrite to replace them as a set.\n",
                      capped_list(taken))));
}

// Of exports that were killed; nobody reads them.
void remove_leftovers(const fs::path& directory) {
  for (const std::string& name : names_in(directory)) {
    if (name.starts_with('.') && name.find(kTemporaryMark) != std::string::npos) {
      remove_file(directory / name);
    }
  }
}

void check_space(const HuggingFaceExport& order, int64_t bytes) {
  const int64_t free_bytes = free_space_bytes(order.directory);
  if (free_bytes >= bytes) return;
  throw CheckpointError(
      problem(cat("the model takes ", human_bytes(bytes), ", and ", human_bytes(free_bytes),
                  " are free here"))
          .at(order.directory.string())
          .remedy("Free space, choose a directory on another file system, or a smaller --dtype. An "
                  "earlier export stays until the new one is whole."));
}

void check_names(const HuggingFaceExport& order) {
  std::set<std::string> names;
  for (const SideFile& file : order.side_files) {
    const fs::path path = file.name;
    const bool within =
        path.is_relative() && std::none_of(path.begin(), path.end(), [](const fs::path& part) {
          return part.empty() || part.native().starts_with("..");
        });
    const bool plain = !file.name.empty() && within && !is_weight_file(order.names, file.name);
    if (plain && names.insert(file.name).second) continue;
    throw InternalError(problem(cat("a side file of an export is named \"", file.name, "\"")));
  }
}

}  // namespace

ExportedModel write_huggingface_model(const sharding::TensorSource& source,
                                      const sharding::StoredModel& model,
                                      const HuggingFaceExport& order) {
  check_stored_model(model);
  check_names(order);
  const Plan plan = plan_of(model, order);
  create_directories_durably(order.directory);
  refuse_existing(order);
  remove_leftovers(order.directory);
  check_space(order, plan.total_bytes);
  Export(source, order, plan).run();
  ExportedModel done = {
      .weight_files = {}, .total_bytes = plan.total_bytes, .parameters = plan.parameters};
  for (const Shard& shard : plan.shards) done.weight_files.push_back(shard.file);
  return done;
}

int64_t parse_shard_size(std::string_view text, const std::string& option) {
  constexpr std::pair<std::string_view, int64_t> kUnits[] = {{"", 1},
                                                             {"B", 1},
                                                             {"KB", 1'000},
                                                             {"MB", 1'000'000},
                                                             {"GB", 1'000'000'000},
                                                             {"TB", 1'000'000'000'000},
                                                             {"KiB", 1 << 10},
                                                             {"MiB", 1 << 20},
                                                             {"GiB", 1 << 30},
                                                             {"TiB", int64_t{1} << 40}};
  int64_t number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(rest, static_cast<size_t>(text.data() + text.size() - rest));
  if (error == std::errc() && number > 0) {
    for (const auto& [name, factor] : kUnits) {
      int64_t bytes = 0;
      if (name == unit && !__builtin_mul_overflow(number, factor, &bytes)) return bytes;
    }
  }
  throw ConfigError(problem(cat("\"", text, "\" is no size of a file"))
                        .at(option)
                        .must("be a whole number with a unit, like 5GB, 500MB or 4GiB"));
}

}  // namespace tptrain::checkpoint
