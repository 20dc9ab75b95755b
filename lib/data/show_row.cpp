#include "data/show_row.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/utf8.h"
#include "data/packing.h"

namespace tptrain::data {

namespace {

/// Control characters never reach the terminal, and neither does half a character.
std::string on_one_line(const std::string& text) {
  const std::string quoted =
      nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return quoted.substr(1, quoted.size() - 2);
}

}  // namespace

std::string show_row(const formats::TokenFile& file, int64_t document,
                     const tokenizer::Tokenizer& tokenizer, size_t most_bytes,
                     const RowMarks& marks) {
  const TokenRange range = document_range(file.header(), document);
  // A token has hardly ever less than a byte of text.
  const auto count =
      static_cast<size_t>(std::min(range.end - range.begin, static_cast<int64_t>(most_bytes)));
  std::vector<int64_t> ids(count);
  std::vector<int64_t> labels(count);
  file.copy(range.begin, ids);
  file.copy_labels(range.begin, labels);
  std::string shown;
  size_t begin = 0;
  while (begin < count && shown.size() < most_bytes) {
    // The first token is nobody's target.
    const auto learned = [&](size_t at) { return at > 0 && labels[at] != formats::kNoLabel; };
    size_t end = begin + 1;
    while (end < count && learned(end) == learned(begin)) ++end;
    const std::vector<int32_t> run(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                   ids.begin() + static_cast<std::ptrdiff_t>(end));
    std::string text = on_one_line(tokenizer.decode(run, {.skip_special = false}));
    if (text.size() > most_bytes) text.resize(utf8_prefix(text, most_bytes).size());
    shown += learned(begin) ? marks.begin + text + marks.end : text;
    begin = end;
  }
  if (shown.size() >= most_bytes || begin < static_cast<size_t>(range.end - range.begin)) {
    shown += " ...";
  }
  return shown;
}

}  // namespace tptrain::data
