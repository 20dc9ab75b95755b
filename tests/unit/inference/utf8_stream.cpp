// Whatever the pieces that bytes come in: only whole sequences leave, and all pieces together give
// the same text.
#include "inference/utf8_stream.h"

#include <string>
#include <vector>

#include "support/catch.h"

namespace tptrain::inference {
namespace {

const std::string kReplaced = "\xef\xbf\xbd";

std::string through(const std::vector<std::string>& pieces) {
  Utf8Stream stream;
  std::string text;
  for (const std::string& piece : pieces) text += stream.push(piece);
  return text + stream.finish();
}

TEST_CASE("a sequence waits until it is whole", "[inference]") {
  Utf8Stream stream;
  CHECK(stream.push("a\xe2") == "a");
  CHECK(stream.push("\x82") == "");
  CHECK(stream.push("\xac!") == "\xe2\x82\xac!");  // the euro sign
  CHECK(stream.push("\xf0\x9f\x98") == "");
  CHECK(stream.push("\x80") == "\xf0\x9f\x98\x80");
  CHECK(stream.finish() == "");
}

TEST_CASE("any cut of valid text gives the text", "[inference]") {
  const std::string text =
      "Z\xc3\xbcrich \xe2\x82\xac \xf0\x9f\x98\x80 \xed\x9f\xbf \xf4\x8f\xbf\xbf";
  for (size_t first = 0; first <= text.size(); ++first) {
    for (size_t second = first; second <= text.size(); ++second) {
      CHECK(through({text.substr(0, first), text.substr(first, second - first),
                     text.substr(second)}) == text);
    }
  }
}

TEST_CASE("what cannot become a sequence is one replacement each", "[inference]") {
  // Table 3-8 of the Unicode standard: each maximal part that could have gone on is one U+FFFD.
  CHECK(through({"\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64"}) ==
        "a" + kReplaced + kReplaced + kReplaced + "b" + kReplaced + "c" + kReplaced + kReplaced +
            "d");
  CHECK(through({"\xc0\x80"}) == kReplaced + kReplaced);                  // overlong
  CHECK(through({"\xed\xa0\x80"}) == kReplaced + kReplaced + kReplaced);  // a surrogate
  CHECK(through({"\xf4\x90"}) == kReplaced + kReplaced);                  // beyond U+10FFFF
  CHECK(through({"\xff"}) == kReplaced);
  CHECK(through({"\xe2\x82"}) == kReplaced);  // ends too early
}

TEST_CASE("any bytes, one by one or together, give the same text", "[inference]") {
  std::string bytes;
  uint32_t state = 1;
  for (int i = 0; i < 5000; ++i) {
    state = state * 1664525 + 1013904223;
    bytes += static_cast<char>(state >> 24);
  }
  std::vector<std::string> single;
  for (const char byte : bytes) single.emplace_back(1, byte);
  CHECK(through(single) == through({bytes}));
}

}  // namespace
}  // namespace tptrain::inference
