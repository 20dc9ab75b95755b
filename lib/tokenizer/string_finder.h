// Strings that are found in a text whatever stands around them. Private to this folder.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tptrain::tokenizer {

/// Strings to be found in a text: the leftmost, of those at one place the longest.
class StringFinder {
 public:
  struct Entry {
    std::string text;
    int32_t id = -1;
    bool special = true;
  };
  void add(Entry entry) {
    auto& bucket = by_first_byte_[static_cast<unsigned char>(entry.text[0])];
    const auto shorter = std::find_if(bucket.begin(), bucket.end(), [&](const Entry& other) {
      return other.text.size() < entry.text.size();
    });
    bucket.insert(shorter, std::move(entry));
    empty_ = false;
  }
  bool empty() const { return empty_; }
  /// Calls between(text) and found(id) in turn; between may get "".
  template <typename Between, typename Found>
  void split(std::string_view text, bool special_as_text, Between between, Found found) const {
    size_t begin = 0;
    for (size_t at = 0; at < text.size();) {
      const Entry* entry = entry_at(text.substr(at), special_as_text);
      if (entry == nullptr) {
        ++at;
        continue;
      }
      between(text.substr(begin, at - begin));
      found(entry->id);
      at += entry->text.size();
      begin = at;
    }
    between(text.substr(begin));
  }

 private:
  const Entry* entry_at(std::string_view text, bool special_as_text) const {
    for (const Entry& entry : by_first_byte_[static_cast<unsigned char>(text[0])]) {
      if ((!entry.special || !special_as_text) && text.starts_with(entry.text)) return &entry;
    }
    return nullptr;
  }
  std::vector<Entry> by_first_byte_[256];  // longest first
  bool empty_ = true;
};

}  // namespace tptrain::tokenizer
