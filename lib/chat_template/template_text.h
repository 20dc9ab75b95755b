// What filters and methods of a chat template do with texts and with their arguments. Private to
// this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "chat_template/template_evaluator.h"

namespace tptrain::chat_template::jinja {

/// Python's strip(), lstrip(), rstrip(): `characters` empty means white space.
SourcedText stripped(const SourcedText& text, const std::string& characters, bool begin, bool end);
/// Throws ValueError where `from` is empty, or more than 64 MiB come out.
SourcedText replaced(const SourcedText& text, const std::string& from, const SourcedText& to);
/// upper, lower or capitalize. Other characters have Python's own rules: ValueError.
SourcedText ascii_cased(const SourcedText& text, const std::string& name);
/// Python's split(); no separator: at white space. `most` below 0: no bound.
std::vector<Value> split_text(const SourcedText& text, const std::string* separator, int64_t most);

/// Of these three, `of` is what errors call the filter or method.
const std::string& text_argument(const std::vector<Value>& arguments, size_t i,
                                 const std::string& of);
void check_count(const std::vector<Value>& arguments, size_t least, size_t most,
                 const std::string& of);
void no_named(const Arguments& arguments, const std::string& of);

}  // namespace tptrain::chat_template::jinja
