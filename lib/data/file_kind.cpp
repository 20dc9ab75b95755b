#include "data/file_kind.h"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "base/text.h"
#include "data/arrow_rows.h"
#include "data/jsonl_rows.h"
#include "formats/indexed_tokens.h"

namespace tptrain::data {

namespace {

namespace fs = std::filesystem;
using config::DataFormat;

constexpr const char* kToRows =
    "Write its rows as JSON lines, for example with Python's datasets: "
    "load_dataset(...).to_json(\"rows.jsonl\").";
constexpr const char* kToText =
    "Name text or JSON lines; data.format: text trains on the file's bytes as they are.";

struct Signature {
  std::string_view bytes;
  const char* is;
  const char* remedy;
};
using namespace std::string_view_literals;  // NUL bytes among them
// What data comes in, and what lies beside it.
constexpr std::array kSignatures = {
    Signature{"TPTOKIDX"sv, "the index of a token file of tptrain",
              "Name the text that the tokens were made from."},
    Signature{"\xFF\xFE"sv, "UTF-16 text", "Convert it: iconv -f utf-16 -t utf-8."},
    Signature{"\xFE\xFF"sv, "UTF-16 text", "Convert it: iconv -f utf-16 -t utf-8."},
    Signature{"BZh"sv, "a bzip2 file", "Unpack it (bunzip2), or pack it with gzip or zstd."},
    Signature{"\xFD"
              "7zXZ"sv,
              "an xz file", "Unpack it (unxz), or pack it with gzip or zstd."},
    Signature{"\x04\x22\x4D\x18"sv, "an LZ4 file",
              "Unpack it (unlz4), or pack it with gzip or zstd."},
    Signature{"PK\x03\x04"sv, "a zip archive (or an Office file)", "Unpack it."},
    Signature{"7z\xBC\xAF"sv, "a 7z archive", "Unpack it."},
    Signature{"\x93NUMPY"sv, "a NumPy array",
              "Write the ids as JSON lines: {\"input_ids\": [...]}."},
    Signature{"\x89HDF"sv, "an HDF5 file", kToRows},
    Signature{"SQLite format 3\0"sv, "an SQLite database", kToRows},
    Signature{"%PDF-"sv, "a PDF document", "Extract its text (pdftotext)."},
    Signature{"GGUF"sv, "a GGUF model", kToText},
    Signature{"version https://git-lfs.github.com/spec/v1"sv, "a Git LFS pointer, not the file",
              "Fetch the file: git lfs pull."},
};

struct ArrowKind {
  std::string_view bytes;
  RowLayout layout;
  const char* is;
};
constexpr std::array kArrowKinds = {
    ArrowKind{"PAR1"sv, RowLayout::parquet, "a Parquet file"},
    ArrowKind{"ARROW1"sv, RowLayout::arrow_file, "an Arrow file"},
    ArrowKind{"\xFF\xFF\xFF\xFF"sv, RowLayout::arrow_stream, "an Arrow stream"},
};
constexpr const char* kWithArrow =
    "This program was built without Arrow: scripts/setup.sh --parquet adds it, then build again "
    "(packages made by scripts/package.sh have it). Or write the rows as JSON lines, for example "
    "with Python's datasets: "
    "load_dataset(...).to_json(\"rows.jsonl\").";

struct NamedKind {
  const char* extension;
  const char* is;
  const char* remedy;
};
constexpr std::array kNamed = {
    NamedKind{".csv", "a table of comma-separated values", kToRows},
    NamedKind{".tsv", "a table of tab-separated values", kToRows},
    NamedKind{".parquet", "named as Parquet and holds none", kToRows},
    NamedKind{".arrow", "named as Arrow and holds none", kToRows},
    NamedKind{".feather", "named as Arrow and holds none", kToRows},
};

/// Lower case, without .gz and .zst: those say how a file is packed, not what it holds.
std::string extension_of(const fs::path& path) {
  const auto lower = [](std::string text) {
    for (char& c : text) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return text;
  };
  std::string extension = lower(path.extension().native());
  for (const char* packed : {".gz", ".gzip", ".zst", ".zstd"}) {
    if (extension == packed) return lower(path.stem().extension().native());
  }
  return extension;
}

bool one_of(std::string_view word, std::span<const std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string_view without_space(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string_view::npos ? std::string_view() : text.substr(begin);
}

/// What the first JSON object of a head looks like.
struct FirstObject {
  std::vector<std::string_view> keys = {};  // of the object itself, escapes left as they are
  bool complete = false;
  bool on_one_line = true;
};

FirstObject look_at_object(std::string_view head) {
  FirstObject object;
  int depth = 0;
  bool key_expected = false;
  for (size_t at = 0; at < head.size(); ++at) {
    const char c = head[at];
    if (c == '\n') object.on_one_line = false;
    if (c == '{' || c == '[') {
      key_expected = c == '{' && ++depth == 1;
      if (c == '[') ++depth;
    } else if (c == '}' || c == ']') {
      if (--depth == 0) {
        object.complete = true;
        break;
      }
    } else if (c == ',') {
      key_expected = depth == 1;
    } else if (c == ':') {
      key_expected = false;
    } else if (c == '"') {
      size_t end = at + 1;
      while (end < head.size() && head[end] != '"') end += head[end] == '\\' ? 2 : 1;
      if (end >= head.size()) break;
      if (key_expected) object.keys.push_back(head.substr(at + 1, end - at - 1));
      at = end;
    }
  }
  return object;
}

bool has_row_key(const FirstObject& object, const RowNames& names) {
  return std::any_of(object.keys.begin(), object.keys.end(),
                     [&](std::string_view key) { return names.is_row_key(key); });
}

FileKind refused(std::string is, std::string remedy) {
  return {.refused_as = std::move(is), .remedy = std::move(remedy)};
}

FileKind rows(std::string_view begin) {
  return {.format = Format::rows,
          .layout = begin.starts_with('[') ? RowLayout::array : RowLayout::lines};
}

/// Of a .json, which may be anything.
FileKind kind_of_json(std::string_view begin, const RowNames& names) {
  if (begin.empty() || begin.starts_with('[')) return rows(begin);
  if (!begin.starts_with('{')) return refused("named as JSON and holds none", kToText);
  const FirstObject object = look_at_object(begin);
  if (!object.on_one_line) {
    return refused("one JSON object over several lines",
                   "Write a row a line, or one array of rows: jq -c '.data[]' FILE > rows.jsonl "
                   "(where data is the key that holds them).");
  }
  if (!object.complete || has_row_key(object, names)) return rows(begin);
  return refused("JSON whose first line is no row", cat("A row is ", kRowForms, "."));
}

}  // namespace

bool named_rows(const fs::path& path) {
  static constexpr std::string_view kRows[] = {".jsonl", ".ndjson", ".jsonlines", ".json"};
  return one_of(extension_of(path), kRows);
}

bool named_text(const fs::path& path) {
  static constexpr std::string_view kText[] = {".txt", ".text"};
  return one_of(extension_of(path), kText);
}

FileKind kind_of_file(const fs::path& path, std::string_view head, std::optional<DataFormat> format,
                      const RowNames& names) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  const std::string_view begin =
      without_space(head.starts_with(kMark) ? head.substr(kMark.size()) : head);
  if (format == DataFormat::text) return {};
  if (format == DataFormat::jsonl) return rows(begin);
  for (const ArrowKind& kind : kArrowKinds) {
    if (!head.starts_with(kind.bytes)) continue;
    if (!reads_arrow()) return refused(kind.is, kWithArrow);
    return {.format = Format::rows, .layout = kind.layout};
  }
  if (format == DataFormat::parquet) {
    return refused("neither Parquet nor Arrow",
                   "Leave data.format out, or name the files that are.");
  }
  if (head.starts_with(formats::kIndexedMagic)) return {.format = Format::indexed};
  if (format == DataFormat::indexed) {
    return refused("no index of a Megatron token file",
                   "Name its NAME.idx or NAME.bin; both must lie side by side.");
  }
  for (const Signature& signature : kSignatures) {
    if (head.starts_with(signature.bytes)) return refused(signature.is, signature.remedy);
  }
  if (head.size() > 262 && head.substr(257, 5) == "ustar") {
    return refused("a tar archive", "Unpack it.");
  }
  if (head.find('\0') != std::string_view::npos) {
    return refused("no text: there are NUL bytes in it", kToText);
  }
  const std::string extension = extension_of(path);
  for (const NamedKind& named : kNamed) {
    if (extension == named.extension) return refused(named.is, named.remedy);
  }
  if (extension == ".json") return kind_of_json(begin, names);
  // A .jsonl is rows whatever stands in it: its first line will say what is wrong.
  if (named_rows(path)) return rows(begin);
  const bool array = begin.starts_with('[') && without_space(begin.substr(1)).starts_with('{');
  if (array || begin.starts_with('{')) {
    const std::string_view object = array ? without_space(begin.substr(1)) : begin;
    if (has_row_key(look_at_object(object), names)) {
      return refused("named as text, and begins with a JSON row",
                     "Say which it is: data.format: jsonl reads its rows, data.format: text trains "
                     "on it as it is written.");
    }
  }
  return {};
}

}  // namespace tptrain::data
