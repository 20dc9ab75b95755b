// Rows of conversations and completions, from the file to the labels of its tokens.
#include "data/chat_rows.h"

#include "base/error.h"
#include "base/text.h"
#include "chat_template/chat_template.h"
#include "data/align_tokens.h"
#include "data/packing.h"
#include "data/show_row.h"
#include "data/token_store.h"
#include "formats/token_file.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

namespace fs = std::filesystem;
using chat_template::ChatTemplate;
using testing::has;
using testing::message_of;
using testing::TempDir;
using Texts = std::vector<std::string>;

/// Bytes, a pair of them, and special tokens.
class ChatTokenizer final : public tokenizer::Tokenizer {
 public:
  int64_t vocab_size() const override { return 512; }
  int32_t end_of_text() const override { return find("</s>"); }
  std::vector<int32_t> encode(std::string_view text,
                              const tokenizer::EncodeOptions& options) const override {
    std::vector<int32_t> ids;
    if (options.add_special) ids.push_back(find("<s>"));
    for (size_t at = 0; at < text.size();) {
      int32_t id = static_cast<unsigned char>(text[at]);
      size_t length = 1;
      for (size_t i = 0; i < kMore.size(); ++i) {
        if (text.substr(at).starts_with(kMore[i]) && kMore[i].size() > length) {
          id = 256 + static_cast<int32_t>(i);
          length = kMore[i].size();
        }
      }
      ids.push_back(id);
      at += length;
    }
    return ids;
  }
  std::string decode(const std::vector<int32_t>& ids,
                     const tokenizer::DecodeOptions& options) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (!(options.skip_special && id >= 256 && id < 260)) text += token(id);
    }
    return text;
  }
  std::string token(int32_t id) const override {
    return id < 256 ? std::string(1, static_cast<char>(id))
                    : kMore.at(static_cast<size_t>(id - 256));
  }
  int32_t find(std::string_view token) const override {
    for (size_t i = 0; i < kMore.size(); ++i) {
      if (kMore[i] == token) return 256 + static_cast<int32_t>(i);
    }
    return -1;
  }
  std::string hash() const override { return "chat"; }

 private:
  // The first four are special; the pair goes over the border of what people say.
  const std::vector<std::string> kMore = {"<s>", "</s>", "<|start|>", "<|end|>", "\nH"};
};

constexpr const char* kTemplate =
    "{% for m in messages %}{{ '<|start|>' + m.role + '\\n' }}"
    "{% if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
    "{{ m.content }}"
    "{% for call in m.tool_calls %}{{ '<call>' + (call.function | tojson) + '</call>' }}{% endfor "
    "%}"
    "{{ '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}";

Corpus corpus(const fs::path& file, const ChatOptions& options = {}) {
  return {.sources = {{.path = file.string()}}, .chat = options, .chat_template = [] {
            return std::make_shared<const ChatTemplate>(
                ChatTemplate::from_source(kTemplate, "template"));
          }};
}

/// The documents of a file with what is learned in [[ ]].
Texts learned(const TempDir& dir, const std::string& rows, const ChatOptions& options = {}) {
  const ChatTokenizer tokenizer;
  const PreparedTokens prepared =
      prepare_tokens(corpus(dir.put("rows.jsonl", rows), options), tokenizer, dir / "t", "train");
  const formats::TokenFile file(prepared.path);
  Texts texts;
  for (int64_t document = 0; document < prepared.documents; ++document) {
    const TokenRange range = document_range(file.header(), document);
    std::vector<int64_t> ids(static_cast<size_t>(range.end - range.begin));
    std::vector<int64_t> labels(ids.size());
    file.copy(range.begin, ids);
    file.copy_labels(range.begin, labels);
    std::string text;
    bool open = false;
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool learns = labels[i] != formats::kNoLabel;
      if (learns) CHECK(labels[i] == ids[i]);
      if (learns != open) text += learns ? "[[" : "]]";
      open = learns;
      text += tokenizer.token(static_cast<int32_t>(ids[i]));
    }
    texts.push_back(text + (open ? "]]" : ""));
  }
  return texts;
}

std::string failure(const TempDir& dir, const std::string& rows, const ChatOptions& options = {}) {
  return message_of<DataError>([&] { learned(dir, rows, options); });
}

const std::string kRow =
    R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"},
       {"role": "assistant", "content": "Hi", "reasoning_content": null},
       {"role": "user", "content": "R"}, {"role": "assistant", "content": "Ho"}]})";

