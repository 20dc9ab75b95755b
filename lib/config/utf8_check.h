// Whether a text has only bytes that YAML allows: UTF-8 without control characters. yaml-cpp does
// not look: it would end a text at a zero byte without a word, and pass other bytes on. Private to
// this folder.
#pragma once

#include <optional>
#include <string>

namespace tptrain::config {

struct BadByte {
  unsigned byte = 0;
  int line = 0;    // from 0
  int column = 0;  // from 0, in characters
};

/// The first byte that belongs to no UTF-8 character (Unicode 15, table 3-7) or is a control
/// character other than tab, line feed and carriage return.
std::optional<BadByte> find_bad_byte(const std::string& text);

}  // namespace tptrain::config
