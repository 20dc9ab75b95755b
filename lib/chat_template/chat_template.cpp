#include "chat_template/chat_template.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/utf8.h"
#include "chat_template/template_evaluator.h"

namespace tptrain::chat_template {

namespace {

constexpr const char* kToolUse = "tool_use";        // transformers' name
constexpr size_t kLongestSource = size_t{1} << 20;  // the longest known has 0.03 MB

using Variables = std::vector<std::pair<std::string, jinja::Value>>;

/// Later ones hide earlier ones.
void put(Variables& variables, const std::string& name, jinja::Value value) {
  for (auto& [known, old] : variables) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

/// Where the files beside a tokenizer are, given as a directory or a file of one.
std::string folder_of(const std::string& tokenizer) {
  const std::filesystem::path path = tokenizer;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return tokenizer;
  return path.has_parent_path() ? path.parent_path().string() : ".";
}

void check_messages(const nlohmann::ordered_json& messages) {
  const auto refuse = [](const std::string& received, const std::string& constraint) {
    throw DataError(problem(received).at("chat").must(constraint));
  };
  if (!messages.is_array()) {
    refuse(cat("messages is ", messages.type_name()), "be a list of messages");
  }
  size_t index = 0;
  for (const auto& message : messages) {
    const auto role = message.is_object() ? message.find("role") : message.end();
    if (!message.is_object() || role == message.end() || !role->is_string()) {
      refuse(cat("message ", index, " has no role"),
             "be an object with a string \"role\" (and mostly a \"content\")");
    }
    ++index;
  }
}

}  // namespace

namespace {

bool is_answer(const nlohmann::ordered_json& message, std::string_view key) {
  static constexpr std::string_view kFields[] = {"content",  "reasoning_content", "reasoning",
                                                 "thinking", "tool_calls",        "function_call"};
  return message["role"] == "assistant" &&
         std::find(std::begin(kFields), std::end(kFields), key) != std::end(kFields);
}

jinja::Value sourced_messages(const nlohmann::ordered_json& messages) {
  std::vector<jinja::Value> list;
  for (const auto& message : messages) {
    const auto index = static_cast<int32_t>(list.size());
    std::vector<std::pair<std::string, jinja::Value>> fields;
    for (const auto& [key, value] : message.items()) {
      const Source::Kind kind =
          is_answer(message, key) ? Source::Kind::answer : Source::Kind::field;
      fields.emplace_back(key, jinja::value_of(value, {kind, index}));
    }
    list.push_back(jinja::make_dict(std::move(fields)));
  }
  return jinja::make_list(std::move(list));
}

}  // namespace

namespace {

/// What the template puts before a plain answer, of its own accord.
std::string header_of_answer(const ChatTemplate& chat_template) {
  const SourcedText text = chat_template.render_sourced(
      {{{"role", "user"}, {"content", "x"}}, {{"role", "assistant"}, {"content", "y"}}},
      {.time_seconds = 0});
  constexpr int32_t kAnswer = 1;
  size_t begin = 0;
  std::string header;
  for (const SourcedText::Run& run : text.runs()) {
    if (run.source.kind == Source::Kind::answer) return header;
    if (run.source.message == kAnswer) header += text.bytes().substr(begin, run.end - begin);
    begin = run.end;
  }
  return "";
}

std::optional<std::string> find_generation_prompt(const ChatTemplate& chat_template) {
  try {
    const std::vector<ChatMessage> question = {{"user", "x"}};
    const std::string without = chat_template.render(question, {.time_seconds = 0});
    std::string with =
        chat_template.render(question, {.add_generation_prompt = true, .time_seconds = 0});
    if (!with.starts_with(without)) return std::nullopt;
    with.erase(0, without.size());
    if (!with.empty()) return with;
    // A template that does not know to ask: its answers have a header or they have none (then there
    // may be a space before them).
    std::string header = header_of_answer(chat_template);
    return header.find_first_not_of(" \t\n") == std::string::npos ? "" : header;
  } catch (const DataError&) {
    return std::nullopt;  // a template that takes no such conversation
  }
}

std::optional<std::string> find_late_closing(const ChatTemplate& chat_template) {
  try {
    const SourcedText text = chat_template.render_sourced(
        {{{"role", "user"}, {"content", "x"}}, {{"role", "assistant"}, {"content", "y"}}},
        {.time_seconds = 0});
    constexpr int32_t kAnswer = 1;
    size_t end = 0;  // of its turn
    bool ends_with_answer = false;
    for (const SourcedText::Run& run : text.runs()) {
      if (run.source.message != kAnswer) continue;
      end = run.end;
      ends_with_answer = run.source.kind == Source::Kind::answer;
    }
    if (!ends_with_answer || end == text.size()) return std::nullopt;
    return text.bytes().substr(end);
  } catch (const DataError&) {
    return std::nullopt;  // a template that takes no such conversation
  }
}

}  // namespace

struct ChatTemplate::Impl {
  std::string name;
  std::string source;
  jinja::Body body;
  std::vector<std::string> hidden;
  std::vector<std::pair<std::string, std::string>> constants;
  std::unique_ptr<Impl>
      with_tools;  // the template for conversations with tools, where it is another
  std::optional<std::string> generation_prompt = {};
  std::optional<std::string> late_closing = {};