std::string one_line(std::string text) {
  std::erase(text, '\n');
  return text + "\n";
}

TEST_CASE("what the assistant says is learned, with the token that ends it") {
  const TempDir dir;
  const std::string before =
      "<|start|>system\nS<|end|>\n<|start|>user\nQ<|end|>\n<|start|>assistant";
  // "\nH" is one token: it counts by its last byte, and is learned.
  CHECK(learned(dir, one_line(kRow)) ==
        Texts{before + "[[\nHi<|end|>]]\n<|start|>user\nR<|end|>\n<|start|>assistant"
                       "[[\nHo<|end|>]]\n"});
  CHECK(learned(dir, one_line(kRow), {.train_on_end = false}) ==
        Texts{before + "[[\nHi]]<|end|>\n<|start|>user\nR<|end|>\n<|start|>assistant[[\nHo]]"
                       "<|end|>\n"});
  CHECK(
      learned(dir, one_line(kRow), {.train_on = TrainOn::last}) ==
      Texts{before + "\nHi<|end|>\n<|start|>user\nR<|end|>\n<|start|>assistant[[\nHo<|end|>]]\n"});
  CHECK(learned(dir, one_line(kRow), {.train_on = TrainOn::all}) ==
        Texts{"[[" + before +
              "\nHi<|end|>\n<|start|>user\nR<|end|>\n<|start|>assistant"
              "\nHo<|end|>\n]]"});
}

TEST_CASE("the token that ends a turn is the template's") {
  const ChatTokenizer tokenizer;
  const auto end_in = [&](const char* source) {
    return end_of_turn(ChatTemplate::from_source(source, "t"), tokenizer);
  };
  CHECK(end_in(kTemplate) == tokenizer.find("<|end|>"));
  CHECK(end_in("{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}"
               "{% if m.role == 'assistant' %}{{ '</s>' }}{% endif %}{% endfor %}") ==
        tokenizer.find("</s>"));
  CHECK(end_in("{% for m in messages %}{{ m.content + '\\n' }}{% endfor %}") == -1);
}

TEST_CASE("reasoning and tool calls are learned with what the template writes around them") {
  const TempDir dir;
  CHECK(learned(dir,
                R"({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", )"
                R"("content": "a", "reasoning_content": "r", "tool_calls": [{"function": )"
                R"({"name": "f", "arguments": {"n": 1}}}]}, {"role": "tool", "content": "2"}]})"
                "\n") ==
        Texts{"<|start|>user\nQ<|end|>\n<|start|>assistant\n[[<think>r</think>a<call>{\"name\": "
              "\"f\", \"arguments\": {\"n\": 1}}</call><|end|>]]\n<|start|>tool\n2<|end|>\n"});
  // Without its end, the call is still whole.
  CHECK(has(learned(dir,
                    R"({"messages": [{"role": "assistant", "content": "", "tool_calls": )"
                    R"([{"function": {"name": "f", "arguments": {}}}]}]})"
                    "\n",
                    {.train_on_end = false})
                .at(0),
            "[[<call>{\"name\": \"f\", \"arguments\": {}}</call>]]<|end|>"));
}

