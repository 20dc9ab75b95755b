#include "tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "tokenizer/character_classes.h"
#include "tokenizer/code_points.h"

namespace tptrain::tokenizer {

namespace {

// The parts that stay, from the parts that a pattern matched or did not: the library's own loops,
// whose corner cases (two matches in a row, a match first or last) decide ids.
std::vector<Span> behave(SplitBehavior behavior, const std::vector<Span>& spans) {
  std::vector<Span> kept;
  kept.reserve(spans.size());
  bool previous_match = false;
  switch (behavior) {
    case SplitBehavior::isolated:
      return spans;
    case SplitBehavior::removed:
      for (const Span& span : spans) {
        if (!span.match) kept.push_back(span);
      }
      return kept;
    case SplitBehavior::contiguous:
      for (const Span& span : spans) {
        if (span.match == previous_match && !kept.empty()) {
          kept.back().end = span.end;
        } else {
          kept.push_back(span);
        }
        previous_match = span.match;
      }
      return kept;
    case SplitBehavior::merged_with_previous:
      for (const Span& span : spans) {
        if (span.match && !previous_match && !kept.empty()) {
          kept.back().end = span.end;
        } else {
          kept.push_back(span);
        }
        previous_match = span.match;
      }
      return kept;
    case SplitBehavior::merged_with_next:
      for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
        if (span->match && !previous_match && !kept.empty()) {
          kept.back().begin = span->begin;
        } else {
          kept.push_back(*span);
        }
        previous_match = span->match;
      }
      std::reverse(kept.begin(), kept.end());
      return kept;
  }
  return kept;
}

uint8_t word_kind(uint8_t classes) {
  return classes & kWord ? kWord : classes & kSpace ? kSpace : 0;
}

}  // namespace

void PreTokenizer::add_split(Pattern pattern, SplitBehavior behavior, bool invert) {
  steps_.push_back(
      {.kind = Kind::split, .behavior = behavior, .invert = invert, .pattern = std::move(pattern)});
}

void PreTokenizer::add_known_split(KnownPattern pattern) {
  steps_.push_back({.kind = Kind::split, .matcher = Matcher::known, .known = pattern});
}

void PreTokenizer::add_character_split(Characters characters, SplitBehavior behavior) {
  const uint8_t character_class = characters == Characters::numbers  ? kNumber
                                  : characters == Characters::spaces ? kSpace
                                                                     : kPunctuation;
  steps_.push_back({.kind = Kind::split,
                    .matcher = Matcher::characters,
                    .behavior = behavior,
                    .character_class = character_class});
}

void PreTokenizer::add_whitespace() {
  steps_.push_back({.kind = Kind::split,
                    .matcher = Matcher::words,
                    .behavior = SplitBehavior::removed,
                    .invert = true});
}

void PreTokenizer::add_prefix_space() { steps_.push_back({.kind = Kind::prefix_space}); }

void PreTokenizer::add_byte_characters() { steps_.push_back({.kind = Kind::byte_characters}); }

void PreTokenizer::add_metaspace(const std::string& replacement, PrependScheme scheme, bool split) {
  steps_.push_back({.kind = Kind::metaspace, .replacement = replacement, .scheme = scheme});
  if (split) {
    add_split(Pattern::of_literal(replacement, "Metaspace"), SplitBehavior::merged_with_next,
              false);
  }
}

bool PreTokenizer::ends_with_byte_characters() const {
  return !steps_.empty() && steps_.back().kind == Kind::byte_characters;
}

KnownPattern PreTokenizer::only_known_split() const {
  return steps_.size() == 1 ? steps_[0].known : KnownPattern::none;
}

bool PreTokenizer::writes_metaspaces() const {
  return std::any_of(steps_.begin(), steps_.end(),
                     [](const Step& step) { return step.kind == Kind::metaspace; });
}

