#include "tokenizer/regex.h"

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"
#include "tokenizer/code_points.h"

// Last: its macros are many.
#include <oniguruma.h>

namespace tptrain::tokenizer {

namespace {

// The longest pattern in use (DeepSeek's) has some 1,000 characters.
constexpr size_t kPatternLimit = 16384;

// A search first gets few steps; one that needs more is run again with as many as the Hugging Face
// library allows for a match, and only some searches of a text may need that. So the steps for a
// text are bounded by its length, and patterns of real tokenizers never meet the bound.
constexpr unsigned long kFewSteps = 20'000;
constexpr unsigned long kManySteps = 10'000'000;
size_t long_searches_allowed(size_t text_size) { return 16 + text_size / 1000; }

std::string message_of(int code, OnigErrorInfo* info) {
  UChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int length = info != nullptr ? onig_error_code_to_str(text, code, info)
                                     : onig_error_code_to_str(text, code);
  return replace_invalid_utf8(
      std::string_view(reinterpret_cast<char*>(text), static_cast<size_t>(std::max(length, 0))));
}

const UChar* bytes_of(std::string_view text) { return reinterpret_cast<const UChar*>(text.data()); }

struct RegionFree {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};
struct ParametersFree {
  void operator()(OnigMatchParam* parameters) const { onig_free_match_param(parameters); }
};

}  // namespace

struct Regex::Impl {
  regex_t* regex = nullptr;
  std::string pattern;
  std::string where;
};

void initialize_oniguruma() {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
    onig_set_subexp_call_limit_in_search(100'000);  // (?<n>..\g<n>..) counts no other steps
  });
}

Regex::Regex(const std::string& pattern, const std::string& where)
    : impl_(std::make_unique<Impl>()) {
  initialize_oniguruma();
  impl_->pattern = pattern;
  impl_->where = where;
  if (pattern.size() > kPatternLimit) {
    throw DataError(problem(cat("regular expression of ", with_thousands(pattern.size()), " bytes"))
                        .at(where)
                        .must(cat("have at most ", with_thousands(kPatternLimit))));
  }
  // onig_new writes what the library shares between patterns (its table of names and case folds).
  static std::mutex compiling;
  const std::lock_guard lock(compiling);
  OnigErrorInfo info;
  const int code = onig_new(&impl_->regex, bytes_of(pattern), bytes_of(pattern) + pattern.size(),
                            ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info);
  if (code != ONIG_NORMAL) {
    const std::string reason = message_of(code, &info);
    throw DataError(problem(cat("regular expression ", beginning_of(pattern, 200),
                                " does not compile: ", reason))
                        .at(where));
  }
}

Regex::~Regex() {
  if (impl_->regex != nullptr) onig_free(impl_->regex);
}

void Regex::find_all(std::string_view text, std::vector<Span>& spans) const {
  const std::unique_ptr<OnigRegion, RegionFree> region(onig_region_new());
  const std::unique_ptr<OnigMatchParam, ParametersFree> parameters(onig_new_match_param());
  if (region == nullptr || parameters == nullptr) throw std::bad_alloc();
  onig_initialize_match_param(parameters.get());
  // A repeat may remember each character it passed, some of them twice.
  onig_set_match_stack_limit_size_of_match_param(
      parameters.get(),
      static_cast<unsigned int>(std::min<size_t>(100'000 + 16 * text.size(), 1u << 31)));
  const auto search = [&](size_t from, unsigned long steps) {
    onig_set_retry_limit_in_match_of_match_param(parameters.get(), steps);
    onig_set_retry_limit_in_search_of_match_param(parameters.get(), steps);
    const UChar* begin = bytes_of(text);
    return onig_search_with_param(impl_->regex, begin, begin + text.size(), begin + from,
                                  begin + text.size(), region.get(), ONIG_OPTION_NONE,
                                  parameters.get());
  };

  size_t from = 0;           // where the next search begins
  size_t covered = 0;        // the text before it is in spans
  size_t long_searches = 0;  // that took more than a few steps
  bool have_match = false;
  size_t last_match_end = 0;
  while (from <= text.size()) {
    int found = search(from, kFewSteps);
    if (found == ONIGERR_RETRY_LIMIT_IN_MATCH_OVER || found == ONIGERR_RETRY_LIMIT_IN_SEARCH_OVER) {
      if (++long_searches <= long_searches_allowed(text.size())) {
        found = search(from, kManySteps + 4 * text.size());
      }
    }
    if (found == ONIG_MISMATCH) break;
    if (found < 0) {
      throw DataError(
          problem(cat("regular expression ", beginning_of(impl_->pattern, 200),
                      " fails on a text of ", with_thousands(static_cast<int64_t>(text.size())),
                      " bytes: ", message_of(found, nullptr)))
              .at(impl_->where)
              .remedy("The pattern takes too many steps for this text. Cut the text into shorter "
                      "documents, or use the tokenizer that the model was published with."));
    }
    const auto begin = static_cast<size_t>(region->beg[0]);
    const auto end = static_cast<size_t>(region->end[0]);
    if (begin == end && have_match && last_match_end == end) {
      if (from >= text.size()) break;
      next_code_point(text, from);
      continue;
    }
    if (covered < begin) spans.push_back({covered, begin, false});
    spans.push_back({begin, end, true});
    have_match = true;
    covered = from = last_match_end = end;
  }
  if (covered < text.size()) spans.push_back({covered, text.size(), false});
}

}  // namespace tptrain::tokenizer