TEST_CASE("every form in which data sets have conversations") {
  const TempDir dir;
  const std::string expected = "<|start|>user\nQ<|end|>\n<|start|>assistant\n[[A<|end|>]]\n";
  for (
      const char* row :
      {R"({"messages": [{"content": "Q", "role": "user"}, {"role": "assistant", "content": "A"}]})",
       R"({"id": 1e999, "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]})",
       R"({"conversations": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]})",
       R"({"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]})",
       R"({"instruction": "Q", "input": "", "output": "A", "text_": 3})",
       R"({"instruction": "Q", "input": null, "output": "A"})",
       R"({"instruction": "Q", "context": "", "response": "A", "category": "x"})",
       R"({"instruction": "Q", "output": "A", "history": []})",
       R"({"instruction": "Q", "output": "A", "text": "### Q ### A"})",
       R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, {"role": "assistant", "content": "A"}]})"}) {
    INFO(row);
    CHECK(learned(dir, std::string(row) + "\n") == Texts{expected});
  }
  CHECK(learned(dir, R"({"instruction": "Q", "input": "I", "output": "A", "system": "S"})"
                     "\n") ==
        Texts{"<|start|>system\nS<|end|>\n<|start|>user\nQ\n\nI<|end|>\n<|start|>assistant\n"
              "[[A<|end|>]]\n"});
  // Earlier turns are turns like any other.
  const std::string with_history =
      R"({"instruction": "R", "output": "B", "history": [["Q", "A"]], "system": "S"})"
      "\n";
  CHECK(
      learned(dir, with_history) ==
      Texts{"<|start|>system\nS<|end|>\n<|start|>user\nQ<|end|>\n<|start|>assistant\n[[A<|end|>]]\n"
            "<|start|>user\nR<|end|>\n<|start|>assistant\n[[B<|end|>]]\n"});
  CHECK(learned(dir, with_history, {.train_on = TrainOn::last}).at(0).find("[[A") ==
        std::string::npos);
  // The answers of a prompt are part of it.
  CHECK(learned(dir,
                R"({"prompt": [{"role": "assistant", "content": "P"}], "completion": )"
                R"([{"role": "assistant", "content": "A"}]})"
                "\n") == Texts{"<|start|>assistant\nP<|end|>\n<|start|>assistant\n[[A<|end|>]]\n"});
  CHECK(learned(dir, R"({"prompt": "Say H", "completion": "i</s>", "x": 1})"
                     "\n") == Texts{"<s>Say H[[i</s></s>]]"});
  CHECK(learned(dir,
                R"({"prompt": "Say\n", "completion": "Hi"})"
                "\n",
                {.train_on_end = false}) == Texts{"<s>Say[[\nHi]]</s>"});
  CHECK(learned(dir,
                R"({"prompt": "a", "completion": "b"})"
                "\n",
                {.train_on = TrainOn::all}) == Texts{"[[<s>ab</s>]]"});
}

TEST_CASE("rows that are wrong are refused with their place") {
  const TempDir dir;
  const auto place = (dir / "rows.jsonl").string();
  CHECK(failure(dir, R"({"messages": [{"content": "Q"}]})") ==
        "data error: " + place +
            ":1: messages[0] has no role: it must be an object with a string \"role\".\n"
            "  Write it as {\"role\": \"user\", \"content\": \"...\"}, or name its keys: "
            "data.columns: {role: KEY, content: KEY}.");
  CHECK(has(failure(dir, R"({"messages": "hi"})"), ":1: \"messages\" is no list"));
  CHECK(has(failure(dir, R"({"conversations": [{"from": "alien", "value": "Q"}]})"),
            "conversations[0] is from \"alien\""));
  CHECK(has(failure(dir, R"({"conversations": [{"from": "human"}]})"), "has no \"value\""));
  CHECK(has(failure(dir, R"({"conversations": [3]})"), "conversations[0] is no object"));
  CHECK(has(failure(dir, R"({"instruction": "a"})"), "there is \"instruction\" and no \"output\""));
  CHECK(has(failure(dir, R"({"messages": [], "tools": "no"})"), "\"tools\" is no list"));
  for (const char* history : {"\"x\"", "[[\"a\"]]", "[{\"a\": 1}]", "[[\"a\", 1]]"}) {
    const std::string row = cat(R"({"instruction": "a", "output": "b", "history": )", history, "}");
    CHECK(has(failure(dir, row), "\"history\" is no list of pairs"));
  }
  CHECK(has(failure(dir, R"({"prompt": "a", "completion": 3})"), "there is neither \"text\" nor"));
  CHECK(has(failure(dir, one_line(kRow) + R"({"text": "a"})"),
            ":2: the row is text, that of line 1 is a conversation"));
  CHECK(has(failure(dir, one_line(kRow) + R"({"instruction": "a", "output": "b"})"),
            ":2: the row is an instruction with its answer, that of line 1 is a conversation"));
  Corpus strict = corpus(dir.put("s.jsonl", one_line(kRow) + one_line(kRow)));
  strict.chat_template = [] {
    return std::make_shared<const ChatTemplate>(
        ChatTemplate::from_source("{{ raise_exception('no') }}", "strict"));
  };
  const std::string refused =
      message_of<DataError>([&] { prepare_tokens(strict, ChatTokenizer(), dir / "t", "train"); });
  CHECK(has(refused, "data error: " + (dir / "s.jsonl").string() + ":1: "));
  CHECK(has(refused, "the chat template refuses this conversation: no"));
  CHECK(refused.find("..") == std::string::npos);
}

