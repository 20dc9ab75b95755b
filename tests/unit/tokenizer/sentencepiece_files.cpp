// Sentencepiece models of our own, written byte by byte: what is encoded how, and every damage and
// every option that is refused.
#include <cstring>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "tokenizer/sentencepiece_tokenizer.h"

namespace tptrain::tokenizer {
namespace {

using testing::has;
using testing::message_of;
using Ids = std::vector<int32_t>;

// ---- a protobuf writer: fields of the messages of sentencepiece_model.proto

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
std::string field(int number, uint64_t value) { return varint(number << 3) + varint(value); }
std::string field(int number, const std::string& bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string real(int number, float value) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &value, 4);
  return varint(number << 3 | 5) + bytes;
}

enum Kind { kNormal = 1, kUnknown, kControl, kUser, kUnused, kByte };
std::string piece(const std::string& text, float score, Kind kind) {
  return field(1, field(1, text) + real(2, score) + field(3, kind));
}

const std::string kSpace = "\xE2\x96\x81";

struct Model {
  int type = 2;  // BPE
  bool byte_fallback = false;
  bool dummy_prefix = true;
  bool remove_extra_spaces = false;
  std::string pieces = {};      // behind the first ones
  std::string trainer = {};     // more fields
  std::string normalizer = {};  // more fields

