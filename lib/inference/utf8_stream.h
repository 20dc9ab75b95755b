// Bytes as they are generated -> text that a terminal can be sent: only whole UTF-8 sequences, what
// cannot become one replaced by U+FFFD.
#pragma once

#include <string>
#include <string_view>

namespace tptrain::inference {

class Utf8Stream {
 public:
  /// The text that `bytes` complete; a sequence that is still incomplete waits for the next call.
  /// Each longest part of a sequence that cannot go on becomes one U+FFFD (the Unicode standard's
  /// recommendation, version 15, section 3.9).
  std::string push(std::string_view bytes);
  /// What waits, as U+FFFD, at the end of the stream.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace tptrain::inference
