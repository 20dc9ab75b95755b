// What a chat template may not do: each refusal by name, with line and column; and the bounds.
#include "base/error.h"
#include "chat_template/chat_template.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::chat_template {
namespace {

using testing::has;
using testing::message_of;

std::string text_of(const std::string& source, const ChatOptions& options = {}) {
  return ChatTemplate::from_source(source, "t", {{"eos_token", "</s>"}})
      .render({{"user", " hi "}, {"assistant", "yes"}}, options);
}

std::string refusal_of(const std::string& source) {
  return message_of<DataError>([&] { text_of(source); });
}

TEST_CASE("a refusal names the template, the line, the column and what there is to read") {
  CHECK(refusal_of("one\n  \xC3\xA9{% include 'x' %}") ==
        "data error: t:2:7: chat template: {% include %} is not built.\n"
        "  What templates may use stands in docs/tokenizers.md.");
  CHECK(has(refusal_of("{{ messages | sort }}"),
            "t:1:13: chat template: the filter sort is not built"));
}

TEST_CASE("what a template itself refuses is said in its words") {
  CHECK(refusal_of("{{ raise_exception('Roles must alternate!') }}") ==
        "data error: t:1:19: the chat template refuses this conversation: Roles must alternate!.\n"
        "  Change or remove that conversation, or use another template.");
}

TEST_CASE("tags, operators and forms that are not built") {
  for (const char* tag : {"raw", "import", "from", "extends", "block", "call", "filter", "with",
                          "do", "autoescape", "trans"}) {
    CHECK(has(refusal_of(std::string("{% ") + tag + " x %}"),
              std::string("{% ") + tag + " %} is not built"));
  }
  const std::vector<std::pair<const char*, const char*>> kRefused = {
      {"{% frob %}", "{% frob %} is no tag that is known here"},
      {"{{ 2 ** 3 }}", "the operator ** is not built"},
      {"{{ 0x1F }}", "a number of this form is not built"},
      {"{{ 1_000 }}", "a number of this form is not built"},
      {"{{ 007 }}", "an integer that begins with 0"},
      {"{{ 99999999999999999999 }}", "a number that is out of range"},
      {"{{ 9223372036854775807 + 1 }}", "an integer of more than 64 bits"},
      {"{{ '\\N{DASH}' }}", "the escape \\N is not built"},
      {"{{ '\\ud800' }}", "an escape that is no character"},
      {"{{ range(**{}) }}", "arguments with ** are not built"},
      {"{{ range(*[1], 2) }}", "follows one with a name or with *"},
      {"{{ messages[0, 1] }}", "a subscript with a comma is not built"},
      {"{% for x in messages recursive %}{% endfor %}", "recursive loops are not built"},
      {"{% set x | trim %}{% endset %}", "{% set %} with a filter and a block is not built"},
      {"{% macro m() %}{{ caller() }}{% endmacro %}", "caller of a macro is not built"},
      {"{{ messages }}", "a list as text is not built (Python's spelling); tojson is"},
      {"{{ messages[0] }}", "a dictionary as text is not built"},
      {"{{ 'x' * 3 }}", "* of a string and an integer is not built"},
      {"{{ '%s' % 1 }}", "% on a string is not built"},
      {"{{ 7.5 % 2 }}", "% of floats is not built"},
      {"{{ '\xC3\xA9' | upper }}", "upper of a text that is not all ASCII is not built"},
      {"{{ 'x'.title() }}", "the method title of a string is not built"},
      {"{{ messages.append(1) }}", "the method append of a list is not built"},
      {"{{ messages[0].pop('role') }}", "the method pop of a dictionary is not built"},
      {"{{ 'x'.strip }}", "the method strip of a string without a call is not built"},
      {"{{ messages.__class__ }}", "the attribute __class__ is not built"},
      {"{{ messages | map('upper') | list }}", "map is built with attribute=... only"},
      {"{{ messages | tojson(separators=1) }}", "this argument of tojson is not built: separators"},
      {"{{ ('a' | safe) + 'b' }}",
       "what safe has marked is built in outputs, in ~ and in set only"},
      {"{{ 1 is sameas 1 }}", "the test sameas with 1 arguments is not built"},
      {"{{ 1 is callable }}", "the test callable is not built"},
      {"{{ cycler(1, 2) }}", "the function cycler is not built"},
      {"{{ strftime_now('%j') }}", "this format of strftime_now is not built"},
      {"{{ loop.cycle(1) }}", "the undefined \"loop\" has no method cycle"},
      {"{% for x in [1] %}{{ loop.changed }}{% endfor %}", "loop.changed is not built"},
      {"{{ {1: 2} }}", "an integer as a key is not built"},
      {"{% set ns = namespace() %}{% set ns.x = ns %}",
       "a namespace inside a list, dictionary or namespace is not built"},
      {"{% set g = messages | map(attribute='role') %}{{ g | join }}{{ g | join }}",
       "going over a generator a second time: list makes a list"},
  };
  for (const auto& [source, message] : kRefused) {
    INFO(source);
    CHECK(has(refusal_of(source), message));
  }
}

TEST_CASE("what Jinja itself would stop at") {
  const std::vector<std::pair<const char*, const char*>> kWrong = {
      {"{{ 'a", "this string has no end"},
      {"{{ a", "this tag has no end"},
      {"{# a", "this comment has no end"},
      {"{{ a ] }}", "\"]\" closes nothing"},
      {"{{ a $ }}", "unexpected character \"$\""},
      {"{{ }}", "expected an expression, got \"}}\""},
      {"{{ a b }}", "expected \"}}\", got \"b\""},
      {"{% if a %}", "this block has no {% endif %}"},
      {"{% endif %}", "{% endif %} is no tag that is known here"},
      {"{% break %}", "{% break %} outside of a loop"},
      {"{% set true = 1 %}", "cannot assign to true"},
      {"{% set x.y = 1 %}", "cannot set an attribute of the undefined \"x\""},
      {"{{ none.x.y }}", "the undefined \"x\" has no attribute y"},
      {"{{ undef.role }}", "the undefined \"undef\" has no attribute role"},
      {"{{ 'a' + 1 }}", "cannot apply + to a string and an integer"},
      {"{{ 'a' + none }}", "cannot apply + to a string and none"},
      {"{{ 1 / 0 }}", "division by zero"},
      {"{{ 1 < 'a' }}", "cannot order an integer and a string"},
      {"{{ 1 in 2 }}", "cannot look into an integer"},
      {"{{ messages() }}", "cannot call a list"},
      {"{% for a, b in [[1]] %}{% endfor %}", "cannot take 2 values from 1"},
      {"{% for a in 1 %}{% endfor %}", "cannot go over an integer"},
      {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "macro m takes 1 arguments, got 2"},
      {"{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "macro m has no argument b"},
  };
  for (const auto& [source, message] : kWrong) {
    INFO(source);
    CHECK(has(refusal_of(source), message));
  }
}

TEST_CASE("a template ends within bounds of depth, work and output") {
  const auto repeated = [](const std::string& text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    return all;
  };
  CHECK(has(refusal_of("{{ " + repeated("(", 1000) + "1" + repeated(")", 1000) + " }}"),
            "an expression nested too deeply"));
  CHECK(
      has(refusal_of("{{ 1" + repeated(" + 1", 1000) + " }}"), "an expression nested too deeply"));
  CHECK(has(refusal_of(repeated("{% if 1 %}", 1000)), "tags nested too deeply"));
  CHECK(has(refusal_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
            "macros calling one another too deeply"));
  CHECK(has(refusal_of("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}"
                       "{% set ns.x = [ns.x] %}{% endfor %}"),
            "nested deeper than 100"));
  CHECK(has(refusal_of("{% for i in range(100001) %}{% endfor %}"), "a range of more than 100000"));
  const std::string loops = "{% for i in range(99999) %}{% for j in range(99999) %}";
  CHECK(has(refusal_of(loops + "{% endfor %}{% endfor %}"), "too much work"));
  CHECK(has(refusal_of("{% set ns = namespace(x='abcdefgh') %}{% for i in range(99) %}"
                       "{% set ns.x = ns.x + ns.x %}{% endfor %}"),
            "too much work"));
  CHECK(has(refusal_of("{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
                       "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}"),
            "too much work"));
  CHECK(has(message_of<DataError>(
                [&] { ChatTemplate::from_source(std::string((1 << 20) + 1, 'x'), "t"); }),
            "t: a chat template of 1.00 MiB: it must have at most"));
}

TEST_CASE("input that is no conversation is refused") {
  const auto chat = ChatTemplate::from_source("{{ messages | length }}", "t");
  const auto message = [&](const char* json, const ChatOptions& options = {}) {
    return message_of<DataError>(
        [&] { chat.render_json(nlohmann::ordered_json::parse(json), options); });
  };
  CHECK(message("{}") == "data error: chat: messages is object: it must be a list of messages.");
  CHECK(has(message("[{\"role\": \"user\"}, 7]"),
            "chat: message 1 has no role: it must be an object with a string \"role\""));
  CHECK(has(message("[{\"role\": null}]"), "message 0 has no role"));
  CHECK(has(message("[{\"role\": \"u\", \"n\": 18446744073709551615}]"),
            "chat: an integer of more than 64 bits"));
  CHECK(has(message("[]", {.variables = nlohmann::ordered_json::array()}),
            "chat: the variables are array: it must be an object"));
  CHECK(has(message_of<DataError>([&] {
              chat.render({{"user", "\xFF"}});
            }),
            "chat: a text is no UTF-8"));
  CHECK(has(message_of<DataError>([&] { ChatTemplate::from_source("a\xFF", "t"); }),
            "t: the byte at offset 1 of the chat template is no UTF-8"));
}

TEST_CASE("options reach the template") {
  CHECK(text_of("{{ add_generation_prompt }}{{ tools }}", {.add_generation_prompt = true}) ==
        "TrueNone");
  CHECK(text_of("{{ tools | tojson }}", {.tools = nlohmann::ordered_json::parse(
                                             R"([{"z": 1, "a": 2}])")}) == R"([{"z": 1, "a": 2}])");
  CHECK(text_of("{{ think }}{{ eos_token }}",
                {.variables = {{"think", false}, {"eos_token", "E"}}}) == "FalseE");
  CHECK(text_of("{{ strftime_now('%d %B %Y') }}", {.time_seconds = 1753531200}) == "26 July 2025");
  CHECK(text_of("{{ messages[0].content }}|{{ messages[-1].content | trim }}") == " hi |yes");
}

}  // namespace
}  // namespace tptrain::chat_template
