// Names against patterns, as a shell has them: of files and of tensors.
//
//   *              any characters, also none
//   ?              one character (a byte)
//   [abc] [a-z]    one byte of the set; [!abc] and [^abc] one that is not in it. A ']' that comes
//                  first is a member; a set that is not closed is its characters themselves
#pragma once

#include <string_view>

namespace tptrain {

bool has_wildcard(std::string_view text);

/// Whether the whole of `name` matches. Never exponential in the number of stars.
bool matches_wildcards(std::string_view pattern, std::string_view name);

}  // namespace tptrain
