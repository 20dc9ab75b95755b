// Small tokenizers that between them use every part that is built, against what the Hugging Face
// library made of random strings (scripts/golden/tokenizer_golden.py).
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/utf8.h"
#include "support/catch.h"
#include "tokenizer/bpe_loaders.h"

namespace tptrain::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

std::string golden(const std::string& name) {
  return read_file(std::string(TPTRAIN_SOURCE_DIR "/tests/golden/tokenizer_bpe/") + name);
}

std::string checksum(std::string_view bytes) { return sha256_hex(bytes).substr(0, 8); }
std::string checksum(const Ids& ids) {
  return checksum(std::string_view(reinterpret_cast<const char*>(ids.data()), 4 * ids.size()));
}

const nlohmann::json& vectors() {
  static const nlohmann::json vectors = nlohmann::json::parse(golden("vectors.json"));
  return vectors;
}

// The strings of which the library made something else.
std::string different(const std::string& name) {
  const auto tokenizer = load_tokenizer_json(golden(name + ".json"), name, "");
  const nlohmann::json& expected = vectors()["checksums"][name];
  const auto at = [&](const char* key, size_t i) {
    return expected[key].get_ref<const std::string&>().substr(8 * i, 8);
  };
  std::vector<std::string> found;
  for (size_t i = 0; i < vectors()["strings"].size(); ++i) {
    const auto text = vectors()["strings"][i].get<std::string>();
    const Ids ids = tokenizer->encode(text, {.add_special = true});
    const auto report = [&](const char* what) { found.push_back(cat(what, " of ", text)); };
    if (checksum(ids) != at("ids", i)) {
      report("ids");
      continue;
    }
    const Ids plain = tokenizer->encode(text, {.special_as_text = true});
    std::string others(reinterpret_cast<const char*>(plain.data()), 4 * plain.size());
    others += replace_invalid_utf8(tokenizer->decode(ids, {.skip_special = false}));
    others += '\0';
    others += replace_invalid_utf8(tokenizer->decode(ids));
    if (checksum(others) != at("others", i)) report("text or ids with special tokens as text");
  }
  return join(found, "\n");
}

TEST_CASE("bytes with a known pattern and NFC") { CHECK(different("byte_level") == ""); }

TEST_CASE("written bytes that are cut again, a prefix space, NFKC, replacements by regex") {
  CHECK(different("prefix_space") == "");
}

TEST_CASE("metaspace at the start only, byte fallback, fused unknowns") {
  CHECK(different("metaspace_first") == "");
}

TEST_CASE("metaspace always, without cutting, few fallback bytes, unknowns apart") {
  CHECK(different("metaspace_always") == "");
}

TEST_CASE("words with a continuing prefix and an end suffix, NFD, lower case, digits") {
  CHECK(different("words") == "");
}

TEST_CASE("every way to cut at a pattern, NFKD, no decoder") { CHECK(different("splits") == ""); }

TEST_CASE("documents on several threads give what one gives, and the first failure") {
  const auto tokenizer = load_tokenizer_json(golden("byte_level.json"), "t", "");
  const auto strings = vectors()["strings"].get<std::vector<std::string>>();
  std::vector<std::string_view> documents(strings.begin(), strings.end());
  const auto one = encode_documents(*tokenizer, documents, {}, 1);
  CHECK(encode_documents(*tokenizer, documents, {}, 4) == one);
  for (size_t i = 0; i < documents.size(); i += 97)
    CHECK(one[i] == tokenizer->encode(documents[i]));
  documents[5] = "a\xff";
  documents[900] = "abc\xff";
  std::string message;
  try {
    encode_documents(*tokenizer, documents, {}, 4);
  } catch (const DataError& error) {
    message = error.what();
  }
  CHECK(message ==
        "data error: text has the byte 0xff at offset 1, where no UTF-8 character has it: it must "
        "be UTF-8 for this tokenizer.\n  Convert the text to UTF-8, or use the tokenizer "
        "\"bytes\".");
}

TEST_CASE("very long pieces take time in proportion to their length") {
  const auto tokenizer = load_tokenizer_json(golden("byte_level.json"), "t", "");
  const auto unsplit = load_tokenizer_json(golden("metaspace_always.json"), "t", "");
  std::string letters(1 << 20, 'e');
  for (size_t i = 0; i < letters.size(); i += 3) letters[i] = 't';
  CHECK(tokenizer->decode(tokenizer->encode(letters)) == letters);
  CHECK(unsplit->encode(letters).size() > 1000);
  CHECK(tokenizer->encode(std::string(1 << 20, ' ')).size() > 1000);
  CHECK(tokenizer->encode(std::string(1 << 20, '\n')).size() > 1000);
}

}  // namespace
}  // namespace tptrain::tokenizer