bool PreTokenizer::only_cuts_words() const {
  return std::all_of(steps_.begin(), steps_.end(), [](const Step& step) {
    if (step.kind == Kind::metaspace) return step.replacement == kMetaspace;
    if (step.kind != Kind::split || step.matcher != Matcher::pattern || step.invert) return false;
    return (step.pattern.literal() == kMetaspace &&
            step.behavior == SplitBehavior::merged_with_next) ||
           (step.pattern.literal() == " " && step.behavior != SplitBehavior::removed);
  });
}

void PreTokenizer::find(const Step& step, std::string_view text, std::vector<Span>& spans) {
  const std::vector<uint8_t>& classes = character_classes();
  switch (step.matcher) {
    case Matcher::pattern:
      step.pattern.find_all(text, spans);
      break;
    case Matcher::known:
      for (size_t begin = 0; begin < text.size();) {
        const size_t end = piece_end(step.known, text, begin, classes);
        spans.push_back({begin, end, true});
        begin = end;
      }
      break;
    case Matcher::characters:
      for (size_t pos = 0, covered = 0; pos < text.size();) {
        const size_t begin = pos;
        const bool match = classes[next_code_point(text, pos)] & step.character_class;
        if (match && covered < begin) spans.push_back({covered, begin, false});
        if (match) spans.push_back({begin, pos, true});
        if (match) covered = pos;
        if (!match && pos == text.size()) spans.push_back({covered, pos, false});
      }
      break;
    case Matcher::words:
      for (size_t pos = 0, begin = 0; pos < text.size(); begin = pos) {
        const uint8_t kind = word_kind(classes[next_code_point(text, pos)]);
        while (pos < text.size()) {
          size_t next = pos;
          if (word_kind(classes[next_code_point(text, next)]) != kind) break;
          pos = next;
        }
        spans.push_back({begin, pos, kind != kSpace});
      }
      break;
  }
  if (!step.invert) return;
  for (Span& span : spans) span.match = !span.match;
}

void PreTokenizer::split(const Step& step, std::string_view text, std::vector<Piece>& pieces) {
  std::vector<Piece> cut;
  std::vector<Span> spans;
  for (const Piece& piece : pieces) {
    spans.clear();
    find(step, text.substr(piece.begin, piece.end - piece.begin), spans);
    for (const Span& span : behave(step.behavior, spans)) {
      if (span.begin == span.end) continue;
      cut.push_back(
          {piece.begin + span.begin, piece.begin + span.end, piece.at_start && span.begin == 0});
    }
  }
  pieces = std::move(cut);
}

void PreTokenizer::rewrite(const Step& step, std::string_view text, std::string& changed,
                           std::vector<Piece>& pieces) {
  changed.clear();
  changed.reserve(text.size() + text.size() / 4 + 16);
  for (Piece& piece : pieces) {
    const std::string_view old = text.substr(piece.begin, piece.end - piece.begin);
    piece.begin = changed.size();
    if (step.kind == Kind::prefix_space) {
      if (old[0] != ' ') changed += ' ';
      changed += old;
    } else if (step.kind == Kind::byte_characters) {
      changed += byte_characters(old);
    } else {
      const bool prepend = step.scheme == PrependScheme::always ||
                           (step.scheme == PrependScheme::first && piece.at_start);
      // A space becomes the replacement, so a text that begins with either has it already.
      if (prepend && old[0] != ' ' && !old.starts_with(step.replacement)) {
        changed += step.replacement;
      }
      for (const char c : old) {
        if (c == ' ') {
          changed += step.replacement;
        } else {
          changed += c;
        }
      }
    }
    piece.end = changed.size();
  }
}

std::string_view PreTokenizer::cut(std::string_view text, bool at_start, std::string& buffer,
                                   std::vector<Piece>& pieces) const {
  pieces.clear();
  if (text.empty()) return text;
  pieces.push_back({0, text.size(), at_start});
  for (const Step& step : steps_) {
    if (step.kind == Kind::split) {
      split(step, text, pieces);
    } else {
      std::string changed;
      rewrite(step, text, changed, pieces);
      buffer = std::move(changed);
      text = buffer;
    }
  }
  return text;
}

}  // namespace tptrain::tokenizer
