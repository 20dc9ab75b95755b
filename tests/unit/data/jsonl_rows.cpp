#include "data/jsonl_rows.h"

#include <random>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

using testing::has;
using testing::message_of;

JsonlRow parse(std::string_view line, int64_t vocab_size = 300) {
  JsonlParser parser(vocab_size);
  const auto row = parser.parse(line, "d/a.jsonl", 7);
  REQUIRE(row.has_value());
  return *row;
}

std::string failure(std::string_view line) {
  JsonlParser parser(300);
  return message_of<DataError>([&] { parser.parse(line, "d/a.jsonl", 7); });
}

TEST_CASE("a row is text, ids or ids with labels; other keys are ignored") {
  const JsonlRow text = parse(R"({"id": 1, "text": "a\n\u65e5\ud83d\ude00\u0000b", "meta": {}})");
  CHECK(text.kind.content == RowKind::Content::text);
  CHECK(text.text == std::string("a\n\u65e5\U0001F600\0b", 11));
  CHECK(parse(R"({"text": ""})").text.empty());

  const JsonlRow ids = parse(R"({"input_ids": [0, 5, 299], "attention_mask": [1, 1, 1]})");
  CHECK(ids.kind == RowKind{RowKind::Content::ids, true});
  CHECK(ids.ids == std::vector<int32_t>{0, 5, 299});
  CHECK(ids.labels.empty());
  CHECK(parse(R"({"input_ids": []})").ids.empty());

  const JsonlRow labelled = parse(R"({"labels": [-100, 7, 299], "input_ids": [0, 5, 299]})");
  CHECK(labelled.kind == RowKind{RowKind::Content::labelled_ids});
  CHECK(labelled.ids == std::vector<int32_t>{0, 5, 299});
  CHECK(labelled.labels == std::vector<int32_t>{-100, 7, 299});
  CHECK(parse("  {\"text\": \"x\"} \r").text == "x");
  CHECK(parse(R"({"input_ids": [2147483646]})", int64_t{1} << 31).ids.at(0) == 2147483646);
}

TEST_CASE("a blank line is no row") {
  JsonlParser parser(300);
  for (const char* line : {"", " ", "\t \r"}) CHECK_FALSE(parser.parse(line, "f", 1).has_value());
}

TEST_CASE("a row that is wrong is refused with its place, what it is and what it must be") {
  CHECK(failure(R"({"input_ids": [1, 300]})") ==
        "data error: d/a.jsonl:7: input_ids[1] is 300: it must be at least 0 and below the "
        "vocabulary's size, 300.\n"
        "  Were the rows made with another tokenizer? Make them with the model's.");
  CHECK(has(failure(R"({"input_ids": [-1]})"), "input_ids[0] is -1: it must be at least 0"));
  CHECK(has(failure(R"({"input_ids": [-100]})"), "input_ids[0] is -100"));
  CHECK(has(failure(R"({"input_ids": [9223372036854775808]})"),
            "input_ids[0] is 9223372036854775808: it must be at least 0 and below"));
  CHECK(has(failure(R"({"input_ids": [4294967297]})"), "input_ids[0] is 4294967297"));
  for (const char* element : {"1.0", "\"1\"", "true", "null", "[1]", "1e2"}) {
    INFO(element);
    CHECK(has(failure(std::string(R"({"input_ids": [4, )") + element + "]}"),
              ": it must be an integer"));
  }
  CHECK(
      has(failure(R"({"input_ids": [[1, 2]]})"), "input_ids[0] is a list: it must be an integer"));
  CHECK(has(failure(R"({"input_ids": ")" + std::string(5, 'x') + R"("})"),
            "input_ids is a string: it must be a list of integers"));
  CHECK(has(failure(R"({"input_ids": [")" + std::string(100, 'x') + R"("]})"),
            "input_ids[0] is \"" + std::string(39, 'x') + "...: it must be an integer"));

  CHECK(has(failure(R"({"input_ids": [1, 2], "labels": [1]})"),
            "there are 1 labels and 2 input_ids: it must be as many of both"));
  CHECK(has(failure(R"({"input_ids": [1], "labels": [-101]})"),
            "labels[0] is -101: it must be at least 0 and below the vocabulary's size, 300, or "
            "-100 (not counted)"));
  CHECK(
      has(failure(R"({"input_ids": [1], "labels": 3})"), "labels is a number: it must be a list"));
  CHECK(has(failure(R"({"text": "a", "labels": [1]})"), "there are \"labels\" beside \"text\""));
  CHECK(has(failure(R"({"text": "a", "input_ids": [1]})"),
            "there are both \"text\" and \"input_ids\": it must be one of them"));
  CHECK(has(failure(R"({"text": "a", "text": "b"})"), "the key \"text\" stands twice"));
  CHECK(
      has(failure(R"({"Text": "a"})"),
          "d/a.jsonl:7: there is neither \"text\" nor \"input_ids\", but \"Text\": it must be one "
          "JSON object a line, {\"text\": \"...\"} or {\"input_ids\": [...]}"));
  CHECK(has(failure(R"({"text": null})"), "\"text\" is null: it must be a string"));
  CHECK(has(failure(R"(["text"])"), "the line is a list: it must be one JSON object a line"));
  CHECK(has(failure("17"), "the line is a number"));
}

