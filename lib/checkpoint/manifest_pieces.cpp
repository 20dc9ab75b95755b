#include "checkpoint/manifest_pieces.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "base/text.h"
#include "checkpoint/manifest_events.h"
#include "checkpoint/manifest_fields.h"

namespace tptrain::checkpoint {

namespace {

std::string place_of(const ManifestPiece& piece) {
  return cat("piece of \"", piece.spec.name, "\"");
}

void require_kind(const std::string& kind) {
  if (!sharding::is_state_kind(kind))
    throw Refused(cat("manifest: a piece has the unknown kind \"", one_line(kind), "\""));
}

// "exp_avg/model.norm.weight#0"
std::string key_of(const ManifestPiece& piece, int64_t number) {
  return cat(piece.kind, "/", piece.spec.name, "#", number);
}

// What is read under a key is what the key says.
void check_key(const ManifestPiece& piece) {
  const size_t hash = piece.key.rfind('#');
  const std::string_view number =
      std::string_view(piece.key).substr(hash == piece.key.npos ? piece.key.size() : hash + 1);
  const bool is_number = !number.empty() && std::all_of(number.begin(), number.end(), [](char c) {
    return c >= '0' && c <= '9';
  });
  const std::string_view rest = std::string_view(piece.key).substr(0, hash);
  if (is_number && rest == cat(piece.kind, "/", piece.spec.name)) return;
  throw Refused(cat("manifest: ", place_of(piece), " of kind ", piece.kind, " has the key \"",
                    piece.key, "\", which is of something else"));
}

// The number of elements of the whole tensor.
int64_t check_shape(const ManifestPiece& piece) {
  int64_t numel = 1;
  for (const int64_t extent : piece.spec.global_shape) {
    if (__builtin_mul_overflow(numel, extent, &numel) || numel > kMax / 4) {
      throw Refused(cat("manifest: ", place_of(piece), ": its shape is larger than any memory"));
    }
  }
  if (piece.spec.global_shape.size() > 8) {
    throw Refused(
        cat("manifest: ", place_of(piece), " has ", piece.spec.global_shape.size(), " dimensions"));
  }
  return numel;
}

void check_elements(const ManifestPiece& piece, int64_t numel) {
  int64_t slice_numel = numel;
  if (piece.spec.whole()) {
    if (piece.spec.begin != 0 || piece.spec.end != 0) {
      throw Refused(
          cat("manifest: ", place_of(piece), " is cut along no dimension but has a slice"));
    }
  } else {
    const int64_t extent = piece.spec.global_shape[static_cast<size_t>(piece.spec.dim)];
    if (piece.spec.begin >= piece.spec.end || piece.spec.end > extent) {
      throw Refused(cat("manifest: ", place_of(piece), ": slice [", piece.spec.begin, ", ",
                        piece.spec.end, ") of a dimension of ", extent));
    }
    slice_numel = numel / extent * (piece.spec.end - piece.spec.begin);
  }
  if (piece.begin >= piece.end || piece.end > slice_numel) {
    throw Refused(cat("manifest: ", place_of(piece), ": range [", piece.begin, ", ", piece.end,
                      ") of a slice of ", slice_numel, " elements"));
  }
}

int64_t dimensions_of(const ManifestPiece& piece) {
  return static_cast<int64_t>(piece.spec.global_shape.size());
}

auto tensor_of(const ManifestPiece& piece) {
  return std::tie(piece.spec.name, piece.spec.dim, piece.spec.global_shape);
}

auto place_in_file(const ManifestPiece& piece) {
  return std::tie(piece.file, piece.spec.begin, piece.spec.end, piece.begin, piece.end);
}

std::string number_text(const ManifestPiece& piece) {
  const std::string number = piece.key.substr(piece.key.rfind('#') + 1);
  return cat("[", piece.file, ",", number, ",", piece.spec.begin, ",", piece.spec.end, ",",
             piece.begin, ",", piece.end, "]");
}

// ,"name":"...","shape":[..]} of the tensor that ends
std::string tail_of(const ManifestPiece& piece) {
  return cat(",\"name\":", Json(piece.spec.name).dump(), ",\"shape\":[",
             join(piece.spec.global_shape, ","), "]}");
}

}  // namespace

void add_piece(const Json& element, std::vector<ManifestPiece>& pieces) {
  const Fields fields(element, "pieces[]");
  ManifestPiece piece;
  piece.spec.name = fields.text("tensor");
  piece.kind = fields.text("kind");
  require_kind(piece.kind);
  piece.spec.global_shape = fields.integers("shape", 1, kMax);
  const int64_t numel = check_shape(piece);
  piece.spec.dim = fields.integer("dim", -1, dimensions_of(piece) - 1);
  std::tie(piece.spec.begin, piece.spec.end) = fields.interval("slice");
  std::tie(piece.begin, piece.end) = fields.interval("range");
  check_elements(piece, numel);
  piece.file = fields.integer("file", 0, kMax);
  piece.key = fields.text("key");
  check_key(piece);
  pieces.push_back(std::move(piece));
}

void add_tensor(const Json& element, std::vector<ManifestPiece>& pieces) {
  const Fields fields(element, "tensors[]");
  ManifestPiece piece;
  piece.spec.name = fields.text("name");
  piece.spec.global_shape = fields.integers("shape", 1, kMax);
  const int64_t numel = check_shape(piece);
  piece.spec.dim = fields.integer("dim", -1, dimensions_of(piece) - 1);
  const Json& kinds = fields.at("kinds");
  if (!kinds.is_object()) throw Refused("manifest: tensors[].kinds is no object");
  for (const auto& [kind, list] : kinds.items()) {
    require_kind(kind);
    piece.kind = kind;
    const Fields of_kind(kinds, "tensors[].kinds");
    for (const Json& numbers : of_kind.list(kind.c_str())) {
      const std::vector<int64_t> six = integers_of(numbers, "tensors[].kinds", 0, kMax);
      if (six.size() != 6) throw Refused(cat("manifest: ", place_of(piece), " is no six numbers"));
      piece.file = six[0];
      piece.key = key_of(piece, six[1]);
      piece.spec.begin = six[2];
      piece.spec.end = six[3];
      piece.begin = six[4];
      piece.end = six[5];
      check_elements(piece, numel);
      pieces.push_back(piece);
    }
  }
}

void check_pieces(const std::vector<ManifestPiece>& pieces, int64_t file_count) {
  std::unordered_set<std::string> keys;
  for (const ManifestPiece& piece : pieces) {
    if (piece.file >= file_count) {
      throw Refused(
          cat("manifest: ", place_of(piece), " is in file ", piece.file, " of ", file_count));
    }
    if (!keys.insert(cat(piece.file, " ", piece.key)).second) {
      throw Refused(
          cat("manifest: key \"", piece.key, "\" of file ", piece.file, " stands for two pieces"));
    }
  }
}

std::string tensors_text(const std::vector<ManifestPiece>& pieces) {
  std::vector<const ManifestPiece*> order;
  order.reserve(pieces.size());
  for (const ManifestPiece& piece : pieces) order.push_back(&piece);
  std::sort(order.begin(), order.end(), [](const ManifestPiece* a, const ManifestPiece* b) {
    if (tensor_of(*a) != tensor_of(*b)) return tensor_of(*a) < tensor_of(*b);
    if (a->kind != b->kind) return a->kind < b->kind;
    return place_in_file(*a) < place_in_file(*b);
  });
  std::string text = "[";
  const ManifestPiece* before = nullptr;
  for (const ManifestPiece* piece : order) {
    const bool same_tensor = before != nullptr && tensor_of(*before) == tensor_of(*piece);
    if (same_tensor && before->kind == piece->kind) {
      text += ",";
    } else if (same_tensor) {
      text += cat("],\"", piece->kind, "\":[");
    } else {
      if (before != nullptr) text += cat("]}", tail_of(*before), ",");
      text += cat("{\"dim\":", piece->spec.dim, ",\"kinds\":{\"", piece->kind, "\":[");
    }
    text += number_text(*piece);
    before = piece;
  }
  if (before != nullptr) text += cat("]}", tail_of(*before));
  return text + "]";
}

std::string pieces_text(const std::vector<ManifestPiece>& pieces) {
  return cat("{\"tensors\":", tensors_text(pieces), "}");
}

std::vector<ManifestPiece> parse_pieces(std::string_view text, int64_t file_count) {
  std::vector<ManifestPiece> pieces;
  read_manifest_events(text, [&](Json&& element) { add_tensor(element, pieces); });
  check_pieces(pieces, file_count);
  return pieces;
}

}  // namespace tptrain::checkpoint
