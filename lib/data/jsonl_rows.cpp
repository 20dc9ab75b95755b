#include "data/jsonl_rows.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/error.h"
#include "base/printable.h"
#include "base/text.h"
#include "base/utf8.h"
#include "data/conversation_rows.h"
#include "data/row_reader.h"
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

std::string must_be_a_row() { return cat("be one JSON object a line, ", kRowForms); }

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

// Keys of rows of other kinds than text and ids.
constexpr std::array<std::string_view, 8> kOtherKeys = {"messages",   "conversations", "prompt",
                                                        "completion", "instruction",   "chosen",
                                                        "rejected",   "output"};

std::string shown_key(std::string_view key) { return printable_line(utf8_prefix(key, 40)); }

/// ", but "question" and "answer"": the first keys of a row.
std::string keys_instead(const dom::object& object) {
  constexpr size_t kMost = 8;
  std::vector<std::string> keys;
  for (const dom::key_value_pair field : object) {
    if (keys.size() == kMost) {
      keys.emplace_back("...");
      break;
    }
    keys.push_back(cat("\"", shown_key(field.key), "\""));
  }
  return keys.empty() ? "" : cat(", but ", join(keys));
}

std::string_view first_text_key(const dom::object& object, std::span<const std::string_view> keys) {
  for (const std::string_view key : keys) {
    dom::element value;
    if (object.at_key(key).get(value) == simdjson::SUCCESS && value.is_string()) return key;
  }
  return {};
}

/// Of a row of no known kind: what to rename so that it is of one.
std::string remedy_of_keys(const dom::object& object) {
  for (const dom::key_value_pair field : object) {
    dom::array list;
    dom::object first;
    dom::element role;
    if (field.value.get(list) == simdjson::SUCCESS && list.size() > 0 &&
        list.at(0).get(first) == simdjson::SUCCESS &&
        first.at_key("role").get(role) == simdjson::SUCCESS) {
      return cat("Rename \"", shown_key(field.key), "\" to \"messages\".");
    }
  }
  constexpr std::array<std::string_view, 6> kQuestions = {"question", "query",   "prompt",
                                                          "problem",  "request", "input"};
  constexpr std::array<std::string_view, 6> kAnswers = {"answer",     "response", "output",
                                                        "completion", "solution", "reply"};
  const std::string_view question = first_text_key(object, kQuestions);
  const std::string_view answer = first_text_key(object, kAnswers);
  if (question.empty() || answer.empty())
    return "Set data.text_key to the key that holds the text.";
  return cat("To train on \"", answer, "\" as the answer to \"", question,
             "\", rename them: jq -c '{instruction: .", question, ", output: .", answer,
             "}' FILE > rows.jsonl.");
}

/// A row that is neither text nor ids.
JsonlRow other_row(const dom::object& object, const std::string& text_key, const Place& place) {
  const RefuseRow refuse_row = [&](std::string received, std::string constraint, std::string fix) {
    refuse(place, std::move(received), std::move(constraint), std::move(fix));
  };
  JsonlRow row;
  if (auto conversation = conversation_of(object, refuse_row)) {
    row.kind = {.content = RowKind::Content::conversation,
                .instruction = conversation->from_instruction};
    row.conversation = std::move(*conversation);
    return row;
  }
  std::string_view prompt;
  std::string_view completion;
  if (object.at_key("prompt").get(prompt) == simdjson::SUCCESS &&
      object.at_key("completion").get(completion) == simdjson::SUCCESS) {
    row.kind.content = RowKind::Content::completion;
    row.prompt = prompt;
    row.completion = completion;
    return row;
  }
  dom::element chosen;
  if (object.at_key("chosen").get(chosen) == simdjson::SUCCESS) {
    refuse(
        place, "the row is a preference pair: it has \"chosen\"", must_be_a_row(),
        cat("Training on preferences (DPO) is not built; to train on what was chosen, rename the "
            "key to \"",
            chosen.is_array() ? "messages" : "completion", "\"."));
  }
  refuse(place, cat("there is neither \"", text_key, "\" nor \"input_ids\"", keys_instead(object)),
         must_be_a_row(), remedy_of_keys(object));
}

Columns columns_of(const dom::object& object, const std::string& text_key, const Place& place) {
  Columns columns;
  for (const dom::key_value_pair field : object) {
    std::optional<dom::element>* column = field.key == text_key           ? &columns.text
                                          : field.key == "input_ids"      ? &columns.ids
                                          : field.key == "labels"         ? &columns.labels
                                          : field.key == "attention_mask" ? &columns.mask
                                                                          : nullptr;
    if (column == nullptr) continue;
    if (column->has_value()) {
      refuse(place, cat("the key \"", field.key, "\" stands twice"), "stand once",
             "Remove the one that is not meant.");
    }
    *column = field.value;
  }
  if (columns.text && columns.ids) {
    refuse(place, cat("there are both \"", text_key, "\" and \"input_ids\""), "be one of them",
           cat("Remove \"", text_key,
               "\" to train on the ids as they are, or \"input_ids\" to have the text tokenized."));
  }
  if (columns.text && columns.labels) {
    refuse(place, cat("there are \"labels\" beside \"", text_key, "\""),
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

}  // namespace

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

bool is_row_key(std::string_view key) {
  if (key == "input_ids") return true;
  return std::find(kOtherKeys.begin(), kOtherKeys.end(), key) != kOtherKeys.end();
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
  Impl(int64_t vocab, std::string text) : vocab_size(vocab), text_key(std::move(text)) {}
  int64_t vocab_size;
  std::string text_key;
  dom::parser parser{static_cast<size_t>(kMaxLineBytes)};
  std::string quoted;
};

JsonlParser::JsonlParser(int64_t vocab_size, std::string text_key)
    : impl_(std::make_unique<Impl>(vocab_size, std::move(text_key))) {}
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
  Columns columns = columns_of(object, impl_->text_key, place);
  // A data set often has its conversations rendered by some template as well. Who names another key
  // than "text" means it.
  if (columns.text && impl_->text_key == kTextKey && is_conversation_beside_text(object))
    columns.text.reset();
  if (!columns.text && !columns.ids) return other_row(object, impl_->text_key, place);

  JsonlRow row;
  if (columns.text) {
    std::string_view text;
    if (columns.text->get(text) != simdjson::SUCCESS) {
      refuse(place, cat("\"", impl_->text_key, "\" is ", kind_of(*columns.text)), "be a string",
             "Write it in quotes, or remove the row.");
    }
    row.text = text;
    return row;
  }
  return ids_of(columns, impl_->vocab_size, place);
}

}  // namespace tptrain::data