TEST_CASE("numbers that no machine type holds do not matter in keys that are not read") {
  for (const char* number :
       {"123456789012345678901234567890", "-123456789012345678901234567890", "1e999", "-1E+999",
        "NaN", "Infinity", "-Infinity", "[NaN, {\"y\": NaN}]"}) {
    INFO(number);
    CHECK(parse(std::string(R"({"id": )") + number + R"(, "text": "a \" NaN, 1e999 \\"})").text ==
          "a \" NaN, 1e999 \\");
  }
  CHECK(has(failure(R"({"input_ids": [123456789012345678901234567890]})"),
            "input_ids[0] is \"123456789012345678901234567890\": it must be an integer"));
  CHECK(has(failure(R"({"input_ids": [NaN]})"), "input_ids[0] is \"NaN\": it must be an integer"));
}

TEST_CASE("padding by attention_mask is left out, at both ends") {
  const JsonlRow row =
      parse(R"({"input_ids": [9, 9, 1, 2, 9], "attention_mask": [0, 0, 1, 1, 0]})");
  CHECK(row.kind == RowKind{RowKind::Content::ids, true});
  CHECK(row.ids == std::vector<int32_t>{1, 2});
  const JsonlRow labelled = parse(
      R"({"attention_mask": [true, true, false], "input_ids": [1, 2, 3], "labels": [-100, 2, 3]})");
  CHECK(labelled.ids == std::vector<int32_t>{1, 2});
  CHECK(labelled.labels == std::vector<int32_t>{-100, 2});
  CHECK(parse(R"({"input_ids": [1, 2], "attention_mask": [0, 0]})").ids.empty());
  CHECK(parse(R"({"text": "a", "attention_mask": "not read"})").text == "a");
  CHECK(failure(R"({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]})") ==
        "data error: d/a.jsonl:7: attention_mask has zeros between ones: it must be 0 on padding "
        "alone, before or behind the tokens.\n"
        "  Give \"labels\" with -100 where a token is not to be predicted.");
  CHECK(has(failure(R"({"input_ids": [1, 2], "attention_mask": [1]})"),
            "there are 1 entries of attention_mask and 2 input_ids"));
  CHECK(has(failure(R"({"input_ids": [1, 2], "attention_mask": [1, 2]})"),
            "attention_mask[1] is 2: it must be 0 or 1"));
  CHECK(
      has(failure(R"({"input_ids": [1], "attention_mask": ["1"]})"), "attention_mask[0] is \"1\""));
  CHECK(has(failure(R"({"input_ids": [1], "attention_mask": 1})"), "attention_mask is a number"));
}

