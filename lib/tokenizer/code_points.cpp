#include "tokenizer/code_points.h"

#include "base/error.h"
#include "base/hex.h"
#include "base/text.h"
#include "base/utf8.h"

namespace tptrain::tokenizer {

void require_utf8(std::string_view text) {
  const size_t bad = first_invalid_utf8(text);
  if (bad == std::string_view::npos) return;
  throw DataError(problem(cat("text has the byte 0x", to_hex(text.substr(bad, 1)), " at offset ",
                              bad, ", where no UTF-8 character has it"))
                      .must("be UTF-8 for this tokenizer")
                      .remedy("Convert the text to UTF-8, or use the tokenizer \"bytes\"."));
}

std::string beginning_of(std::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  return std::string(utf8_prefix(text, limit)) + "...";
}

}  // namespace tptrain::tokenizer
