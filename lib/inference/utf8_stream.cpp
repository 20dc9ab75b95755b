#include "inference/utf8_stream.h"

#include "base/utf8.h"

namespace tptrain::inference {

namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string text;
  size_t begin = 0;
  while (begin < pending_.size()) {
    const auto [length, have] = utf8_begin(std::string_view(pending_).substr(begin));
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
