// Small text helpers, since std::format is not in gcc 12 and fmt must not meet torch's own copy.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain {

/// Streams its arguments into one string: cat("step ", 7, " of ", 9).
template <typename... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return std::move(out).str();
}

/// "1, 2, 4": elements streamed with a separator.
template <typename Range>
std::string join(const Range& range, std::string_view separator = ", ") {
  std::ostringstream out;
  bool first = true;
  for (const auto& element : range) {
    if (!first) out << separator;
    out << element;
    first = false;
  }
  return std::move(out).str();
}

/// "12,345,678"
std::string with_thousands(int64_t value);
/// "1.50 GiB", "512 B"
std::string human_bytes(int64_t bytes);
/// Fixed point: fixed(3.14159, 2) == "3.14"
std::string fixed(double value, int digits);
/// The member of `known` nearest to `word` by edit distance, or "" where none is near enough to be
/// a typing error.
std::string nearest_word(std::string_view word, const std::vector<std::string>& known);

}  // namespace tptrain
