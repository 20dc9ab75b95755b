// What a sentencepiece model file says, read with a protobuf reader of our own: libsentencepiece
// hides its messages, and follows the offsets of a damaged normaliser out of its memory. Private to
// this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::tokenizer {

enum class PieceKind {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct Piece {
  std::string text;
  PieceKind kind = PieceKind::normal;
};

struct SentencepieceFile {
  std::vector<Piece> pieces;        // by id
  bool changes_characters = false;  // the normaliser has a table of replacements
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

/// 0-255 for the piece of a byte, "<0x0A>"; else -1.
int byte_of_piece(std::string_view text);

/// Throws DataError: cut off, no such message, an empty or repeated piece, a byte piece that names
/// no byte, a normaliser whose table points out of itself; a model type other than BPE and
/// unigram, or an option that is not built.
SentencepieceFile read_sentencepiece_file(std::string_view bytes, const std::string& name);

}  // namespace tptrain::tokenizer
