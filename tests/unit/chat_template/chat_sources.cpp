// Where each byte of a rendered conversation comes from, and where its answers are: on the golden
// templates, seven in the manner of published ones and some 590 random ones, and on hand-marked
// renderings.
#include <cstdio>
#include <optional>

#include "base/error.h"
#include "chat_template/answer_spans.h"
#include "chat_template/chat_template.h"
#include "support/catch.h"
#include "support/tokenizer_test_data.h"

namespace tptrain::chat_template {
namespace {

using nlohmann::ordered_json;
using Kind = Source::Kind;

struct Golden {
  ordered_json json = ordered_json::parse(
      testing::content_of(TPTRAIN_SOURCE_DIR "/tests/golden/chat/templates.json"));
  std::vector<std::pair<std::string, std::string>> constants;
  Golden() {
    for (const auto& [name, value] : json["constants"].items()) {
      constants.emplace_back(name, value.get<std::string>());
    }
  }
  ChatTemplate made(size_t index) const {
    return ChatTemplate::from_source(json["templates"][index].get<std::string>(), "golden",
                                     constants);
  }
};

// Each message speaks with characters of its own, so that the text itself says where they are from.
constexpr uint32_t kFirstCharacter = 0x4E00;
constexpr uint32_t kCharactersOfMessage = 64;

std::string utf8(uint32_t c) {
  return {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
          static_cast<char>(0x80 | (c & 63))};
}

std::string words(int message, int from) {
  std::string text;
  for (int i = from; i < from + 8; ++i) {
    text += utf8(kFirstCharacter + kCharactersOfMessage * static_cast<uint32_t>(message) +
                 static_cast<uint32_t>(i));
    if (i % 3 == 1) text += i % 2 == 0 ? " " : "\n";
  }
  return text;
}

ordered_json conversation(const std::vector<std::string>& roles) {
  ordered_json messages = ordered_json::array();
  for (const std::string& role : roles) {
    const int index = static_cast<int>(messages.size());
    ordered_json message = {{"role", role}, {"content", words(index, 0)}};
    if (role == "assistant" && index % 4 == 1) message["reasoning_content"] = words(index, 8);
    if (role == "assistant" && index % 4 == 3) {
      message["tool_calls"] = ordered_json::array(
          {{{"id", "abcdefghi"},
            {"type", "function"},
            {"function", {{"name", words(index, 16)}, {"arguments", {{"k", words(index, 24)}}}}}}});
    }
    messages.push_back(message);
  }
  return messages;
}

/// The message whose character begins at `at`, if it is one's.
std::optional<int32_t> speaker(std::string_view text, size_t at) {
  if ((static_cast<unsigned char>(text[at]) & 0xF0) != 0xE0 || at + 2 >= text.size()) return {};
  const uint32_t c = (static_cast<uint32_t>(text[at]) & 15) << 12 |
                     (static_cast<uint32_t>(text[at + 1]) & 63) << 6 |
                     (static_cast<uint32_t>(text[at + 2]) & 63);
  if (c < kFirstCharacter || c >= kFirstCharacter + 16 * kCharactersOfMessage) return {};
  return static_cast<int32_t>((c - kFirstCharacter) / kCharactersOfMessage);
}

struct Counts {
  int rendered = 0;
  int64_t answers = 0;
  int64_t wrong = 0;
};

void check_sources(const SourcedText& text, const ordered_json& messages, Counts& counts) {
  const std::string_view bytes = text.bytes();
  for (size_t at = 0; at < bytes.size(); ++at) {
    const Source source = text.source_at(at);
    const auto message = speaker(bytes, at);
    if (!message) continue;
    const bool by_assistant = messages[static_cast<size_t>(*message)]["role"] == "assistant";
    // What somebody says is nobody else's answer. An answer quoted in another turn is a field
    // there.
    const bool right = source.kind == Kind::field ||
                       (source.kind == Kind::answer && source.message == *message && by_assistant);
    counts.wrong += right ? 0 : 1;
    counts.answers += source.kind == Kind::answer ? 1 : 0;
    for (size_t byte = at + 1; byte < at + 3; ++byte)
      counts.wrong += text.source_at(byte) == source ? 0 : 1;
  }
  size_t begin = 0;
  for (const SourcedText::Run& run : text.runs()) {
    CHECK(run.end > begin);
    begin = run.end;
  }
  CHECK((text.runs().empty() || begin == bytes.size()));
}

TEST_CASE("whatever a template does with texts, each character keeps where it came from") {
  const Golden golden;
  Counts counts;
  for (size_t i = 0; i < golden.json["templates"].size(); ++i) {
    INFO(golden.json["templates"][i].get<std::string>());
    for (const std::vector<std::string>& roles : std::vector<std::vector<std::string>>{
             {"user", "assistant"},
             {"system", "user", "assistant", "user", "assistant"},
             {"user", "assistant", "user", "assistant", "tool"}}) {
      const ordered_json messages = conversation(roles);
      try {
        const SourcedText text =
            golden.made(i).render_sourced(messages, {.time_seconds = 1700000000});
        ++counts.rendered;
        check_sources(text, messages, counts);
      } catch (const DataError&) {
        // Refused: what is asked of characters outside of ASCII is, and some conversations are.
      }
    }
  }
  CHECK(counts.wrong == 0);
  CHECK(counts.rendered > 300);
  CHECK(counts.answers > 300);
  std::printf("%d renderings, %ld characters of answers\n", counts.rendered,
              static_cast<long>(counts.answers));
}

/// "[[answer]]tail|" in the text.
std::string marked(const ChatTemplate& chat, const ordered_json& messages) {
  const SourcedText text = chat.render_sourced(messages, {.time_seconds = 1700000000});
  std::string out;
  size_t at = 0;
  for (const AnswerSpan& span : answer_spans(text, chat.generation_prompt(), chat.late_closing())) {
    out += text.bytes().substr(at, span.begin - at);
    out += "[[" + text.bytes().substr(span.begin, span.end - span.begin) + "]]";
    out += text.bytes().substr(span.end, span.tail_end - span.end) + "|";
    at = span.tail_end;
  }
  return out + text.bytes().substr(at);
}

const ordered_json kTurns = ordered_json::parse(R"([
  {"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\nr\n</think>\n\nb"},
  {"role": "user", "content": "b"}, {"role": "assistant", "content": "c", "reasoning_content": "why"}
])");
const ordered_json kCalls = ordered_json::parse(R"([
  {"role": "user", "content": "w?"},
  {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdefghi", "function": {"name": "w", "arguments": {"c": "Z", "n": 1}}}]},
  {"role": "tool", "content": "21"}, {"role": "assistant", "content": "Warm."}
])");

TEST_CASE("answers begin behind what asks for them, and what a model must write is in them") {
  const Golden golden;
  CHECK(marked(golden.made(0), kTurns) ==
        "<|start|>system\nHelp.<|end|>\n<|start|>user\na<|end|>\n<|start|>assistant\n"
        "[[<think>\nr\n</think>\n\nb]]<|end|>\n|<|start|>user\nb<|end|>\n<|start|>assistant\n"
        "[[c]]<|end|>\n|");
  // In the manner of Qwen3: reasoning of earlier turns is dropped, that of the last is written.
  CHECK(marked(golden.made(1), kTurns) ==
        "<|start|>user\na<|end|>\n<|start|>assistant\n[[b]]<|end|>\n|<|start|>user\nb<|end|>\n"
        "<|start|>assistant\n[[<think>\nwhy\n</think>\n\nc]]<|end|>\n|");
  CHECK(marked(golden.made(1), kCalls) ==
        "<|start|>user\nw?<|end|>\n<|start|>assistant\n[[<call>\n{\"name\": \"w\", \"arguments\": "
        "{\"c\": \"Z]]\", \"n\": 1}}\n</call><|end|>\n|<|start|>user\n<r>\n21\n</r><|end|>\n"
        "<|start|>assistant\n[[<think>\n\n</think>\n\nWarm.]]<|end|>\n|");
  // Of Llama 3, Llama 2, Mistral, Zephyr.
  CHECK(marked(golden.made(2), kTurns)
            .ends_with("<|head|>assistant<|/head|>\n\n[[<think>\nr\n</"
                       "think>\n\nb]]<|eot|>|<|head|>user<|/head|>\n\n"
                       "b<|eot|><|head|>assistant<|/head|>\n\n[[c]]<|eot|>|"));
  CHECK(marked(golden.made(3), kTurns) ==
        "<s>[INST] a [/INST][[ <think>\nr\n</think>\n\nb]] </s>|<s>[INST] b [/INST][[ c]] </s>|");
  CHECK(marked(golden.made(4), kCalls) ==
        "<s>[INST] w?[/INST][[[CALLS] [{\"name\": \"w\", \"arguments\": {\"c\": \"Z\", \"n\": 1}, "
        "\"id\": \"abcdefghi]]\"}]</s>|[RESULTS] {\"content\": 21}[/RESULTS][[ Warm.]]</s>|");
  CHECK(marked(golden.made(5), kTurns)
            .starts_with("<|user|>\na</s>\n<|assistant|>\n[[<think>\nr\n</think>\n\nb]]</s>"));
}

ChatTemplate chat(const std::string& source) {
  return ChatTemplate::from_source(source, "t", {{"eos_token", "</s>"}});
}

TEST_CASE("templates that are hard to follow give no target by accident") {
  const ordered_json two = ordered_json::parse(
      R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "A"}])");
  // Without a generation prompt the header is the template's own; without a loop over messages,
  // too.
  CHECK(marked(chat("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}"
                    "{% endfor %}"),
               two) == "<|user|>q</s><|assistant|>[[A]]</s>|");
  CHECK(marked(chat("Q: {{ messages[0].content }} A: {{ messages[1].content }}{{ eos_token }}"),
               two) == "Q: q A: [[A]]</s>|");
  CHECK(marked(chat("{% for i in range(messages | length) %}{% set m = messages[i] %}"
                    "<{{ m.role }}>{{ m.content | upper }}</s>{% endfor %}"),
               two) == "<user>Q</s><assistant>[[A]]</s>|");
  // An answer that is quoted in another turn, before and after.
  CHECK(marked(chat("{% for m in messages %}<{{ m.role }}>{{ m.content }}"
                    "{% if m.role == 'user' %}({{ messages[1].content }}){% endif %};{% endfor %}"),
               two) == "<user>q(A);<assistant>[[A]];|");
  // A name is no answer, and neither is a role that is called like one.
  CHECK(marked(chat("{% for m in messages %}{{ m.name }}: {{ m.content }};{% endfor %}"),
               ordered_json::parse(
                   R"([{"role": "assistant", "content": "A", "name": "n"},
                       {"role": "tool", "content": "A", "name": "n"}])")) == "n: [[A]];|n: A;");
  // Turns that are closed where the next one begins, or the conversation ends (Jamba).
  const ordered_json four = ordered_json::parse(
      R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "A"},
          {"role": "user", "content": "r"}, {"role": "assistant", "content": "B"}])");
  CHECK(marked(chat("{% for m in messages %}{% if not loop.first %}</s>{% endif %}"
                    "<{{ m.role }}>{{ m.content }}{% endfor %}</s>"),
               four) == "<user>q</s><assistant>[[A]]</s>|<user>r</s><assistant>[[B]]</s>|");
  // What is written at the end alone closes no other turn.
  CHECK(marked(chat("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}</s>"),
               four) == "<user>q<assistant>[[A]]|<user>r<assistant>[[B]]</s>|");
  // A tool's response that is written in the turn that asked for it (Gemma 4): the call is the
  // model's to its end, the response with the names in it is not.
  const std::string within =
      "{% macro response(name, said) %}<resp>{{ 'of ' ~ name ~ ': ' ~ said }}</resp>{% endmacro %}"
      "{% for m in messages if m.role != 'tool' %}<{{ m.role }}>{% for c in m.tool_calls or [] %}"
      "<call>{{ c.function.name }}({{ c.function.arguments.c }})</call>{% endfor %}"
      "{% if m.tool_calls %}{% for t in messages if t.role == 'tool' %}"
      "{{ response(m.tool_calls[0].function.name, t.content) }}{% endfor %}{% endif %}"
      "{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
  CHECK(marked(chat(within), kCalls) ==
        "<user>w?</s><assistant>[[<call>w(Z)</call>]]<resp>of |w: 21</resp></s>"
        "<assistant>[[Warm.]]</s>|");
  // A turn that goes on otherwise than what asks for one: with a call in place of a thought.
  CHECK(marked(chat("{% for m in messages %}<{{ m.role }}>{% for c in m.tool_calls or [] %}<call>"
                    "{{ c.function.name }}</call>{% endfor %}{{ m.content }}</s>{% endfor %}"
                    "{% if add_generation_prompt %}<assistant><think>{% endif %}"),
               kCalls) ==
        "<user>w?</s><assistant>[[<call>w]]</call></s>|<tool>21</s><assistant>[[Warm.]]</s>|");
  // What a template drops is nowhere.
  CHECK(marked(chat("{% for m in messages %}{{ m.role }}{% endfor %}"), two) == "userassistant");
}

}  // namespace
}  // namespace tptrain::chat_template