TEST_CASE("rows of which nothing is learned are counted; a file of them is refused") {
  const TempDir dir;
  const std::string silent = R"({"messages": [{"role": "user", "content": "Q"}]})"
                             "\n";
  const fs::path file = dir.put("a.jsonl", one_line(kRow) + silent + one_line(kRow) + silent);
  const PreparedTokens prepared = prepare_tokens(corpus(file), ChatTokenizer(), dir / "t", "train");
  CHECK(prepared.documents == 2);
  CHECK(prepared.notes == Texts{"2 of 4 rows of " + file.string() +
                                " hold nothing to be learned and are left out, the first is " +
                                file.string() + ":2"});
  CHECK(failure(dir, silent + silent) ==
        "data error: " + (dir / "rows.jsonl").string() +
            ": none of its 2 rows holds a token that is to be learned (the roles of its first are "
            "user): it must hold answers of the assistant (data.train_on is assistant).\n"
            "  Say who the assistant is, data.roles: {assistant: WORD}; data.train_on: all learns "
            "every token.");
}

TEST_CASE("a question of a role that the template does not know is not left out in silence") {
  const TempDir dir;
  const auto prepared = [&](const std::string& messages) {
    Corpus by_known = corpus(dir.put("a.jsonl", cat(R"({"messages": [)", messages, "]}\n")));
    by_known.chat_template = [] {
      return std::make_shared<const ChatTemplate>(ChatTemplate::from_source(
          "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}<|start|>{{ m.role }}\n"
          "{{ m.content }}<|end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>"
          "assistant\n{% endif %}",
          "known"));
    };
    return prepare_tokens(by_known, ChatTokenizer(), dir / "t", "train").documents;
  };
  const std::string answer = R"({"role": "assistant", "content": "A"})";
  const auto refused = [&](const std::string& messages) {
    return message_of<DataError>([&] { prepared(messages); });
  };
  CHECK(
      refused(cat(R"({"role": "human", "content": "Q"}, )", answer)) ==
      "data error: " + (dir / "a.jsonl").string() +
          ":1: the chat template leaves out what messages[0] says: its role is \"human\": it must "
          "be of a role that the template knows.\n"
          "  Say who that is: data.roles: {user: human}.");
  CHECK(has(refused(cat(answer, R"(, {"role": "gpt", "content": "B"})")),
            "what messages[1] says: its role is \"gpt\""));
  // What says nothing is not missed, and of other roles a template leaves out what it likes.
  CHECK(prepared(cat(R"({"role": "human", "content": " "}, )", answer)) == 1);
  CHECK(prepared(cat(R"({"role": "critic", "content": "Q"}, )", answer)) == 1);
}

TEST_CASE("what the first row of a file has that is not read as it may be meant is said") {
  const TempDir dir;
  const auto notes = [&](const fs::path& path, RowNames names = {}) {
    Corpus noted = corpus(path);
    noted.names = std::move(names);
    const Texts first = prepare_tokens(noted, ChatTokenizer(), dir / "t", "train").notes;
    CHECK(prepare_tokens(noted, ChatTokenizer(), dir / "t", "train").notes == first);  // reused
    return first;
  };
  const std::string turns =
      R"([{"role": "human", "content": "Q"}, {"role": "assistant", "content": "A"}])";
  const fs::path rows =
      dir.put("a.jsonl", cat(R"({"messages": )", turns, R"(, "rejected": )", turns, "}\n"));
  const std::string unread =
      "what looks like a conversation and is not read: \"rejected\"; data.columns: {messages: KEY} "
      "reads one of that name (";
  const std::string roles =
      "the chat template is given roles as they are written; data.roles: {user: human} says who "
      "that is (";
  CHECK(notes(rows) == Texts{roles + rows.string() + ")", unread + rows.string() + ")"});
  CHECK(notes(rows, RowNames(RowNames::Columns{{"messages", "messages"}}, kTextKey,
                             RowNames::Roles{{"user", {"human"}}}))
            .empty());
  dir.put("many/a.jsonl", cat(R"({"messages": )", turns, "}\n"));
  const fs::path last = dir.put("many/b.jsonl", cat(R"({"messages": )", turns, "}\n"));
  CHECK(notes(last.parent_path()) ==
        Texts{roles + "2 files, the first is " + (dir / "many/a.jsonl").string() + ")"});
}

