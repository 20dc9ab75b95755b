#include "tokenizer/token_decoder.h"

#include <numeric>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"
#include "tokenizer/code_points.h"

namespace tptrain::tokenizer {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

size_t size_of(const std::vector<std::string>& tokens) {
  return std::accumulate(tokens.begin(), tokens.end(), size_t{0},
                         [](size_t sum, const std::string& token) { return sum + token.size(); });
}

std::string concatenated(const std::vector<std::string>& tokens) {
  std::string text;
  text.reserve(size_of(tokens));
  for (const std::string& token : tokens) text += token;
  return text;
}

// A token with a character that is no written byte (an added token) is its own spelling.
void append_bytes(const std::string& token, std::string& text) {
  const size_t before = text.size();
  for (size_t pos = 0; pos < token.size();) {
    const int byte = byte_of_character(next_code_point(token, pos));
    if (byte < 0) {
      text.resize(before);
      text += token;
      return;
    }
    text += static_cast<char>(byte);
  }
}

// "<0x0A>", either case; also "<0x+A>", which Rust's parser of numbers takes.
std::optional<char> fallback_byte(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  const int high = token[3] == '+' ? 0 : digit(token[3]);
  const int low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high << 4 | low);
}

void join_fallback_bytes(std::vector<std::string>& tokens) {
  std::vector<std::string> joined;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (first_invalid_utf8(bytes) == std::string_view::npos) {
      joined.push_back(bytes);
    } else {
      joined.insert(joined.end(), bytes.size(), std::string(kReplacement));
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const std::optional<char> byte = fallback_byte(token)) {
      bytes += *byte;
      continue;
    }
    flush();
    joined.push_back(std::move(token));
  }
  flush();
  tokens = std::move(joined);
}

void strip(std::string& token, uint32_t character, size_t start, size_t stop) {
  std::string stripped;
  append_utf8(stripped, character);
  size_t begin = 0;
  for (size_t i = 0; i < start && token.compare(begin, stripped.size(), stripped) == 0; ++i) {
    begin += stripped.size();
  }
  size_t end = token.size();
  for (size_t i = 0;
       i < stop && std::string_view(token).substr(begin, end - begin).ends_with(stripped); ++i) {
    end -= stripped.size();
  }
  token = token.substr(begin, end - begin);
}

std::string replaced(const std::string& token, const std::string& what, std::string_view with) {
  std::string result;
  size_t pos = 0;
  for (size_t found = token.find(what); found != token.npos; found = token.find(what, pos)) {
    result.append(token, pos, found - pos);
    result += with;
    pos = found + what.size();
  }
  return result.append(token, pos);
}

}  // namespace

void TokenDecoder::apply(const Step& step, std::vector<std::string>& tokens) {
  switch (step.kind) {
    case Kind::byte_level: {
      std::string text;
      for (const std::string& token : tokens) append_bytes(token, text);
      tokens.assign(1, std::move(text));
      break;
    }
    case Kind::byte_fallback:
      join_fallback_bytes(tokens);
      break;
    case Kind::fuse:
      tokens.assign(1, concatenated(tokens));
      break;
    case Kind::strip:
      for (std::string& token : tokens) strip(token, step.character, step.start, step.stop);
      break;
    case Kind::replace:
      for (std::string& token : tokens) token = step.pattern.replace_all(token, step.text);
      break;
    case Kind::metaspace:
      for (size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = replaced(tokens[i], step.text, i == 0 && step.drop_first ? "" : " ");
      }
      break;
    case Kind::word_suffix:
      for (size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = replaced(tokens[i], step.text, i + 1 == tokens.size() ? "" : " ");
      }
      break;
  }
}

std::string TokenDecoder::decode(std::vector<std::string> tokens) const {
  if (steps_.empty()) return join(tokens, " ");
  // A replacement of nothing but a step's own making could grow without end through many steps.
  const size_t limit = 64 * size_of(tokens) + (size_t{1} << 16);
  for (const Step& step : steps_) {
    apply(step, tokens);
    if (size_of(tokens) > limit) {
      throw DataError(problem(cat("the decoder lets ", tokens.size(), " tokens grow to ",
                                  size_of(tokens), " bytes"))
                          .at("tokenizer"));
    }
  }
  return concatenated(tokens);
}

}  // namespace tptrain::tokenizer
