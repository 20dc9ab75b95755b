#include "base/text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <iomanip>
#include <iterator>
#include <utility>

namespace tptrain {

std::string with_thousands(int64_t value) {
  std::string digits = std::to_string(value);
  const int first = value < 0 ? 1 : 0;
  for (int at = static_cast<int>(digits.size()) - 3; at > first; at -= 3) digits.insert(at, 1, ',');
  return digits;
}

std::string fixed(double value, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << value;
  return std::move(out).str();
}

std::string human_bytes(int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  return cat(fixed(value, unit == 0 ? 0 : 2), " ", kUnits[unit]);
}

namespace {

using Words = std::vector<std::string>;

// The word in lower case, cut at _ and -.
Words parts_of(std::string_view word) {
  Words parts(1);
  for (const char c : word) {
    if (c == '_' || c == '-') {
      parts.emplace_back();
    } else {
      parts.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  return parts;
}

// Insertions, deletions, substitutions and exchanges of two neighbours that lead from a to b
// (Damerau's distance, each letter touched once), three rows at a time.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    std::swap(before, above);
    std::swap(above, row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row.back();
}

bool same_letters(std::string a, std::string b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  return a == b;
}

std::string digits_of(const std::string& word) {
  std::string digits;
  std::copy_if(word.begin(), word.end(), std::back_inserter(digits),
               [](unsigned char c) { return std::isdigit(c) != 0; });
  return digits;
}

constexpr size_t kFar = 1000;

// Typing errors between two words without separators; kFar where they are more likely two words: a
// letter alone tells tp from pp and min from max, and other digits (fp16, fp32) are no typing
// error.
size_t typing_errors(const std::string& a, const std::string& b) {
  if (a == b) return 0;
  const size_t longer = std::max(a.size(), b.size());
  if (!same_letters(digits_of(a), digits_of(b))) return kFar;
  if (longer == 3 && same_letters(a, b)) return 1;
  const size_t allowed = longer <= 3 ? 0 : longer <= 6 ? 1 : longer <= 8 ? 2 : 3;
  const size_t errors = edit_distance(a, b);
  return errors <= allowed ? errors : kFar;
}

// Words of as many parts are compared part by part: local_batch_size is not global_batch_size.
size_t typing_errors(const Words& a, const Words& b) {
  if (a.size() != b.size()) return typing_errors(join(a, ""), join(b, ""));
  size_t errors = 0;
  for (size_t i = 0; i < a.size(); ++i) errors += typing_errors(a[i], b[i]);
  return errors;
}

// The one member of `known` that begins with `word`.
std::string only_one_that_begins_with(std::string_view word, const Words& known) {
  const auto begins = [&](const std::string& candidate) { return candidate.starts_with(word); };
  const auto first = std::find_if(known.begin(), known.end(), begins);
  if (first == known.end() || std::find_if(first + 1, known.end(), begins) != known.end()) {
    return "";
  }
  return *first;
}

}  // namespace

std::string nearest_word(std::string_view word, const std::vector<std::string>& known) {
  constexpr size_t kLongest = 64;  // longer ones are no typing errors, and would take their time
  if (word.size() > kLongest) return "";
  const Words parts = parts_of(word);
  std::string best;
  size_t fewest = kFar;
  for (const std::string& candidate : known) {
    const size_t errors = typing_errors(parts, parts_of(candidate));
    if (errors >= fewest) continue;
    fewest = errors;
    best = candidate;
  }
  if (best.empty() && join(parts, "").size() >= 3) return only_one_that_begins_with(word, known);
  return best;
}

}  // namespace tptrain