TEST_CASE("a conversation goes before its own rendering; other kinds are called by their kind") {
  using Content = RowKind::Content;
  const std::string messages = R"({"messages": [{"role": "user", "content": "a"}], )";
  // As tatsu-lab/alpaca and many others have it: the text is the row once more, by some template.
  CHECK(parse(messages + R"("text": "a"})").kind.content == Content::conversation);
  CHECK(parse(messages + R"("text": null})").kind.content == Content::conversation);
  CHECK(parse(R"({"instruction": "a", "input": "", "output": "b", "text": "c"})").kind ==
        RowKind{.content = Content::conversation, .instruction = true});
  CHECK(parse(R"({"prompt": "a", "completion": "b", "text": "c"})").kind.content ==
        Content::completion);
  // A text beside what only looks like one is a text.
  for (const char* row : {R"({"messages": [], "text": "a"})", R"({"messages": 12, "text": "a"})",
                          R"({"instruction": "a", "text": "a"})", R"({"prompt": "a", "text": "a"})",
                          R"({"messages": null, "text": "a"})"}) {
    INFO(row);
    CHECK(parse(row).kind.content == Content::text);
  }
  JsonlParser named(300, RowNames({}, "body"));
  CHECK(named.parse(messages + R"("body": "a"})", "f", 1)->kind.content == Content::text);

  const JsonlRow row = parse(R"({"messages": [{"role": "user", "content": "a", "x": null}]})");
  CHECK(row.kind.content == Content::conversation);
  CHECK(row.conversation.messages.dump() == R"([{"role":"user","content":"a"}])");
  CHECK(parse(R"({"prompt": "a", "completion": "b"})").kind.content == Content::completion);
}

TEST_CASE("a row of no known kind is told its keys, and what to call them") {
  CHECK(has(failure(R"({"prompt": "a", "chosen": "b", "rejected": "c"})"),
            "data.columns: {completion: chosen}"));
  CHECK(has(failure(R"({"chosen": [{"role": "user", "content": "a"}], "rejected": []})"),
            "data.columns: {messages: chosen}"));
  const std::string pair = failure(R"({"id": 1, "question": "a", "answer": "b"})");
  CHECK(has(pair,
            "there is neither \"text\" nor \"input_ids\", but \"id\", \"question\", \"answer\""));
  CHECK(has(pair, "data.columns: {instruction: question, output: answer}"));
  CHECK(has(failure(R"({"dialogue": [{"role": "user", "content": "a"}]})"),
            "Set data.columns: {messages: dialogue}."));
  CHECK(has(failure(R"({"dialogue": [{"from": "human", "value": "a"}]})"),
            "Set data.columns: {conversations: dialogue}."));
  CHECK(has(failure(R"({"messages": [{"from": "human", "value": "a"}]})"),
            "Set data.columns: {conversations: messages}."));
  CHECK(has(failure(R"({"content": "a"})"), "data.columns: {text: KEY}"));
  // Keys are foreign text.
  const std::string controls = failure("{\"a\\u001b[2Jb\": 1}");
  CHECK(has(controls, "\"a\\x1b[2Jb\""));
  CHECK(controls.find('\x1b') == std::string::npos);
}

