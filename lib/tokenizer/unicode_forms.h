// The normal forms of Unicode, through utf8proc; text that is in form C already, which most is, is
// recognised without being copied.
#pragma once

#include <string>
#include <string_view>

namespace tptrain::tokenizer {

/// `text`, which must be UTF-8, in one of the four forms.
std::string unicode_form(std::string_view text, bool compose, bool compatibility);
/// Form C: `text` itself where it is in it, else `buffer`'s content.
std::string_view form_c(std::string_view text, std::string& buffer);

}  // namespace tptrain::tokenizer
