#include "chat_template/sourced_text.h"

#include <algorithm>
#include <utility>

namespace tptrain::chat_template {

namespace {

/// The first run that ends behind `byte`.
auto run_at(const std::vector<SourcedText::Run>& runs, size_t byte) {
  return std::upper_bound(runs.begin(), runs.end(), byte,
                          [](size_t at, const SourcedText::Run& run) { return at < run.end; });
}

}  // namespace

SourcedText::SourcedText(std::string bytes, Source source) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) extend(bytes_.size(), source);
}

void SourcedText::append_bytes(std::string_view bytes, Source source) {
  if (bytes.empty()) return;
  const size_t before = bytes_.size();
  bytes_ += bytes;
  if (runs_.empty() && before > 0 && source != Source{}) runs_.push_back({before, {}});
  extend(bytes_.size(), source);
}

void SourcedText::append_part(const SourcedText& text, size_t begin, size_t count) {
  const size_t end = begin + std::min(count, text.size() - begin);
  if (text.runs_.empty()) {
    append_bytes(std::string_view(text.bytes_).substr(begin, end - begin));
    return;
  }
  for (auto run = run_at(text.runs_, begin); begin < end; ++run) {
    const size_t stop = std::min(end, run->end);
    append_bytes(std::string_view(text.bytes_).substr(begin, stop - begin), run->source);
    begin = stop;
  }
}

SourcedText SourcedText::part(size_t begin, size_t count) const {
  SourcedText part;
  part.append_part(*this, begin, count);
  return part;
}

Source SourcedText::source_at(size_t byte) const {
  const auto run = run_at(runs_, byte);
  return run == runs_.end() ? Source{} : run->source;
}

void SourcedText::extend(size_t end, Source source) {
  if (runs_.empty() && source == Source{}) return;
  if (!runs_.empty() && runs_.back().source == source) {
    runs_.back().end = end;
  } else {
    runs_.push_back({end, source});
  }
}

}  // namespace tptrain::chat_template
