#include "recorded_io.h"

#include <fcntl.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>

namespace tptrain::testing {

namespace fs = std::filesystem;

namespace {

using Kind = RecordedCall::Kind;

std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields(1);
  for (const char c : line) {
    if (c == '\t') {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  return fields;
}

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

// As io_faults.h says; false where the call changes nothing.
bool understand(const std::vector<std::string>& field, RecordedCall& call) {
  const std::string& name = field[3];
  const int64_t result = std::stoll(field[6]);
  if (name == "note") {
    call.kind = Kind::note;
    return true;
  }
  if (result < 0) return false;
  if (name == "open") {
    call.kind = Kind::make_file;
    return !field[5].empty() && std::isdigit(static_cast<unsigned char>(field[5][0])) != 0 &&
           (std::stoi(field[5]) & O_CREAT) != 0;
  }
  const std::map<std::string, Kind> kinds = {
      {"write", Kind::write},   {"fsync", Kind::sync},    {"mkdir", Kind::make_directory},
      {"rename", Kind::rename}, {"unlink", Kind::unlink}, {"rmdir", Kind::remove_directory}};
  const auto kind = kinds.find(name);
  if (kind == kinds.end()) {
    // sync_file_range only begins the writing: it makes nothing safe.
    for (const std::string harmless :
         {"read", "pread", "close", "opendir", "flock", "sync_file_range"}) {
      if (name == harmless) return false;
    }
    throw std::runtime_error("the model knows no call '" + name + "': teach it");
  }
  call.kind = kind->second;
  return true;
}

struct Node;
using NodePointer = std::shared_ptr<Node>;

// A change of a directory's names since it was synced. A rename is one.
struct NameChange {
  std::string removed;  // "" where none
  std::string made;
  NodePointer node;  // of `made`
};
using Names = std::map<std::string, NodePointer>;

struct Node {
  bool is_directory = false;
  // Of a file: its bytes that are safe, and what was written since, in order.
  std::string safe_bytes;
  std::vector<std::string> written;
  // Of a directory: its entries as running processes see them, and as they are safe.
  Names now;
  Names safe;
  std::vector<NameChange> changes;
};

void change_names(Names& names, const NameChange& change) {
  if (!change.removed.empty()) names.erase(change.removed);
  if (!change.made.empty()) names[change.made] = change.node;
}

class Disk {
 public:
  Disk() { root_->is_directory = true; }

  void apply(const RecordedCall& call) {
    if (call.kind == Kind::note) return;
    if (call.kind == Kind::sync) return sync(*at(call.path));
    if (call.kind == Kind::write) return at(call.path)->written.push_back(call.bytes);
    Node& directory = *at(fs::path(call.path).parent_path());
    const std::string name = fs::path(call.path).filename();
    switch (call.kind) {
      case Kind::make_file:
        if (directory.now.contains(name)) return;  // opened again
        return change(directory, {.removed = {}, .made = name, .node = new_node(false)});
      case Kind::make_directory:
        return change(directory, {.removed = {}, .made = name, .node = new_node(true)});
      case Kind::rename:
        if (fs::path(call.to).parent_path() != fs::path(call.path).parent_path())
          throw std::runtime_error("the model knows no rename to another directory: teach it");
        return change(directory, {.removed = name,
                                  .made = fs::path(call.to).filename(),
                                  .node = directory.now.at(name)});
      default:
        return change(directory, {.removed = name, .made = {}, .node = nullptr});
    }
  }

  /// One of the states that the disk may be in, at `target`.
  void write_to(const fs::path& target, std::mt19937_64& random) const {
    write_directory(*root_, target, {random, static_cast<Mood>(random() % 4)});
  }

 private:
  enum class Mood { loses_all, keeps_all, mixed, mixed_more };
  struct Fate {
    std::mt19937_64& random;
    Mood mood;
    bool keeps() const {
      return mood == Mood::keeps_all || (mood != Mood::loses_all && random() % 2 == 0);
    }
  };

  static NodePointer new_node(bool is_directory) {
    auto node = std::make_shared<Node>();
    node->is_directory = is_directory;
    return node;
  }

  NodePointer at(const fs::path& path) const {
    NodePointer node = root_;
    for (const fs::path& part : path) node = node->now.at(part.string());
    return node;
  }

  static void change(Node& directory, NameChange change) {
    change_names(directory.now, change);
    directory.changes.push_back(std::move(change));
  }

  static void sync(Node& node) {
    for (const std::string& bytes : node.written) node.safe_bytes += bytes;
    node.written.clear();
    for (const NameChange& change : node.changes) change_names(node.safe, change);
    node.changes.clear();
  }

  static void write_directory(const Node& directory, const fs::path& target, const Fate& fate) {
    fs::create_directories(target);
    Names names = directory.safe;
    for (const NameChange& change : directory.changes) {
      if (fate.keeps()) change_names(names, change);
    }
    for (const auto& [name, node] : names) {
      if (node->is_directory) {
        write_directory(*node, target / name, fate);
      } else {
        std::ofstream(target / name, std::ios::binary) << bytes_of(*node, fate);
      }
    }
  }

  static std::string bytes_of(const Node& file, const Fate& fate) {
    std::string bytes = file.safe_bytes;
    for (const std::string& written : file.written) {
      if (fate.mood == Mood::keeps_all) {
        bytes += written;
        continue;
      }
      if (fate.mood == Mood::loses_all) return bytes;
      switch (fate.random() % 4) {
        case 0:  // lost, and with it what follows
          return bytes;
        case 1:  // torn
          return bytes + written.substr(0, fate.random() % (written.size() + 1));
        case 2:  // its length was kept, its bytes were not
          bytes.append(written.size(), '\0');
          break;
        default:
          bytes += written;
      }
    }
    return bytes;
  }

  NodePointer root_ = std::make_shared<Node>();
};

}  // namespace

std::vector<RecordedCall> read_record(const fs::path& records, int ranks, const fs::path& folder) {
  std::vector<RecordedCall> calls;
  const std::string root = folder.string() + "/";
  const auto relative = [&](const std::string& path) {
    return path.starts_with(root) ? path.substr(root.size()) : std::string();
  };
  for (int rank = 0; rank < ranks; ++rank) {
    const std::string stem = "rank-" + std::to_string(rank);
    const std::string data = contents(records / (stem + ".data"));
    std::istringstream lines(contents(records / (stem + ".calls")));
    size_t at = 0;
    for (std::string line; std::getline(lines, line);) {
      const std::vector<std::string> field = fields_of(line);
      RecordedCall call;
      const bool matters = understand(field, call);
      const int64_t result = std::stoll(field[6]);
      if (field[3] == "write" && result > 0) {
        call.bytes = data.substr(at, static_cast<size_t>(result));
        at += static_cast<size_t>(result);
      }
      if (!matters) continue;
      call.begin_us = std::stoll(field[0]);
      call.end_us = std::stoll(field[1]);
      call.path = call.kind == Kind::note ? field[5] : relative(field[4]);
      if (call.kind == Kind::rename) call.to = relative(field[5]);
      calls.push_back(std::move(call));
    }
  }
  std::stable_sort(calls.begin(), calls.end(), [](const RecordedCall& a, const RecordedCall& b) {
    return a.end_us < b.end_us;
  });
  return calls;
}

void make_crash_state(const std::vector<RecordedCall>& calls, size_t crash, std::mt19937_64& random,
                      const fs::path& target) {
  Disk disk;
  for (size_t i = 0; i < crash; ++i) disk.apply(calls[i]);
  disk.write_to(target, random);
}

}  // namespace tptrain::testing