TEST_CASE("a conversation beside text, under a name of its own, is for the user to decide") {
  const std::string either =
      failure(R"({"id": 1, "text": "a", "dialog": [{"role": "user", "content": "a"}]})");
  CHECK(either ==
        "data error: d/a.jsonl:7: there is a conversation, \"dialog\", beside \"text\": it must be "
        "trained on as one of them.\n  Set data.columns: {messages: dialog} to train on the "
        "conversation, or {text: text} to train on the text as it is.");
  for (const auto& [turns, columns] : {
           std::pair{R"([{"from": "human", "value": "a"}])", "{conversations: dialog}"},
           {R"([{"from": "human", "content": "a"}])", "{messages: dialog, role: from}"},
           {R"([{"role": "user", "text": "a"}])", "{messages: dialog, content: text}"},
           {R"([{"role": "user", "message": "a"}, 3])", "{messages: dialog, content: message}"},
           {R"([{"content": [{"type": "text", "text": "a"}], "role": "user"}])",
            "{messages: dialog}"},
           {R"([{"role": "assistant", "content": null, "tool_calls": []}])", "{messages: dialog}"},
       }) {
    INFO(turns);
    const std::string dialog = std::string(R"("dialog": )") + turns + "}";
    const std::string set = std::string("Set data.columns: ") + columns;
    CHECK(has(failure(R"({"text": "a", )" + dialog), set));
    // Of ids too, where each would count.
    const std::string ids = failure(R"({"input_ids": [1, 2], )" + dialog);
    CHECK(has(ids, set));
    CHECK(has(ids, "or {input_ids: input_ids} to train on the ids as they are"));
    CHECK(has(failure("{" + dialog), set + "."));
    // Labels say what is learned.
    const JsonlRow labelled = parse(R"({"input_ids": [1], "labels": [1], )" + dialog);
    CHECK(labelled.kind.content == RowKind::Content::labelled_ids);
    CHECK(labelled.unread == "\"dialog\"");
  }
  CHECK(has(failure(R"({"input_ids": [1], "messages": [{"role": "user", "content": "a"}]})"),
            "there is a conversation, \"messages\", beside \"input_ids\""));
  CHECK(has(failure(R"({"text": "a", "prompt": [{"role": "user", "content": "a"}]})"),
            "Set data.columns: {messages: prompt}"));
  // Of names, lists and mails no conversation is made.
  for (const char* row : {R"({"text": "a", "dialog": []})", R"({"text": "a", "dialog": ["b"]})",
                          R"({"text": "a", "authors": [{"role": "editor", "name": "b"}]})",
                          R"({"text": "a", "mails": [{"from": "b@c.org", "text": "d"}]})",
                          R"({"text": "a", "by": [{"role": 3, "content": "b"}]})",
                          R"({"text": "a", "meta": {"role": "user", "content": "b"}})"}) {
    INFO(row);
    const JsonlRow text = parse(row);
    CHECK(text.kind.content == RowKind::Content::text);
    CHECK(text.unread.empty());
  }
  // What is said is said.
  const std::string beside =
      R"("dialog": [{"role": "user", "content": "a"}], "messages": [{"role": "user", "content": "b"}]})";
  using Columns = RowNames::Columns;
  for (const RowNames& said : {RowNames(Columns{{"text", "text"}}), RowNames(Columns(), "body"),
                               RowNames(Columns{{"messages", "dialog"}})}) {
    JsonlParser parser(300, said);
    const auto row = parser.parse(R"({"text": "t", "body": "t", )" + beside, "f", 1);
    CHECK(row.value().unread.empty());
  }
  CHECK(parse("{" + beside).unread == "\"dialog\"");
  CHECK(parse(R"({"prompt": [{"role": "user", "content": "a"}], "completion":
                  [{"role": "assistant", "content": "b"}]})")
            .unread.empty());
  CHECK(parse(R"({"prompt": "a", "completion": "b", "a": [{"role": "x", "content": "y"}],
                  "b": [{"from": "x", "value": "y"}]})")
            .unread == "\"a\", \"b\"");
}

TEST_CASE("who speaks by words of the files is who data.roles says") {
  const RowNames::Roles roles = {{"assistant", {"bot", "human"}}, {"user", {"visitor"}}};
  const auto spoken = [&](const RowNames& names, const std::string& line) {
    JsonlParser parser(300, names);
    std::string speakers;
    const JsonlRow row = parser.parse(line, "f", 1).value();
    for (const auto& message : row.conversation.messages)
      speakers += message["role"].get<std::string>() + " ";
    return speakers;
  };
  const RowNames named({}, kTextKey, roles);
  const auto sharegpt = [](const std::string& from) {
    return R"({"conversations": [{"from": ")" + from + R"(", "value": "a"}]})";
  };
  CHECK(spoken(named, sharegpt("visitor")) == "user ");
  CHECK(spoken(named, sharegpt("bot")) == "assistant ");
  CHECK(spoken(named, sharegpt("human")) == "assistant ");  // before what is known everywhere
  CHECK(spoken(named, sharegpt("gpt")) == "assistant ");
  CHECK(has(failure(sharegpt("bot")),
            "is from \"bot\": it must be from human, gpt, system or tool, or from whom data.roles "
            "names.\n  Say who that is: data.roles: {assistant: bot}"));
  const std::string messages =
      R"({"messages": [{"role": "visitor", "content": "a"}, {"role": "bot", "content": "b"},
          {"role": "critic", "content": "c"}, {"role": "gpt", "content": "d"}]})";
  CHECK(spoken(named, messages) == "user assistant critic gpt ");
  CHECK(spoken(RowNames(RowNames::Columns{{"role", "role"}}, kTextKey, roles), messages) ==
        "user assistant critic assistant ");
  CHECK(spoken(RowNames(), messages) == "visitor bot critic gpt ");
}

