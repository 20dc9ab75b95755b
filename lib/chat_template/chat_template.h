// Conversations to text: the chat template that comes with a model, a Jinja source, rendered as the
// Hugging Face library renders it (Jinja 3.1 with trim_blocks and lstrip_blocks). A strict
// interpreter of the part of Jinja that such templates use; docs/tokenizers.md says which part.
// What is outside it is refused by name, with line and column: never rendered in another way.
//
// Templates are not trusted: they reach nothing but what they are given, and end within bounds of
// depth, work and output.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat_template/sourced_text.h"
#include "tokenizer/tokenizer_config.h"

namespace tptrain::chat_template {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant"
  std::string content;  // UTF-8
};

struct ChatOptions {
  bool add_generation_prompt = false;  // end with what an answer of the model begins with
  /// A JSON list of tools; null where there are none.
  nlohmann::ordered_json tools = {};
  /// Further variables of the template, an object: {"enable_thinking": false}.
  nlohmann::ordered_json variables = {};
  /// What strftime_now says, in seconds since 1970, local time; -1: now.
  int64_t time_seconds = -1;
};

/// May be used by several threads at once.
class ChatTemplate {
 public:
  /// `name` is what errors call it; `constants` are variables such as bos_token. Throws DataError:
  /// the template is no Jinja, or of a kind that is not built.
  static ChatTemplate from_source(std::string_view source, const std::string& name,
                                  std::vector<std::pair<std::string, std::string>> constants = {});
  /// The template called `which` with the special tokens of `config`. Throws ConfigError where
  /// there is none (naming those there are), DataError as above.
  static ChatTemplate from_config(const tokenizer::TokenizerConfig& config,
                                  const std::string& which);
  /// The one that transformers takes: "default", and for a conversation with tools "tool_use" where
  /// there is one of that name.
  static ChatTemplate from_config(const tokenizer::TokenizerConfig& config);
  /// That of make_tokenizer(`tokenizer`): a directory, or a file in one.
  static ChatTemplate from_tokenizer(const std::string& tokenizer);
  /// The template in `file`, with the special tokens of `tokenizer`. Throws DataError where it
  /// cannot be read, and as above.
  static ChatTemplate from_file(const std::string& file, const std::string& tokenizer);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  /// Throws DataError: the template refuses the conversation (raise_exception), uses what is not
  /// built or what Jinja itself would stop at, or text is no UTF-8.
  std::string render(const std::vector<ChatMessage>& messages,
                     const ChatOptions& options = {}) const;
  /// Messages with whatever fields the template knows (tool_calls, reasoning_content): a list of
  /// objects with a string "role".
  std::string render_json(const nlohmann::ordered_json& messages,
                          const ChatOptions& options = {}) const;
  /// The same text with where each byte came from: what the assistant says (content, reasoning and
  /// tool calls of its messages) is told from all else, whatever the template does with it.
  SourcedText render_sourced(const nlohmann::ordered_json& messages,
                             const ChatOptions& options = {}) const;
  /// What stands before each answer of such a rendering, as far as a template that is asked for one
  /// says; none where that cannot be told.
  const std::optional<std::string>& generation_prompt(const ChatOptions& options = {}) const;
  /// Of a template that writes nothing behind an answer in its turn: what it writes there when all
  /// turns are done, and likely before the next turn.
  const std::optional<std::string>& late_closing(const ChatOptions& options = {}) const;
  /// Of everything that decides what is rendered, and where answers are in it.
  std::string hash() const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::chat_template