  // 0 <unk>, 1 <s>, 2 </s>, then 256 bytes if asked for, then: space a b ab "space a" X
  std::string bytes() const {
    std::string out =
        piece("<unk>", 0, kUnknown) + piece("<s>", 0, kControl) + piece("</s>", 0, kControl);
    for (int i = 0; byte_fallback && i < 256; ++i) {
      char text[8];
      std::snprintf(text, sizeof text, "<0x%02X>", i);
      out += piece(text, 0, kByte);
    }
    out += piece(kSpace, -4, kNormal) + piece("a", -5, kNormal) + piece("b", -6, kNormal) +
           piece("ab", -1, kNormal) + piece(kSpace + "a", -2, kNormal) + piece("X", 0, kUser) +
           pieces;
    out += field(2, field(3, type) + field(35, byte_fallback ? 1 : 0) + trainer);
    return out + field(3, field(1, "identity") + field(3, dummy_prefix ? 1 : 0) +
                              field(4, remove_extra_spaces ? 1 : 0) + normalizer);
  }
  std::unique_ptr<Tokenizer> load(const TokenizerConfig& config = {}) const {
    return load_sentencepiece(bytes(), "m.model", config);
  }
};

TokenizerConfig named(const std::string& key, AddedToken token) {
  TokenizerConfig config;
  config.place = "dir";
  config.named.push_back({key, std::move(token)});
  return config;
}

TEST_CASE("a model alone: its own control symbols, begin-of-text, unknown characters") {
  const auto tokenizer = Model{}.load();
  CHECK(tokenizer->vocab_size() == 9);
  CHECK(tokenizer->end_of_text() == 2);
  CHECK(tokenizer->encode("ab", {.add_special = true}) == Ids{1, 3, 6});
  CHECK(tokenizer->encode("ab</s>b") == Ids{3, 6, 2, 3, 5});
  CHECK(tokenizer->encode("", {.add_special = true}) == Ids{1});
  CHECK(tokenizer->encode("z") == Ids{3, 0});
  CHECK(tokenizer->encode("aXb") == Ids{7, 8, 5});  // a user-defined symbol, found by the library
  CHECK(tokenizer->encode("</s>", {.special_as_text = true}) == Ids{3, 0});
  CHECK(tokenizer->decode({1, 7, 8, 5, 3, 2, 99, -1}) == "aXb ");
  CHECK(tokenizer->decode({1, 7}, {.skip_special = false}) == "<s> a");
  CHECK(tokenizer->token(7) == kSpace + "a");
  CHECK(tokenizer->token(99).empty());
  CHECK(tokenizer->find("</s>") == 2);
  CHECK(tokenizer->find("q") == -1);
}

TEST_CASE("bytes stand for characters that have no piece, and come back") {
  const auto tokenizer = Model{.byte_fallback = true}.load();
  const Ids ids = tokenizer->encode("z\xC3\xA9");
  CHECK(ids == Ids{3 + 256, 3 + 'z', 3 + 0xC3, 3 + 0xA9});
  CHECK(tokenizer->decode(ids) == "z\xC3\xA9");
  CHECK(tokenizer->decode({3 + 0xC3}) == "\xC3");
}

TEST_CASE("a unigram model, and one that takes extra spaces away") {
  CHECK(Model{.type = 1}.load()->encode("ab") == Ids{3, 6});
  const auto tokenizer = Model{.remove_extra_spaces = true}.load();
  CHECK(tokenizer->encode("  a  b ") == Ids{7, 3, 5});
}

TEST_CASE("tokens beside the model's own: ids behind it, found in the text, in the hash") {
  TokenizerConfig config;
  config.place = "dir";
  config.added = {{.id = 11, .content = "<call>", .special = false}};
  config.named = {{"eos_token", {.content = "</s>"}}};
  const auto tokenizer = Model{}.load(config);
  CHECK(tokenizer->vocab_size() == 12);
  CHECK(tokenizer->encode("a<call>b") == Ids{7, 11, 3, 5});
  CHECK(tokenizer->encode("a<call></s>", {.special_as_text = true}) == Ids{7, 11, 3, 0});
  CHECK(tokenizer->decode({7, 11}) == "a<call>");
  CHECK(tokenizer->token(10).empty());
  CHECK(tokenizer->hash() != Model{}.load()->hash());
  CHECK(tokenizer->hash() == Model{}.load(config)->hash());
}

TEST_CASE("what is put around a text follows the configuration") {
  TokenizerConfig config;
  config.add_bos_token = false;
  config.add_eos_token = true;
  CHECK(Model{}.load(config)->encode("a", {.add_special = true}) == Ids{7, 2});
}

TEST_CASE("a normalised token is found behind a space, which is part of it") {
  const auto tokenizer = Model{}.load(named("eos_token", {.content = "</s>", .normalized = true}));
  CHECK(tokenizer->encode("</s>a") == Ids{2, 4});
  CHECK(tokenizer->encode("a </s>") == Ids{7, 2});
  CHECK(tokenizer->encode("a</s>") == Ids{7, 0});
}

TEST_CASE("a configuration that the model does not fit is refused by name") {
  const auto message = [](const TokenizerConfig& config, const Model& model = {}) {
    return message_of<DataError>([&] { model.load(config); });
  };
  CHECK(has(message(named("pad_token", {.content = "[PAD]"})),
            "dir: pad_token is \"[PAD]\", which is neither in the model nor among the added "
            "tokens.\n  Give its id in added_tokens.json."));
  TokenizerConfig config;
  config.place = "dir";
  config.added = {{.id = 4, .content = "<call>"}};
  CHECK(has(message(config),
            "dir: id 4 is \"a\" in m.model but \"<call>\" among the added tokens: "
            "it must be the same token in both"));
  config.added = {{.id = 9, .content = "ab"}};
  CHECK(has(message(config), "\"ab\" is the added token 9, but also token 6: it must have one id"));
  config.added = {{.id = INT32_MAX, .content = "<call>"}};
  CHECK(has(message(config), "added token \"<call>\" has the id 2147483647: it must lie within"));
  CHECK(has(message(named("eos_token", {.content = "</s>", .lstrip = true})),
            "the token \"</s>\" has lstrip, which is not built for tokenizer.model"));
  CHECK(has(message(named("eos_token", {.content = "</s>", .single_word = true})),
            "the token \"</s>\" has single_word, which is not built"));
  CHECK(has(message(named("eos_token", {.content = "</s>", .normalized = true}),
                    {.remove_extra_spaces = true}),
            "a token is to be found after normalisation (normalized: true), which is not built for "
            "a model whose normaliser changes more than spaces"));
  config = {};
  config.legacy = false;
  CHECK(has(message(config),
            "tokenizer_config.json has legacy: false, which is not built for tokenizer.model"));
}

TEST_CASE("every cut of a model is refused, not crashed on") {
  const std::string whole = Model{}.bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string cut = whole.substr(0, size);
    try {
      load_sentencepiece(cut, "m.model", {});  // between two pieces it is a smaller model
    } catch (const DataError& e) {
      CHECK(has(e.what(), "m.model"));
    }
  }
  CHECK(has(message_of<DataError>([] { load_sentencepiece("\x0A\x7F", "m.model", {}); }),
            "m.model: no sentencepiece model: it is cut off.\n  The file is damaged or of another "
            "kind; fetch it again."));
  CHECK(has(message_of<DataError>([] { load_sentencepiece("", "m.model", {}); }),
            "it has no pieces"));
  CHECK(has(message_of<DataError>([] { load_sentencepiece("hello", "m.model", {}); }),
            "no sentencepiece model"));
}

