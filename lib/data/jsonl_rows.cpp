#include "data/jsonl_rows.h"

#include <simdjson.h>

#include "base/error.h"
#include "base/text.h"
#include "formats/token_file.h"

namespace tptrain::data {

namespace dom = simdjson::dom;

namespace {

constexpr const char* kForms =
    "be one JSON object a line, {\"text\": \"...\"} or {\"input_ids\": [...]}, the latter with "
    "\"labels\": [...] or without";

struct Place {
  std::string_view file;
  int64_t line;
  std::string text() const { return cat(file, ":", line); }
};

[[noreturn]] void refuse(const Place& place, std::string received, std::string constraint,
                         std::string fix) {
  throw DataError(problem(std::move(received))
                      .at(place.text())
                      .must(std::move(constraint))
                      .remedy(std::move(fix)));
}

std::string_view kind_of(const dom::element& value) {
  switch (value.type()) {
    case dom::element_type::ARRAY:
      return "a list";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::INT64:
    case dom::element_type::UINT64:
    case dom::element_type::DOUBLE:
      return "a number";
    case dom::element_type::STRING:
      return "a string";
    case dom::element_type::BOOL:
      return "true or false";
    case dom::element_type::NULL_VALUE:
      return "null";
  }
  return "of no known kind";
}

/// The value as it may stand in a message: shortened.
std::string shown(const dom::element& value) {
  if (value.is_array() || value.is_object()) return std::string(kind_of(value));
  std::string text = simdjson::to_string(value);
  if (text.size() <= 40) return text;
  size_t end = 40;  // not within a character
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

/// A list of ids; `key` is for messages. With `allow_none`, formats::kNoLabel is one too.
std::vector<int32_t> read_ids(const dom::element& value, std::string_view key, bool allow_none,
                              int64_t vocab_size, const Place& place) {
  dom::array list;
  if (value.get(list) != simdjson::SUCCESS) {
    refuse(place, cat(key, " is ", kind_of(value)), "be a list of integers",
           "Write it as [1, 2, 3].");
  }
  std::vector<int32_t> ids;
  for (const dom::element element : list) {
    const auto at = [&] { return cat(key, "[", ids.size(), "] is ", shown(element)); };
    int64_t id = 0;
    const bool is_integer = element.get(id) == simdjson::SUCCESS;
    if (!is_integer && element.type() != dom::element_type::UINT64) {
      refuse(place, at(), "be an integer", "Write ids as plain integers, without quotes or point.");
    }
    const bool none = allow_none && is_integer && id == formats::kNoLabel;
    if (!none && (!is_integer || id < 0 || id >= vocab_size)) {
      refuse(place, at(),
             cat("be at least 0 and below the vocabulary's size, ", vocab_size,
                 allow_none ? ", or -100 (not counted)" : ""),
             "Were the rows made with another tokenizer? Make them with the model's.");
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

struct Columns {
  std::optional<dom::element> text;
  std::optional<dom::element> ids;
  std::optional<dom::element> labels;
};

Columns columns_of(const dom::object& object, const Place& place) {
  Columns columns;
  for (const dom::key_value_pair field : object) {
    std::optional<dom::element>* column = field.key == "text"        ? &columns.text
                                          : field.key == "input_ids" ? &columns.ids
                                          : field.key == "labels"    ? &columns.labels
                                                                     : nullptr;
    if (column == nullptr) continue;
    if (column->has_value()) {
      refuse(place, cat("the key \"", field.key, "\" stands twice"), "stand once",
             "Remove the one that is not meant.");
    }
    *column = field.value;
  }
  if (columns.text && columns.ids) {
    refuse(place, "there are both \"text\" and \"input_ids\"", "be one of them",
           "Remove \"text\" to train on the ids as they are, or \"input_ids\" to have the text "
           "tokenized.");
  }
  if (!columns.text && !columns.ids) {
    refuse(place, "there is neither \"text\" nor \"input_ids\"", kForms,
           "Rename the key that holds the text.");
  }
  if (columns.text && columns.labels) {
    refuse(place, "there are \"labels\" beside \"text\"", "belong to \"input_ids\", one an id",
           "Remove \"labels\", or give the row as input_ids.");
  }
  return columns;
}

}  // namespace

std::string describe(RowKind kind) {
  switch (kind) {
    case RowKind::text:
      return "text";
    case RowKind::ids:
      return "input_ids";
    case RowKind::labelled_ids:
      return "input_ids with labels";
  }
  return "";
}

struct JsonlParser::Impl {
  explicit Impl(int64_t vocab) : vocab_size(vocab) {}
  int64_t vocab_size;
  dom::parser parser{static_cast<size_t>(kMaxLineBytes)};
};

JsonlParser::JsonlParser(int64_t vocab_size) : impl_(std::make_unique<Impl>(vocab_size)) {}
JsonlParser::~JsonlParser() = default;

std::optional<JsonlRow> JsonlParser::parse(std::string_view line, std::string_view file,
                                           int64_t line_number) {
  if (is_blank(line)) return std::nullopt;
  const Place place{file, line_number};
  dom::element document;
  const simdjson::error_code error =
      impl_->parser.parse(line.data(), line.size(), /*realloc_if_needed=*/true).get(document);
  if (error == simdjson::CAPACITY) {
    refuse(place, cat("the line has ", line.size(), " bytes"), cat("have at most ", kMaxLineBytes),
           "Cut the document into several lines.");
  }
  if (error == simdjson::UTF8_ERROR) {
    refuse(place, "the line is not UTF-8", "be UTF-8",
           "Convert the file, for example with iconv -t utf-8.");
  }
  if (error != simdjson::SUCCESS) {
    refuse(place, cat("the line is not JSON (", simdjson::error_message(error), ")"), kForms,
           "Repair or remove the line; for plain text set data.format: text.");
  }
  dom::object object;
  if (document.get(object) != simdjson::SUCCESS) {
    refuse(place, cat("the line is ", kind_of(document)), kForms, "Write the row as an object.");
  }
  const Columns columns = columns_of(object, place);

  JsonlRow row;
  if (columns.text) {
    std::string_view text;
    if (columns.text->get(text) != simdjson::SUCCESS) {
      refuse(place, cat("\"text\" is ", kind_of(*columns.text)), "be a string",
             "Write it in quotes, or remove the row.");
    }
    row.text = text;
    return row;
  }
  row.kind = RowKind::ids;
  row.ids = read_ids(*columns.ids, "input_ids", false, impl_->vocab_size, place);
  if (!columns.labels) return row;
  row.kind = RowKind::labelled_ids;
  row.labels = read_ids(*columns.labels, "labels", true, impl_->vocab_size, place);
  if (row.labels.size() != row.ids.size()) {
    refuse(place,
           cat("there are ", row.labels.size(), " labels and ", row.ids.size(), " input_ids"),
           "be as many of both: labels[i] belongs to input_ids[i]",
           "Put -100 where a token is not to be predicted.");
  }
  return row;
}

}  // namespace tptrain::data