TEST_CASE("LLaMA-Factory's calls are the assistant's") {
  const auto row = [](const std::string& value) {
    return R"({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call",
               "value": ")" +
           value + R"(", "weight": 0}, {"from": "observation", "value": "b"}]})";
  };
  const auto one = R"({\"name\": \"f\", \"arguments\": {\"x\": 1}})";
  const auto messages = parse(row(one)).conversation.messages;
  CHECK(messages.at(1).dump() ==
        R"({"role":"assistant","content":"","tool_calls":[{"type":"function","function":)"
        R"({"name":"f","arguments":{"x":1}}}],"weight":0})");
  CHECK(messages.at(2)["role"] == "tool");
  CHECK(parse(row(std::string("[") + one + ", " + one + "]"))
            .conversation.messages.at(1)["tool_calls"]
            .size() == 2);
  for (const char* value : {"f(1)", "{}", "[]", "[3]", R"({\"name\": 1, \"arguments\": {}})"}) {
    INFO(value);
    CHECK(has(failure(row(value)), "conversations[1] is from \"function_call\" and is no call"));
  }
  JsonlParser parser(300,
                     RowNames({}, kTextKey, RowNames::Roles{{"assistant", {"function_call"}}}));
  CHECK(parser.parse(row("f(1)"), "f", 1)->conversation.messages.at(1)["content"] == "f(1)");
}

struct Named {
  RowNames::Columns columns;
  const char* row;
  JsonlRow read() const {
    JsonlParser parser(300, RowNames(columns));
    return parser.parse(row, "d/a.jsonl", 7).value();
  }
  std::string failure() const {
    return message_of<DataError>([&] { read(); });
  }
};

TEST_CASE("columns by other names: every kind of row, and nothing else beside it") {
  using Content = RowKind::Content;
  const std::string turns = R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])";
  const auto messages = [](const Named& named) {
    const JsonlRow row = named.read();
    CHECK(row.kind.content == Content::conversation);
    return row.conversation.messages.dump();
  };
  // What is named goes before what else there is, a text and other messages too.
  CHECK(messages({{{"messages", "dialog"}},
                  R"({"text": "t", "messages": [{"role": "user", "content": "x"}], "dialog":
                     [{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})"}) ==
        turns);
  CHECK(
      messages({{{"conversations", "chat"}},
                R"({"chat": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})"}) ==
      turns);
  CHECK(messages({{{"messages", "m"}, {"role", "from"}, {"content", "value"}},
                  R"({"m": [{"from": "human", "value": "a"}, {"value": "b", "from": "gpt"}]})"})
            .find("assistant") != std::string::npos);
  CHECK(messages({{{"role", "who"}, {"content", "says"}},
                  R"({"conversations": [{"who": "critic", "says": "a", "role": "x"}]})"}) ==
        R"([{"role":"critic","content":"a"}])");
  CHECK(messages({{{"instruction", "question"}, {"output", "answer"}},
                  R"({"question": "a", "answer": "b", "output": "x", "text": "t"})"}) == turns);
  CHECK(messages({{{"instruction", "q"}, {"input", "c"}, {"output", "r"}, {"history", "h"}},
                  R"({"q": "a", "c": "d", "r": "b", "h": [["e", "f"]]})"}) ==
        R"([{"role":"user","content":"e"},{"role":"assistant","content":"f"},)"
        R"({"role":"user","content":"a\n\nd"},{"role":"assistant","content":"b"}])");
  const JsonlRow with_tools =
      Named{{{"messages", "m"}, {"system", "s"}, {"tools", "functions"}},
            R"({"m": [{"role": "user", "content": "a"}], "s": "be brief", "tools": 3,
                "functions": "[{\"name\": \"f\"}]"})"}
          .read();
  CHECK(with_tools.conversation.messages[0]["content"] == "be brief");
  CHECK(with_tools.conversation.tools.dump() == R"([{"name":"f"}])");

  const JsonlRow pair =
      Named{{{"prompt", "q"}, {"completion", "a"}}, R"({"q": "x", "a": "y", "messages": []})"}
          .read();
  CHECK(pair.kind.content == Content::completion);
  CHECK(pair.prompt + pair.completion == "xy");
  CHECK(Named{{{"text", "body"}}, R"({"body": "b", "text": "t", "messages": []})"}.read().text ==
        "b");
  const JsonlRow ids = Named{{{"input_ids", "tokens"}, {"labels", "targets"}},
                             R"({"tokens": [1, 2], "targets": [-100, 2], "text": "t"})"}
                           .read();
  CHECK(ids.kind.content == Content::labelled_ids);
  CHECK(ids.labels == std::vector<int32_t>{-100, 2});
}