TEST_CASE("every damage of a model is named") {
  const auto message = [](const Model& model) {
    return message_of<DataError>([&] { model.load(); });
  };
  const auto of_piece = [&](const std::string& more) { return message({.pieces = more}); };
  CHECK(has(of_piece(piece("", 0, kNormal)),
            "m.model, piece 9: no sentencepiece model: it is empty"));
  CHECK(has(of_piece(piece("a", 0, kNormal)), "two pieces are \"a\""));
  CHECK(has(of_piece(piece("q\xFF", 0, kNormal)), "it is no UTF-8"));
  CHECK(has(of_piece(piece(std::string("q\0", 2), 0, kNormal)), "it holds a zero byte"));
  CHECK(has(of_piece(piece(std::string(9000, 'q'), 0, kNormal)), "it is longer than any piece"));
  CHECK(has(of_piece(piece("q", NAN, kNormal)), "its score is not finite"));
  CHECK(has(of_piece(piece("q", 0, static_cast<Kind>(7))), "its type is 7"));
  CHECK(has(of_piece(piece("q", 0, kByte)), "\"q\" names no byte"));
  CHECK(has(of_piece(piece("q", 0, kUnknown)), "it has 2 unknown pieces instead of one"));
  CHECK(has(of_piece(field(1, std::string("\x0B"))), "a field of wire type 3"));
  CHECK(has(of_piece(field(1, field(2, 1))), "field 2 is no float"));
  CHECK(has(of_piece(field(1, field(1, 1))), "field 1 is no string"));
  CHECK(has(of_piece(field(1, field(3, "x"))), "field 3 is no integer"));
  CHECK(has(of_piece(field(1, std::string(11, '\xFF'))), "an integer of more than 64 bits"));
  // Found by the library: byte pieces without byte_fallback.
  CHECK(has(of_piece(piece("<0x00>", 0, kByte)), "sentencepiece refuses this model"));
}

TEST_CASE("what is not built is refused by name") {
  const auto message = [](const Model& model) {
    return message_of<DataError>([&] { model.load(); });
  };
  CHECK(
      has(message({.type = 3}), "this sentencepiece model has the type word, which is not built"));
  CHECK(has(message({.type = 4}), "the type char"));
  CHECK(has(message({.trainer = field(24, 1)}), "treat_whitespace_as_suffix"));
  CHECK(has(message({.normalizer = field(5, 0)}), "escape_whitespaces: false"));
  const std::string denormalizer = Model{}.bytes() + field(5, field(2, "x"));
  CHECK(has(message_of<DataError>([&] { load_sentencepiece(denormalizer, "m.model", {}); }),
            "a denormaliser"));
}

TEST_CASE("a normaliser's table that points out of itself is refused before it is followed") {
  const auto table = [](uint32_t size, const std::vector<uint32_t>& units,
                        const std::string& rest) {
    std::string bytes(4 + 4 * units.size(), '\0');
    std::memcpy(bytes.data(), &size, 4);
    std::memcpy(bytes.data() + 4, units.data(), 4 * units.size());
    return bytes + rest;
  };
  const auto message = [&](const std::string& bytes) {
    return message_of<DataError>([&] { Model{.normalizer = field(2, bytes)}.load(); });
  };
  std::vector<uint32_t> units(256, 0x80000001);  // labels that no byte has
  units[0] = 0;                                  // the root's children begin at unit 0: none
  CHECK(message(table(1024, units, std::string(1, '\0'))) == "(nothing was thrown)");
  CHECK(has(message("ab"), "the normaliser's table of replacements is cut off"));
  CHECK(has(message(table(1023, units, "x")), "says that its index has 1023 bytes of 1025"));
  CHECK(has(message(table(4096, units, "x")), "says that its index has 4096 bytes of 1025"));
  units[0] = 1000u << 10;  // the root's children begin at unit 1000
  CHECK(has(message(table(1024, units, "x")), "points out of itself"));
  units[0] = 1u << 10;                        // children at 1 ^ byte
  units[1 ^ 'a'] = 'a' | 0x100 | (2u << 10);  // "a" has a value, at (1 ^ 'a') ^ 2
  units[(1 ^ 'a') ^ 2] = 0x80000000u | 500;   // replacement 500 of 1 byte
  CHECK(has(message(table(1024, units, "x")), "points behind its replacements"));
}

}  // namespace
}  // namespace tptrain::tokenizer
