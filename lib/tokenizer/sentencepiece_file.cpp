#include "tokenizer/sentencepiece_file.h"

#include <cmath>
#include <cstring>
#include <unordered_set>

#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"

namespace tptrain::tokenizer {

namespace {

constexpr size_t kLongestPiece = 8000;           // as in libsentencepiece
constexpr size_t kLargestTrie = 8 << 20;         // bytes; that of nmt_nfkc_cf has 0.25 MB
constexpr size_t kMostPieces = size_t{8} << 20;  // the largest known model has 262,144

/// Fields of one protobuf message, in the order in which they stand.
class Message {
 public:
  Message(std::string_view bytes, std::string place) : rest_(bytes), place_(std::move(place)) {}

  /// Goes to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field_ = key >> 3;
    wire_type_ = static_cast<int>(key & 7);
    switch (wire_type_) {
      case 0:
        number_ = varint();
        break;
      case 1:
        bytes_ = take(8);
        break;
      case 2:
        bytes_ = take(varint());
        break;
      case 5:
        bytes_ = take(4);
        break;
      default:
        damaged(cat("a field of wire type ", wire_type_));
    }
    return true;
  }
  uint64_t field() const { return field_; }
  std::string_view bytes() const {
    if (wire_type_ != 2) damaged(cat("field ", field_, " is no string"));
    return bytes_;
  }
  uint64_t number() const {
    if (wire_type_ != 0) damaged(cat("field ", field_, " is no integer"));
    return number_;
  }
  float real() const {
    if (wire_type_ != 5) damaged(cat("field ", field_, " is no float"));
    float value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    return value;
  }

  [[noreturn]] void damaged(const std::string& what) const {
    throw DataError(problem(cat("no sentencepiece model: ", what))
                        .at(place_)
                        .remedy("The file is damaged or of another kind; fetch it again."));
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) damaged("it is cut off");
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    damaged("an integer of more than 64 bits");
  }
  std::string_view take(uint64_t count) {
    if (count > rest_.size()) damaged("it is cut off");
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::string_view rest_;
  std::string place_;
  uint64_t field_ = 0;
  int wire_type_ = 0;
  uint64_t number_ = 0;
  std::string_view bytes_;
};

[[noreturn]] void not_built(const std::string& what, const std::string& name) {
  throw DataError(
      problem(cat("this sentencepiece model has ", what, ", which is not built"))
          .at(name)
          .remedy("Give a tokenizer.json instead: load the tokenizer with transformers and save it "
                  "(save_pretrained)."));
}

/// libsentencepiece walks the table of replacements, a double array of Darts-clone, without looking
/// at its bounds. This walks every node that any text can reach: all of the next steps must lie
/// inside, and every value must point into the replacements.
void check_replacements(std::string_view table, const std::string& name) {
  const auto broken = [&](const std::string& what) {
    throw DataError(problem(cat("the normaliser's table of replacements ", what))
                        .at(name)
                        .remedy("The file is damaged; fetch it again."));
  };
  uint32_t trie_bytes = 0;
  if (table.size() <= sizeof trie_bytes) broken("is cut off");
  std::memcpy(&trie_bytes, table.data(), sizeof trie_bytes);
  table.remove_prefix(sizeof trie_bytes);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= table.size()) {
    broken(cat("says that its index has ", trie_bytes, " bytes of ", table.size()));
  }
  if (trie_bytes > kLargestTrie) broken(cat("has an index of ", trie_bytes, " bytes"));
  std::vector<uint32_t> units(trie_bytes / 4);
  std::memcpy(units.data(), table.data(), trie_bytes);
  const size_t replacement_bytes = table.size() - trie_bytes;

  const auto offset_of = [](uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); };
  std::vector<bool> seen(units.size(), false);
  std::vector<size_t> to_visit = {0};
  seen[0] = true;
  while (!to_visit.empty()) {
    const size_t node = to_visit.back();
    to_visit.pop_back();
    const size_t base = node ^ offset_of(units[node]);
    if ((base | 0xFF) >= units.size()) broken("points out of itself");
    const bool has_value = (units[node] & 0x100) != 0 && node != 0;
    if (has_value && (units[base] & 0x7FFFFFFF) >= replacement_bytes) {
      broken("points behind its replacements");
    }
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const size_t next = base ^ byte;
      if ((units[next] & 0x800000FF) != byte || seen[next]) continue;
      seen[next] = true;
      to_visit.push_back(next);
    }
  }
}