  const Impl& used_for(const ChatOptions& options) const {
    return with_tools && !options.tools.is_null() ? *with_tools : *this;
  }

  std::string place(size_t at) const {
    const std::string_view before = std::string_view(source).substr(0, at);
    const auto lines = std::count(before.begin(), before.end(), '\n');
    const size_t line_begin = before.rfind('\n') == before.npos ? 0 : before.rfind('\n') + 1;
    const auto column = jinja::characters_of(before.substr(line_begin)).size();
    return cat(name, ":", lines + 1, ":", column + 1);
  }

  [[noreturn]] void fail(const jinja::TemplateError& error) const {
    throw DataError(problem(cat("chat template: ", error.message))
                        .at(place(error.at))
                        .remedy("What templates may use stands in docs/tokenizers.md."));
  }
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::from_source(std::string_view source, const std::string& name,
                                       std::vector<std::pair<std::string, std::string>> constants) {
  if (source.size() > kLongestSource) {
    throw DataError(problem(cat("a chat template of ", human_bytes(source.size())))
                        .at(name)
                        .must(cat("have at most ", human_bytes(kLongestSource))));
  }
  const size_t bad = first_invalid_utf8(source);
  if (bad != std::string_view::npos) {
    throw DataError(
        problem(cat("the byte at offset ", bad, " of the chat template is no UTF-8")).at(name));
  }
  auto impl = std::make_unique<Impl>();
  impl->name = name;
  impl->source = jinja::normalize_source(source);
  impl->constants = std::move(constants);
  try {
    impl->body = jinja::parse(jinja::lex(impl->source));
    impl->hidden = jinja::settle_scopes(impl->body);
  } catch (const jinja::TemplateError& error) {
    impl->fail(error);
  }
  ChatTemplate made(std::move(impl));
  made.impl_->generation_prompt = find_generation_prompt(made);
  // One that takes no question takes no answer either.
  if (made.impl_->generation_prompt) made.impl_->late_closing = find_late_closing(made);
  return made;
}

ChatTemplate ChatTemplate::from_config(const tokenizer::TokenizerConfig& config) {
  ChatTemplate chosen = from_config(config, "default");
  const auto& all = config.chat_templates;
  if (std::any_of(all.begin(), all.end(), [](const auto& one) { return one.first == kToolUse; })) {
    chosen.impl_->with_tools = std::move(from_config(config, kToolUse).impl_);
  }
  return chosen;
}

ChatTemplate ChatTemplate::from_config(const tokenizer::TokenizerConfig& config,
                                       const std::string& which) {
  std::vector<std::string> names;
  for (const auto& [name, source] : config.chat_templates) {
    if (name != which) {
      names.push_back(name);
      continue;
    }
    std::vector<std::pair<std::string, std::string>> constants;
    for (const tokenizer::NamedToken& named : config.named) {
      if (named.key == "extra_special_tokens") continue;  // a list
      constants.emplace_back(named.key, named.token.content);
    }
    return from_source(source, cat(config.place, " chat template"), std::move(constants));
  }
  if (names.empty()) {
    throw ConfigError(problem("this tokenizer has no chat template")
                          .at(config.place)
                          .must("have chat_template in tokenizer_config.json, or a "
                                "chat_template.jinja beside it")
                          .remedy("Instruction-tuned models come with one, base models often have "
                                  "none: put a chat_template.jinja there or, in training, name a "
                                  "file by data.chat_template."));
  }
  throw ConfigError(problem(cat("there is no chat template called \"", which, "\""))
                        .at(config.place)
                        .must(cat("be one of ", join(names))));
}

ChatTemplate ChatTemplate::from_tokenizer(const std::string& tokenizer) {
  if (tokenizer == "bytes") return from_config({.place = "bytes"});
  return from_config(tokenizer::read_tokenizer_config(folder_of(tokenizer)));
}

ChatTemplate ChatTemplate::from_file(const std::string& file, const std::string& tokenizer) {
  tokenizer::TokenizerConfig config;
  if (tokenizer != "bytes") config = tokenizer::read_tokenizer_config(folder_of(tokenizer));
  config.chat_templates = {{"default", read_file(file, kLongestSource, FailAs::data_error)}};
  config.place = file;
  return from_config(config);
}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                 const ChatOptions& options) const {
  auto list = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  return render_json(list, options);
}

std::string ChatTemplate::render_json(const nlohmann::ordered_json& messages,
                                      const ChatOptions& options) const {
  return render_sourced(messages, options).bytes();
}

SourcedText ChatTemplate::render_sourced(const nlohmann::ordered_json& messages,
                                         const ChatOptions& options) const {
  check_messages(messages);
  const Impl& used = impl_->used_for(options);
  if (!options.variables.is_null() && !options.variables.is_object()) {
    throw DataError(problem(cat("the variables are ", options.variables.type_name()))
                        .at("chat")
                        .must("be an object"));
  }
  try {
    Variables variables;
    for (const auto& [name, value] : used.constants) {
      put(variables, name, jinja::make_text(value));
    }
    const jinja::Value sourced = sourced_messages(messages);
    put(variables, "documents", jinja::None{});
    put(variables, "tools", jinja::value_of(options.tools));
    put(variables, "messages", sourced);
    put(variables, "add_generation_prompt", options.add_generation_prompt);
    if (options.variables.is_object()) {
      for (const auto& [name, value] : options.variables.items()) {
        put(variables, name, jinja::value_of(value));
      }
    }
    return jinja::Evaluator(options.time_seconds, sourced)
        .run(used.body, used.hidden, std::move(variables));
  } catch (const jinja::ValueError& error) {
    throw DataError(problem(error.message).at("chat"));
  } catch (const jinja::TemplateError& error) {
    used.fail(error);
  } catch (const jinja::Refusal& refusal) {
    throw DataError(problem(cat("the chat template refuses this conversation: ", refusal.message))
                        .at(used.place(refusal.at))
                        .remedy("Change or remove that conversation, or use another template."));
  }
}

const std::optional<std::string>& ChatTemplate::generation_prompt(
    const ChatOptions& options) const {
  return impl_->used_for(options).generation_prompt;
}

const std::optional<std::string>& ChatTemplate::late_closing(const ChatOptions& options) const {
  return impl_->used_for(options).late_closing;
}

std::string ChatTemplate::hash() const {
  Sha256 hash;
  for (const Impl* impl = impl_.get(); impl != nullptr; impl = impl->with_tools.get()) {
    hash.update(cat("tptrain chat template 1 ", impl->source.size(), "\n", impl->source));
    for (const auto& [name, value] : impl->constants) {
      hash.update(cat(name, " ", value.size(), " ", value, "\n"));
    }
    if (impl->late_closing) hash.update(cat("late closing ", *impl->late_closing, "\n"));
  }
  return hash.hex();
}

}  // namespace tptrain::chat_template
