#include "tokenizer/added_token_matcher.h"

#include <algorithm>

#include "tokenizer/character_classes.h"
#include "tokenizer/code_points.h"

namespace tptrain::tokenizer {

namespace {

bool is(uint32_t code_point, CharacterClass kind) { return character_classes()[code_point] & kind; }

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t pos = previous_character(text, text.size());
  return is(next_code_point(text, pos), kWord);
}

bool starts_with_word(std::string_view text) {
  size_t pos = 0;
  return !text.empty() && is(next_code_point(text, pos), kWord);
}

size_t without_trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t begin = previous_character(text, end);
    size_t pos = begin;
    if (!is(next_code_point(text, pos), kSpace)) break;
    end = begin;
  }
  return end;
}

size_t leading_space(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    size_t pos = end;
    if (!is(next_code_point(text, pos), kSpace)) break;
    end = pos;
  }
  return end;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher() : first_level_(256, -1) {}

int32_t AddedTokenMatcher::child(int32_t node, unsigned char byte) const {
  int32_t found = nodes_[node].first_child;
  while (found >= 0 && nodes_[found].byte != byte) found = nodes_[found].next_sibling;
  return found;
}

void AddedTokenMatcher::add(const AddedToken& token, std::string_view spelling) {
  int32_t node = -1;
  for (const char c : spelling) {
    const auto byte = static_cast<unsigned char>(c);
    const int32_t found = node < 0 ? first_level_[byte] : child(node, byte);
    if (found >= 0) {
      node = found;
      continue;
    }
    const auto created = static_cast<int32_t>(nodes_.size());
    nodes_.push_back({.byte = byte});
    if (node < 0) {
      first_level_[byte] = created;
    } else {
      nodes_[created].next_sibling = nodes_[node].first_child;
      nodes_[node].first_child = created;
    }
    node = created;
  }
  if (node < 0 || nodes_[node].token >= 0) return;
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

const AddedToken* AddedTokenMatcher::longest_at(std::string_view text, size_t begin,
                                                size_t& length) const {
  int32_t node = first_level_[static_cast<unsigned char>(text[begin])];
  int32_t best = -1;
  for (size_t pos = begin + 1; node >= 0; ++pos) {
    if (nodes_[node].token >= 0) {
      best = nodes_[node].token;
      length = pos - begin;
    }
    if (pos == text.size()) break;
    node = child(node, static_cast<unsigned char>(text[pos]));
  }
  return best < 0 ? nullptr : &tokens_[best];
}

void AddedTokenMatcher::split(std::string_view text, bool special_as_text,
                              std::vector<Part>& parts) const {
  size_t covered = 0;  // text before it is in parts
  for (size_t begin = 0; begin < text.size() && !tokens_.empty();) {
    if (first_level_[static_cast<unsigned char>(text[begin])] < 0) {
      ++begin;
      continue;
    }
    size_t length = 0;
    const AddedToken* const token = longest_at(text, begin, length);
    if (token == nullptr) {
      ++begin;
      continue;
    }
    size_t part_begin = begin;
    size_t part_end = begin + length;
    begin = part_end;  // the next match may lie in white space that this one takes
    if (special_as_text && token->special) continue;
    if (token->single_word &&
        (ends_with_word(text.substr(0, part_begin)) || starts_with_word(text.substr(part_end)))) {
      continue;
    }
    if (token->lstrip) {
      part_begin = std::max(without_trailing_space(text.substr(0, part_begin)), covered);
    }
    if (token->rstrip) part_end += leading_space(text.substr(part_end));
    if (covered < part_begin) parts.push_back({covered, part_begin, -1});
    parts.push_back({part_begin, part_end, token->id});
    covered = part_end;
  }
  if (covered != text.size()) parts.push_back({covered, text.size(), -1});
}

}  // namespace tptrain::tokenizer
