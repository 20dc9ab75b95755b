// YAML text -> the entries it gives: one per known key, typed, with its place. Knows types and
// names of the keys, not bounds or what must be given (checks.cpp). Private to this folder; the
// only header that deals with what yaml-cpp reads.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "config/keys.h"

namespace tptrain::config {

struct Entry {
  const Key* key = nullptr;
  Value value;
  std::string place;
};

struct Entries {
  /// How many problems of a file are told one by one; of more, how many there are.
  static constexpr size_t kMostTold = 50;

  std::vector<Entry> entries;
  /// Sections and keys that were written, with their places, also those whose value was refused.
  std::vector<std::pair<std::string, std::string>> given;
  /// Those of them whose value was refused: "" is the file itself.
  std::set<std::string> refused;
  std::vector<Problem> problems;
  int64_t untold = 0;  // problems beyond kMostTold
  bool empty_text = false;

  bool is_full() const { return problems.size() >= kMostTold; }
  void complain(Problem p) {
    if (is_full()) {
      ++untold;
    } else {
      problems.push_back(std::move(p));
    }
  }
};

/// Reads a whole file. `name` is what messages call it: places are "name:line:column".
Entries read_file_text(const std::string& yaml_text, const std::string& name);

/// Reads one "section.key=value" of --set; the place of all it gives is "--set section.key=value".
Entries read_override(const std::string& text);

}  // namespace tptrain::config