TEST_CASE("what decides the labels decides the token file") {
  const TempDir dir;
  const fs::path file = dir.put("a.jsonl", one_line(kRow));
  const auto identity = [&](const Corpus& of) {
    return prepare_tokens(of, ChatTokenizer(), dir / "t", "train").identity;
  };
  const std::string usual = identity(corpus(file));
  CHECK(identity(corpus(file)) == usual);
  CHECK(identity(corpus(file, {.train_on = TrainOn::last})) != usual);
  CHECK(identity(corpus(file, {.train_on_end = false})) != usual);
  Corpus other = corpus(file);
  other.chat_template = [] {
    return std::make_shared<const ChatTemplate>(
        ChatTemplate::from_source("{% for m in messages %}{{ m.content }}{% endfor %}", "o"));
  };
  CHECK(identity(other) != usual);
  Corpus by_roles = corpus(file);
  by_roles.names = RowNames({}, kTextKey, RowNames::Roles{{"user", {"visitor"}}});
  CHECK(identity(by_roles) != usual);
  // Rows of text are not concerned.
  const fs::path text = dir.put("b.jsonl", "{\"text\": \"a\"}\n");
  CHECK(identity(corpus(text)) == identity(corpus(text, {.train_on = TrainOn::last})));
}

TEST_CASE("many rows keep their order, whatever the number of threads") {
  const TempDir dir;
  std::string rows;
  for (int i = 0; i < 1500; ++i) {
    rows +=
        R"({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": ")" +
        std::to_string(i) + "\"}]}\n";
  }
  Corpus many = corpus(dir.put("a.jsonl", rows));
  std::string sha256;
  for (const int threads : {1, 4}) {
    many.threads = threads;
    fs::remove_all(dir / "t");
    const PreparedTokens prepared = prepare_tokens(many, ChatTokenizer(), dir / "t", "train");
    CHECK(prepared.documents == 1500);
    const std::string now = sha256_file(prepared.path.string() + ".bin");
    CHECK((sha256.empty() || now == sha256));
    sha256 = now;
  }
}

TEST_CASE("the first row is shown on one line, with what is learned marked and nothing to obey") {
  const TempDir dir;
  const std::string row =
      R"({"messages": [{"role": "user", "content": "Q\u001b[31m"}, {"role": "assistant", "content": "A"}]})";
  const PreparedTokens prepared =
      prepare_tokens(corpus(dir.put("a.jsonl", row)), ChatTokenizer(), dir / "t", "train");
  const formats::TokenFile file(prepared.path);
  CHECK(show_row(file, 0, ChatTokenizer(), 1000) ==
        R"(<|start|>user\nQ\u001b[31m<|end|>\n<|start|>assistant\n[[A<|end|>]]\n)");
  CHECK(show_row(file, 0, ChatTokenizer(), 12).ends_with(" ..."));
}

TEST_CASE("tokens are found in the text that they were made of") {
  for (const char* name :
       {"byte_level", "metaspace_first", "metaspace_always", "prefix_space", "splits", "words"}) {
    INFO(name);
    const auto tokenizer = tokenizer::make_tokenizer(
        std::string(TPTRAIN_SOURCE_DIR "/tests/golden/tokenizer_bpe/") + name + ".json");
    for (const std::string text : {"the lobster is blue, in 1969", "  two  spaces\nand lines\n\n",
                                   "\u65e5\u672c \U0001F600!"}) {
      INFO(text);
      const std::vector<int32_t> ids = tokenizer->encode(text);
      const std::vector<TokenAt> at = align_tokens(*tokenizer, text, ids);
      REQUIRE(at.size() == ids.size());
      if (ids.empty()) continue;
      CHECK(at.back().end == text.size());
      size_t begin = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        CHECK(at[i].end >= begin);
        begin = at[i].end;
      }
    }
  }
  // Exactly, where the tokens spell the text.
  const ChatTokenizer chat;
  const std::string text = "<|start|>a\nHi<|end|>";
  const std::vector<TokenAt> at = align_tokens(chat, text, chat.encode(text, {}));
  std::vector<size_t> ends;
  for (const TokenAt& token : at) {
    CHECK(token.known);
    ends.push_back(token.end);
  }
  CHECK(ends == std::vector<size_t>{9, 10, 12, 13, 20});
  CHECK(at.front().special);
  CHECK_FALSE(at[1].special);
  // Where they do not, up to the next special one.
  const std::string changed = "<|start|>a X i<|end|>b";
  const std::vector<TokenAt> other =
      align_tokens(chat, changed, chat.encode("<|start|>a_x<|end|>b", {}));
  REQUIRE(other.size() == 6);
  CHECK((other[1].known && other[1].end == 10));
  CHECK((!other[2].known && !other[3].known && other[2].end == 14 && other[3].end == 14));
  CHECK((other[4].known && other[4].end == 21 && other[5].end == 22));
}

}  // namespace
}  // namespace tptrain::data