TEST_CASE("a column that is named and not there is said with the keys that are, not read past") {
  const std::string missing =
      Named{{{"messages", "dialogg"}}, R"({"id": 1, "dialog": [], "text": "t"})"}.failure();
  CHECK(has(missing,
            "d/a.jsonl:7: there is no \"dialogg\" (messages), but \"id\", \"dialog\", \"text\""));
  CHECK(has(missing, "have the columns that are named: {messages: dialogg}"));
  CHECK(has(
      Named{{{"instruction", "q"}, {"output", "answer"}}, R"({"q": "a", "reply": "b"})"}.failure(),
      "there is \"q\" and no \"answer\""));
  CHECK(has(Named{{{"completion", "c"}}, R"({"prompt": 1, "c": "a"})"}.failure(),
            "neither text nor a list of messages: it must be a row by the columns that are named"));
  CHECK(has(Named{{{"completion", "c"}}, R"({"c": "a", "text": "b"})"}.failure(),
            "there is no \"prompt\", but \"c\", \"text\""));
  CHECK(
      has(Named{{{"text", "body"}}, R"({"text": "b"})"}.failure(), "there is no \"body\" (text)"));
  CHECK(has(Named{{{"messages", "m"}}, R"({"m": 3})"}.failure(), "\"m\" is no list"));
  CHECK(has(Named{{{"messages", "m"}, {"role", "who"}}, R"({"m": [{"role": "user"}]})"}.failure(),
            "m[0] has no \"who\""));
}

TEST_CASE("what is no JSON or no UTF-8 is refused") {
  for (const char* line :
       {"hello", "{\"text\": \"a\"", "{\"text\": \"a\"} {}", "{'text': 'a'}", "{\"text\": \"a\",}",
        "{\"text\": \"\\ud800\"}", "{\"text\": \"\\q\"}", "{\"input_ids\": [01]}",
        "{\"input_ids\": [1 2]}", "{\"input_ids\": [nan]}", "{\"x\": 1e, \"text\": \"a\"}",
        "{\"x\": 0123456789012345678901, \"text\": \"a\"}", "{\"x\": NaNa, \"text\": \"a\"}",
        "{\"x\": NaN \"text\": \"a\"}", "\xEF\xBB\xBF"}) {
    INFO(line);
    CHECK(has(failure(line), "d/a.jsonl:7: the line is not JSON ("));
  }
  CHECK(has(failure("{\"text\": \"a"), "for plain text set data.format: text"));
  CHECK(failure("{\"text\": \"\xff\"}") ==
        "data error: d/a.jsonl:7: the line is not UTF-8: it must be UTF-8.\n"
        "  Convert the file, for example with iconv -t utf-8.");
  CHECK(has(failure("{\"text\": \"\xed\xa0\x80\"}"), "not UTF-8"));  // a surrogate
  // Nested deeper than any row has reason to be.
  CHECK(has(failure("{\"text\": \"a\", \"x\": " + std::string(100'000, '[')), "not JSON"));
}

TEST_CASE("a line longer than the limit is refused before it is parsed") {
  const std::string line =
      "{\"text\": \"" + std::string(static_cast<size_t>(kMaxLineBytes), 'x') + "\"}";
  CHECK(has(failure(line), "it must have at most 33554432"));
}

TEST_CASE("damaged rows are refused or read, never more") {
  // Each seed flips bytes of a good row; the parser is used again after every refusal.
  const std::string good = R"({"input_ids": [1, 22, 33], "labels": [-100, 22, 33], "x": "\u65e5"})";
  JsonlParser parser(300);
  std::mt19937 random(7);
  int read = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string line = good;
    for (int flips = 1 + static_cast<int>(random() % 3); flips > 0; --flips) {
      line[random() % line.size()] = static_cast<char>(random());
    }
    try {
      const auto row = parser.parse(line, "f", 1);
      if (!row) continue;
      ++read;
      for (const int32_t id : row->ids) CHECK((id >= 0 && id < 300));
      if (row->kind.content == RowKind::Content::labelled_ids)
        CHECK(row->labels.size() == row->ids.size());
    } catch (const DataError&) {
    }
  }
  CHECK(read > 100);
  CHECK(parser.parse(good, "f", 1)->ids == std::vector<int32_t>{1, 22, 33});
}

}  // namespace
}  // namespace tptrain::data
