#include "support/catch.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::tokenizer {
namespace {

TEST_CASE("any bytes round trip, text or not") {
  const auto tokenizer = make_tokenizer("bytes");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  for (const std::string& text : {all, std::string("na\xc3\xafve \xe6\x97\xa5 \xf0\x9f\x99\x82"),
                                  std::string("\xff\xfe broken \xc3"), std::string()}) {
    CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
    CHECK(tokenizer->encode(text).size() == text.size());
  }
  CHECK(tokenizer->encode("A\xff") == std::vector<int32_t>{65, 255});
}

TEST_CASE("end of text is beyond the bytes; ids without text decode to nothing") {
  const auto tokenizer = make_tokenizer("bytes");
  CHECK(tokenizer->vocab_size() == 257);
  CHECK(tokenizer->end_of_text() == 256);
  CHECK(tokenizer->decode({104, 256, 105, 511, -1}) == "hi");
}

TEST_CASE("pieces encode like the whole") {
  const auto tokenizer = make_tokenizer("bytes");
  REQUIRE(tokenizer->encodes_piecewise());
  std::vector<int32_t> pieces = tokenizer->encode("\xe6\x97");
  for (const int32_t id : tokenizer->encode("\xa5")) pieces.push_back(id);
  CHECK(pieces == tokenizer->encode("\xe6\x97\xa5"));
  CHECK(tokenizer->last_cut("abc") == 3);
}

TEST_CASE("the hash stays as it is: token files and checkpoints hold it") {
  CHECK(make_tokenizer("bytes")->hash() == make_tokenizer("bytes")->hash());
  CHECK(make_tokenizer("bytes")->hash() ==
        "87a1c715c2c2426e93d7041dc280fbe7ae682ea54dce9eb3619f1ef30fd47112");
}

}  // namespace
}  // namespace tptrain::tokenizer