Piece read_piece(std::string_view bytes, size_t id, const std::string& name) {
  Message message(bytes, cat(name, ", piece ", id));
  Piece piece;
  float score = 0;
  while (message.next()) {
    if (message.field() == 1) piece.text = message.bytes();
    if (message.field() == 2) score = message.real();
    if (message.field() == 3) {
      const uint64_t kind = message.number();
      if (kind < 1 || kind > 6) message.damaged(cat("its type is ", kind));
      piece.kind = static_cast<PieceKind>(kind);
    }
  }
  if (piece.text.empty()) message.damaged("it is empty");
  if (piece.text.size() >= kLongestPiece) message.damaged("it is longer than any piece");
  if (piece.text.find('\0') != std::string::npos) message.damaged("it holds a zero byte");
  if (first_invalid_utf8(piece.text) != std::string_view::npos) message.damaged("it is no UTF-8");
  if (!std::isfinite(score)) message.damaged("its score is not finite");
  if (piece.kind == PieceKind::byte && byte_of_piece(piece.text) < 0) {
    message.damaged(cat("\"", piece.text, "\" names no byte"));
  }
  return piece;
}

void read_trainer_spec(std::string_view bytes, const std::string& name) {
  Message message(bytes, name);
  while (message.next()) {
    if (message.field() == 3 && message.number() != 1 && message.number() != 2) {
      not_built(cat("the type ", message.number() == 3   ? "word"
                                 : message.number() == 4 ? "char"
                                                         : std::to_string(message.number())),
                name);
    }
    if (message.field() == 24 && message.number() != 0)
      not_built("treat_whitespace_as_suffix", name);
  }
}

void read_normalizer_spec(std::string_view bytes, const std::string& name,
                          SentencepieceFile& file) {
  Message message(bytes, name);
  while (message.next()) {
    if (message.field() == 2) {
      file.changes_characters = !message.bytes().empty();
      if (file.changes_characters) check_replacements(message.bytes(), name);
    }
    if (message.field() == 3) file.add_dummy_prefix = message.number() != 0;
    if (message.field() == 4) file.remove_extra_whitespaces = message.number() != 0;
    if (message.field() == 5 && message.number() == 0) not_built("escape_whitespaces: false", name);
  }
}

}  // namespace

int byte_of_piece(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  const size_t high = kDigits.find(text[3]);
  const size_t low = kDigits.find(text[4]);
  if (high == kDigits.npos || low == kDigits.npos) return -1;
  return static_cast<int>(high * 16 + low);
}

SentencepieceFile read_sentencepiece_file(std::string_view bytes, const std::string& name) {
  SentencepieceFile file;
  Message message(bytes, name);
  while (message.next()) {
    if (message.field() == 1) {
      if (file.pieces.size() == kMostPieces) message.damaged("more pieces than any model has");
      file.pieces.push_back(read_piece(message.bytes(), file.pieces.size(), name));
    }
    if (message.field() == 2) read_trainer_spec(message.bytes(), name);
    if (message.field() == 3) read_normalizer_spec(message.bytes(), name, file);
    if (message.field() == 5) {
      Message denormalizer(message.bytes(), name);
      while (denormalizer.next()) {
        if (denormalizer.field() == 2 && !denormalizer.bytes().empty()) {
          not_built("a denormaliser", name);
        }
      }
    }
  }
  if (file.pieces.empty()) message.damaged("it has no pieces");
  std::unordered_set<std::string_view> texts;
  int unknown = 0;
  for (const Piece& piece : file.pieces) {
    if (!texts.insert(piece.text).second)
      message.damaged(cat("two pieces are \"", piece.text, "\""));
    unknown += piece.kind == PieceKind::unknown ? 1 : 0;
  }
  if (unknown != 1) message.damaged(cat("it has ", unknown, " unknown pieces instead of one"));
  return file;
}

}  // namespace tptrain::tokenizer
