#include "inference/utf8_stream.h"

#include <cstdint>

namespace tptrain::inference {

namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

/// Bytes of a sequence that starts with `first`, or 0 where none does.
size_t sequence_length(uint8_t first) {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  if (first >= 0xf0 && first <= 0xf4) return 4;
  return 0;
}

/// Whether `next` may be byte `index` (1 ..) of a sequence that starts with `first`: excludes
/// overlong forms, surrogates and values beyond U+10FFFF.
bool continues(uint8_t first, size_t index, uint8_t next) {
  if (index == 1) {
    if (first == 0xe0) return next >= 0xa0 && next <= 0xbf;
    if (first == 0xed) return next >= 0x80 && next <= 0x9f;
    if (first == 0xf0) return next >= 0x90 && next <= 0xbf;
    if (first == 0xf4) return next >= 0x80 && next <= 0x8f;
  }
  return next >= 0x80 && next <= 0xbf;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string text;
  size_t begin = 0;
  while (begin < pending_.size()) {
    const auto first = static_cast<uint8_t>(pending_[begin]);
    const size_t length = sequence_length(first);
    size_t have = 1;
    while (have < length && begin + have < pending_.size() &&
           continues(first, have, static_cast<uint8_t>(pending_[begin + have]))) {
      ++have;
    }
    if (have < length && begin + have == pending_.size()) break;  // may still become whole
    if (length == 0 || have < length) {
      text += kReplacement;
    } else {
      text.append(pending_, begin, length);
    }
    begin += have;
  }
  pending_.erase(0, begin);
  return text;
}

std::string Utf8Stream::finish() {
  const bool waiting = !pending_.empty();
  pending_.clear();
  return waiting ? std::string(kReplacement) : std::string();
}

}  // namespace tptrain::inference
