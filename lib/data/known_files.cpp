#include "data/known_files.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"
#include "base/files.h"

namespace tptrain::data {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr int64_t kLongest = int64_t{1} << 28;

std::string key_of(const fs::path& file) { return fs::absolute(file).lexically_normal().native(); }

}  // namespace

KnownFiles::KnownFiles(const fs::path& directory, Trust trust)
    : path_(directory / "known_files.json"), trust_(trust) {
  std::error_code none;
  if (trust == Trust::none || !fs::is_regular_file(path_, none)) return;
  try {
    const json all = json::parse(read_file(path_, kLongest));
    for (const auto& [file, entry] : all.items()) {
      entries_[file] = {.size = entry.at("size"),
                        .time_ns = entry.at("time_ns"),
                        .inode = entry.at("inode"),
                        .sha256 = entry.at("sha256")};
    }
  } catch (const json::exception&) {
    entries_.clear();  // not as this program writes it: then the files are read
  } catch (const DataError&) {
    entries_.clear();
  }
}

std::optional<KnownFiles::Entry> KnownFiles::look_at(const fs::path& file) {
  struct stat now = {};
  if (::stat(file.c_str(), &now) != 0) return std::nullopt;
  return Entry{.size = now.st_size,
               .time_ns = int64_t{now.st_mtim.tv_sec} * 1'000'000'000 + now.st_mtim.tv_nsec,
               .inode = now.st_ino};
}

std::optional<std::string> KnownFiles::sha256(const fs::path& file) const {
  const auto known = entries_.find(key_of(file));
  if (known == entries_.end()) return std::nullopt;
  const std::optional<Entry> now = look_at(file);
  const Entry& then = known->second;
  if (!now || now->size != then.size || now->time_ns != then.time_ns || now->inode != then.inode)
    return std::nullopt;
  return then.sha256;
}

void KnownFiles::note(const fs::path& file, const std::string& sha256) {
  if (trust_ == Trust::none) return;
  std::optional<Entry> entry = look_at(file);
  if (!entry) return;
  entry->sha256 = sha256;
  entries_[key_of(file)] = *entry;
}

void KnownFiles::save() const {
  if (trust_ == Trust::none) return;
  json all = json::object();
  for (const auto& [file, entry] : entries_) {
    all[file] = {{"size", entry.size},
                 {"time_ns", entry.time_ns},
                 {"inode", entry.inode},
                 {"sha256", entry.sha256}};
  }
  // Names may be any bytes; one that is no UTF-8 is not found again.
  const std::string text = all.dump(1, ' ', false, json::error_handler_t::replace);
  write_file_atomically(path_, text, FailAs::data_error);
}

}  // namespace tptrain::data
