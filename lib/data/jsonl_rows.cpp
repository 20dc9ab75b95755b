#include "data/jsonl_rows.h"

#include <simdjson.h>

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "base/text.h"
#include "base/utf8.h"
#include "data/conversation_columns.h"
#include "data/conversation_rows.h"
#include "data/row_reader.h"
#include "data/unknown_row.h"
#include "data/wild_numbers.h"
#include "formats/token_file.h"

namespace tptrain::data {

namespace dom = simdjson::dom;

namespace {

struct Place {
  std::string_view file;
  int64_t line;
  std::string text() const { return cat(file, ":", line); }
};

[[noreturn]] void refuse(const Place& place, std::string received, std::string constraint,
                         std::string fix) {
  throw BadRow(problem(std::move(received))
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
  return cat(utf8_prefix(text, 40), "...");
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

struct Columns {
  std::optional<dom::element> text;
  std::optional<dom::element> ids;
  std::optional<dom::element> labels;
  std::optional<dom::element> mask;
};

/// A row that is neither text nor ids.
JsonlRow other_row(const dom::object& object, const RowNames& names, const Place& place) {
  const RefuseRow refuse_row = [&](std::string received, std::string constraint, std::string fix) {
    refuse(place, std::move(received), std::move(constraint), std::move(fix));
  };
  JsonlRow row;
  if (auto conversation = conversation_of(object, names, refuse_row)) {
    row.kind = {.content = RowKind::Content::conversation,
                .instruction = conversation->from_instruction};
    row.conversation = std::move(*conversation);
    return row;
  }
  std::string_view prompt;
  std::string_view completion;
  if (names.may_be("completion") &&
      object.at_key(names.of("prompt")).get(prompt) == simdjson::SUCCESS &&
      object.at_key(names.of("completion")).get(completion) == simdjson::SUCCESS) {
    row.kind.content = RowKind::Content::completion;
    row.prompt = prompt;
    row.completion = completion;
    return row;
  }
  throw BadRow(unknown_row(object, names).at(place.text()));
}

Columns columns_of(const dom::object& object, const RowNames& names, const Place& place) {
  const std::string_view text_key = names.of(kTextKey);
  const std::string_view ids_key = names.of("input_ids");
  const std::string_view labels_key = names.of("labels");
  const std::string_view mask_key = names.of("attention_mask");
  const bool may_be_text = names.may_be(kTextKey);
  const bool may_be_ids = names.may_be("input_ids");
  Columns columns;
  for (const dom::key_value_pair field : object) {
    std::optional<dom::element>* column = may_be_text && field.key == text_key    ? &columns.text
                                          : may_be_ids && field.key == ids_key    ? &columns.ids
                                          : may_be_ids && field.key == labels_key ? &columns.labels
                                          : may_be_ids && field.key == mask_key   ? &columns.mask
                                                                                  : nullptr;
    if (column == nullptr) continue;
    if (column->has_value()) {
      refuse(place, cat("the key \"", field.key, "\" stands twice"), "stand once",
             "Remove the one that is not meant.");
    }
    *column = field.value;
  }
  if (columns.text && columns.ids) {
    refuse(place, cat("there are both \"", text_key, "\" and \"", ids_key, "\""), "be one of them",
           cat("Set data.columns: {input_ids: ", ids_key,
               "} to train on the ids as they are, or {text: ", text_key,
               "} to have the text tokenized."));
  }
  if (columns.text && columns.labels) {
    refuse(place, cat("there are \"", labels_key, "\" beside \"", text_key, "\""),
           "belong to \"input_ids\", one an id",
           "Remove \"labels\", or give the row as input_ids.");
  }
  return columns;
}

/// The ids that count, [begin, end): padding lies before or behind them.
struct Unpadded {
  size_t begin = 0;
  size_t end = 0;
};

Unpadded unpadded(const dom::element& value, size_t ids, const Place& place) {
  dom::array mask;
  if (value.get(mask) != simdjson::SUCCESS) {
    refuse(place, cat("attention_mask is ", kind_of(value)), "be a list of 0 and 1",
           "Remove it where nothing is padding.");
  }
  Unpadded range;
  size_t at = 0;
  size_t ones = 0;
  for (const dom::element element : mask) {
    int64_t one = 0;
    bool flag = false;
    if (element.get(flag) == simdjson::SUCCESS) one = flag ? 1 : 0;
    const bool read = element.is_bool() || element.get(one) == simdjson::SUCCESS;
    if (!read || one < 0 || one > 1) {
      refuse(place, cat("attention_mask[", at, "] is ", shown(element)), "be 0 or 1",
             "Documents packed into one row are given as rows of their own.");
    }
    if (one == 1 && ones++ == 0) range.begin = at;
    ++at;
    if (one == 1) range.end = at;
  }
  if (at != ids) {
    refuse(place, cat("there are ", at, " entries of attention_mask and ", ids, " input_ids"),
           "be as many of both", "Make the rows again.");
  }
  if (ones != range.end - range.begin) {
    refuse(place, "attention_mask has zeros between ones",
           "be 0 on padding alone, before or behind the tokens",
           "Give \"labels\" with -100 where a token is not to be predicted.");
  }
  return range;
}

template <typename T>
void cut(std::vector<T>& list, const Unpadded& range) {
  list.erase(list.begin() + static_cast<std::ptrdiff_t>(range.end), list.end());
  list.erase(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(range.begin));
}

JsonlRow ids_of(const Columns& columns, int64_t vocab_size, const Place& place) {
  JsonlRow row;
  row.kind = {.content = RowKind::Content::ids, .masked = columns.mask.has_value()};
  row.ids = read_ids(*columns.ids, "input_ids", false, vocab_size, place);
  if (columns.labels) {
    row.kind.content = RowKind::Content::labelled_ids;
    row.labels = read_ids(*columns.labels, "labels", true, vocab_size, place);
    if (row.labels.size() != row.ids.size()) {
      refuse(place,
             cat("there are ", row.labels.size(), " labels and ", row.ids.size(), " input_ids"),
             "be as many of both: labels[i] belongs to input_ids[i]",
             "Put -100 where a token is not to be predicted.");
    }
  }
  if (columns.mask) {
    const Unpadded range = unpadded(*columns.mask, row.ids.size(), place);
    cut(row.ids, range);
    if (columns.labels) cut(row.labels, range);
  }
  return row;
}

bool is_filled(const dom::object& object, std::string_view key) {
  dom::element value;
  return object.at_key(key).get(value) == simdjson::SUCCESS && !value.is_null();
}

/// The columns from which conversation_of has read a row of this kind.
std::vector<std::string_view> read_columns(const dom::object& object, const RowNames& names,
                                           RowKind::Content content) {
  if (content != RowKind::Content::conversation) return {};
  for (const std::string_view ours : {"messages", "conversations"}) {
    if (is_filled(object, names.of(ours))) return {names.of(ours)};
  }
  return {names.of("prompt"), names.of("completion")};
}

/// What looks like a conversation, and is not what is read of the row.
std::vector<ConversationColumn> unread_conversations(const dom::object& object,
                                                     const RowNames& names,
                                                     RowKind::Content content) {
  if (names.say_kind()) return {};
  std::vector<ConversationColumn> unread = conversation_columns(object, names);
  const std::vector<std::string_view> read = read_columns(object, names, content);
  std::erase_if(unread, [&](const ConversationColumn& column) {
    return std::find(read.begin(), read.end(), column.key) != read.end();
  });
  return unread;
}

/// Trained on as text, or as ids that all count, a conversation would be learned whole, by whatever
/// template and with the user's part: which of the two is meant is not for the program to say.
[[noreturn]] void refuse_either(const ConversationColumn& column, std::string_view ours,
                                const RowNames& names, const Place& place) {
  const bool is_text = ours == kTextKey;
  refuse(place,
         cat("there is a conversation, \"", printable_line(utf8_prefix(column.key, /*limit=*/40)),
             "\", beside \"", ours, "\""),
         "be trained on as one of them",
         cat("Set data.columns: ", columns_that_read(column, names),
             " to train on the conversation, or {", ours, ": ", ours, "} to train on the ",
             is_text ? "text" : "ids", " as ", is_text ? "it is." : "they are."));
}

std::string named(const std::vector<ConversationColumn>& columns) {
  constexpr size_t kMost = 3;
  std::vector<std::string> names;
  for (const ConversationColumn& column : columns) {
    if (names.size() == kMost) {
      names.emplace_back("...");
      break;
    }
    names.push_back(cat("\"", printable_line(utf8_prefix(column.key, /*limit=*/40)), "\""));
  }
  return join(names);
}

/// A row that says what it is, or is said to be.
JsonlRow row_of(const dom::object& object, const RowNames& names, int64_t vocab_size,
                const Place& place) {
  Columns columns = columns_of(object, names, place);
  // A data set often has its conversations rendered by some template as well. Who names the column
  // of the text means it.
  const std::string_view text_key = names.of(kTextKey);
  if (columns.text && !names.say_kind() && is_conversation_beside_text(object, names))
    columns.text.reset();
  if (!columns.text && !columns.ids) return other_row(object, names, place);
  if (columns.ids) return ids_of(columns, vocab_size, place);
  JsonlRow row;
  std::string_view text;
  if (columns.text->get(text) != simdjson::SUCCESS) {
    refuse(place, cat("\"", text_key, "\" is ", kind_of(*columns.text)), "be a string",
           "Write it in quotes, or remove the row.");
  }
  row.text = text;
  return row;
}

}  // namespace

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

std::string describe(const RowKind& kind) {
  if (kind.content == RowKind::Content::text) return "text";
  if (kind.content == RowKind::Content::conversation)
    return kind.instruction ? "an instruction with its answer" : "a conversation";
  if (kind.content == RowKind::Content::completion) return "a prompt with its completion";
  const bool labelled = kind.content == RowKind::Content::labelled_ids;
  return cat("input_ids", labelled ? " with labels" : "",
             kind.masked ? (labelled ? " and attention_mask" : " with attention_mask") : "");
}

struct JsonlParser::Impl {
  Impl(int64_t vocab, RowNames row_names) : vocab_size(vocab), names(std::move(row_names)) {}
  int64_t vocab_size;
  RowNames names;
  dom::parser parser{static_cast<size_t>(kMaxLineBytes)};
  std::string quoted;
};

JsonlParser::JsonlParser(int64_t vocab_size, RowNames names)
    : impl_(std::make_unique<Impl>(vocab_size, std::move(names))) {}
JsonlParser::~JsonlParser() = default;

std::optional<JsonlRow> JsonlParser::parse(std::string_view line, std::string_view file,
                                           int64_t line_number) {
  if (is_blank(line)) return std::nullopt;
  const Place place{file, line_number};
  dom::element document;
  const auto parse_text = [&](std::string_view text) {
    return impl_->parser.parse(text.data(), text.size(), /*realloc_if_needed=*/true).get(document);
  };
  simdjson::error_code error = parse_text(line);
  // Numbers that no machine type holds do not matter in keys that are not read, and where they are
  // read the message shows them.
  if (error == simdjson::NUMBER_ERROR || error == simdjson::TAPE_ERROR) {
    if (quote_wild_numbers(line, impl_->quoted)) error = parse_text(impl_->quoted);
  }
  if (error == simdjson::CAPACITY) {
    refuse(place, cat("the line has ", line.size(), " bytes"), cat("have at most ", kMaxLineBytes),
           "Cut the document into several lines.");
  }
  if (error == simdjson::UTF8_ERROR) {
    refuse(place, "the line is not UTF-8", "be UTF-8",
           "Convert the file, for example with iconv -t utf-8.");
  }
  if (error != simdjson::SUCCESS) {
    refuse(place, cat("the line is not JSON (", simdjson::error_message(error), ")"),
           must_be_a_row(), "Repair or remove the line; for plain text set data.format: text.");
  }
  dom::object object;
  if (document.get(object) != simdjson::SUCCESS) {
    refuse(place, cat("the line is ", kind_of(document)), must_be_a_row(),
           "Write the row as an object.");
  }
  const RowNames& names = impl_->names;
  JsonlRow row = row_of(object, names, impl_->vocab_size, place);
  const std::vector<ConversationColumn> unread =
      unread_conversations(object, names, row.kind.content);
  if (unread.empty()) return row;
  if (row.kind.content == RowKind::Content::text)
    refuse_either(unread.front(), kTextKey, names, place);
  if (row.kind.content == RowKind::Content::ids)
    refuse_either(unread.front(), "input_ids", names, place);
  row.unread = named(unread);
  return row;
}

}  // namespace tptrain::data
