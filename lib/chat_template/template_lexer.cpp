#include <charconv>

#include "base/text.h"
#include "base/utf8.h"
#include "chat_template/template_syntax.h"

namespace tptrain::chat_template::jinja {

namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(const std::string& source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text();
    push(Token::Kind::end, at_);
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  [[noreturn]] void fail(size_t at, std::string message) const {
    throw TemplateError{at, std::move(message)};
  }
  Token& push(Token::Kind kind, size_t at) {
    Token token;
    token.kind = kind;
    token.at = at;
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  /// Text up to the next tag, and that tag.
  void text() {
    size_t tag = at_;
    while (tag + 1 < source_.size() &&
           !(source_[tag] == '{' &&
             (source_[tag + 1] == '{' || source_[tag + 1] == '%' || source_[tag + 1] == '#'))) {
      ++tag;
    }
    if (tag + 1 >= source_.size()) {
      add_text(rest(), at_);
      at_ = source_.size();
      return;
    }
    std::string_view before = std::string_view(source_).substr(at_, tag - at_);
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') {
      while (const size_t space = space_at_end(before)) before.remove_suffix(space);
    } else if (sign != '+' && kind != '{') {
      // lstrip_blocks: white space between the begin of the line and the tag goes.
      const size_t newline = before.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      if (line > 0 || line_begins_) {
        std::string_view blank = before.substr(line);
        while (const size_t space = space_at_begin(blank)) blank.remove_prefix(space);
        if (blank.empty()) before = before.substr(0, line);
      }
    }
    add_text(before, at_);
    at_ = tag + 2 + (sign == '-' || sign == '+' ? 1 : 0);
    if (kind == '#') {
      comment(tag);
    } else {
      inside(tag, kind == '%');
    }
  }

  void add_text(std::string_view text, size_t at) {
    if (!text.empty()) push(Token::Kind::text, at).text = text;
  }

  /// Steps behind a tag that ends at `end`, and behind the white space that goes with it.
  void behind_tag(size_t end, bool strips, bool trims_line) {
    at_ = end;
    if (strips) {
      while (const size_t space = space_at_begin(rest())) at_ += space;
    } else if (trims_line && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    line_begins_ = at_ > 0 && source_[at_ - 1] == '\n';
  }

  void comment(size_t tag) {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail(tag, "this comment has no end");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    behind_tag(end + 2, sign == '-', sign != '+');
  }

  void inside(size_t tag, bool block) {
    push(block ? Token::Kind::block_begin : Token::Kind::variable_begin, tag);
    std::string open;
    while (true) {
      while (const size_t space = space_at_begin(rest())) at_ += space;
      if (at_ >= source_.size()) fail(tag, "this tag has no end");
      if (open.empty() && ends_tag(block)) return;
      const char c = source_[at_];
      if (is_letter(c)) {
        name();
      } else if (is_digit(c)) {
        number();
      } else if (c == '"' || c == '\'') {
        string(c);
      } else {
        symbol(open);
      }
    }
  }

  bool ends_tag(bool block) {
    const std::string_view mark = block ? "%}" : "}}";
    const std::string_view here = rest();
    if (here.starts_with(mark)) {
      push(block ? Token::Kind::block_end : Token::Kind::variable_end, at_);
      behind_tag(at_ + 2, false, block);
      return true;
    }
    const bool plus = block && here.starts_with("+%}");
    if (plus || (here.starts_with('-') && here.substr(1).starts_with(mark))) {
      push(block ? Token::Kind::block_end : Token::Kind::variable_end, at_);
      behind_tag(at_ + 3, !plus, false);
      return true;
    }
    return false;
  }

  void name() {
    const size_t begin = at_;
    while (at_ < source_.size() && (is_letter(source_[at_]) || is_digit(source_[at_]))) ++at_;
    push(Token::Kind::name, begin).text = source_.substr(begin, at_ - begin);
  }

  void number() {
    const size_t begin = at_;
    const auto digits = [&] {
      while (at_ < source_.size() && is_digit(source_[at_])) ++at_;
    };
    const auto digit_at = [&](size_t at) { return at < source_.size() && is_digit(source_[at]); };
    digits();
    bool real = false;
    // a.0.1 is two subscripts
    const bool behind_dot = begin > 0 && source_[begin - 1] == '.';
    if (!behind_dot && at_ < source_.size() && source_[at_] == '.' && digit_at(at_ + 1)) {
      real = true;
      ++at_;
      digits();
    }
    if (!behind_dot && at_ < source_.size() && (source_[at_] == 'e' || source_[at_] == 'E')) {
      const bool sign =
          at_ + 1 < source_.size() && (source_[at_ + 1] == '-' || source_[at_ + 1] == '+');
      if (digit_at(at_ + (sign ? 2 : 1))) {
        real = true;
        at_ += sign ? 2 : 1;
        digits();
      }
    }
    const std::string_view text = std::string_view(source_).substr(begin, at_ - begin);
    if (at_ < source_.size() && is_letter(source_[at_])) {
      fail(begin, "a number of this form is not built (underscores, hexadecimal)");
    }
    Token& token = push(real ? Token::Kind::real : Token::Kind::integer, begin);
    std::errc error;
    if (real) {
      error = std::from_chars(text.data(), text.data() + text.size(), token.real).ec;
    } else {
      if (text.size() > 1 && text.find_first_not_of('0') != std::string_view::npos &&
          text[0] == '0') {
        fail(begin, "an integer that begins with 0");
      }
      error = std::from_chars(text.data(), text.data() + text.size(), token.integer).ec;
    }
    if (error != std::errc()) fail(begin, "a number that is out of range");
  }

  void string(char quote) {
    const size_t begin = at_++;
    std::string value;
    while (true) {
      if (at_ >= source_.size()) fail(begin, "this string has no end");
      const char c = source_[at_++];
      if (c == quote) break;
      if (c == '\\') {
        escape(begin, value);
      } else {
        value += c;
      }
    }
    push(Token::Kind::string, begin).text = std::move(value);
  }

  /// Python's escapes; one that is none stays as it stands.
  void escape(size_t begin, std::string& value) {
    if (at_ >= source_.size()) fail(begin, "this string has no end");
    const char c = source_[at_++];
    constexpr std::string_view kLetters = "abfnrtv\\'\"";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t known = kLetters.find(c); known != std::string_view::npos) {
      value += kMeanings[known];
    } else if (c == '\n') {
      // the line goes on
    } else if (c == 'x' || c == 'u' || c == 'U') {
      append_utf8(value, code_point(c == 'x' ? 2 : c == 'u' ? 4 : 8));
    } else if (c == 'N' || is_digit(c)) {
      fail(at_ - 2, cat("the escape \\", c, " is not built"));
    } else if ((c & 0x80) != 0) {
      fail(at_ - 2, "a backslash before this character is not built");
    } else {
      value += '\\';
      value += c;
    }
  }

  uint32_t code_point(size_t digits) {
    uint32_t value = 0;
    const std::string_view text = rest().substr(0, digits);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    const bool whole = text.size() == digits && end == text.data() + digits && error == std::errc();
    if (!whole || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      fail(at_ - 2, "an escape that is no character");
    }
    at_ += digits;
    return value;
  }

  void symbol(std::string& open) {
    static constexpr std::string_view kSymbols[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};
    for (const std::string_view known : kSymbols) {
      if (!rest().starts_with(known)) continue;
      const char c = known[0];
      if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
      if (c == ')' || c == ']' || c == '}') {
        if (open.empty() || open.back() != c) fail(at_, cat("\"", known, "\" closes nothing"));
        open.pop_back();
      }
      push(Token::Kind::symbol, at_).text = known;
      at_ += known.size();
      return;
    }
    const size_t length = std::max<size_t>(utf8_length(rest()), 1);
    fail(at_, cat("unexpected character \"", rest().substr(0, length), "\""));
  }

  const std::string& source_;
  size_t at_ = 0;
  bool line_begins_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::string normalize_source(std::string_view source) {
  std::string normal;
  normal.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      normal += source[i];
      continue;
    }
    normal += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (normal.ends_with('\n')) normal.pop_back();
  return normal;
}

std::vector<Token> lex(const std::string& source) { return Lexer(source).run(); }

}  // namespace tptrain::chat_template::jinja
