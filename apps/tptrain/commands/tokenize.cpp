// JSON lines in, JSON lines out: a block of lines is read, its lines are worked on by several
// threads, and what came of them is written in their order.
#include <atomic>
#include <ctime>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/text.h"
#include "chat_template/chat_template.h"
#include "commands/commands.h"
#include "formats/strict_json.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::apps {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kBlockLines = 4096;
constexpr size_t kBlockBytes = size_t{16} << 20;

/// What each line becomes. May be used by several threads at once.
class LineWorker {
 public:
  explicit LineWorker(const TokenizeCommand& command)
      : command_(command), tokenizer_(tokenizer::make_tokenizer(command.tokenizer)) {
    if (!command.chat) return;
    template_.emplace(chat_template::ChatTemplate::from_tokenizer(command.tokenizer));
    chat_.add_generation_prompt = command.generation_prompt;
    chat_.time_seconds = std::time(nullptr);  // one day for all lines
    if (command.chat_variables.empty()) return;
    try {
      chat_.variables =
          formats::parse_strict_ordered_json(command.chat_variables, "--chat-variables");
    } catch (const DataError& e) {  // an option, not data
      throw ConfigError(problem("--chat-variables is not valid JSON")
                            .at("tptrain tokenize")
                            .must("be an object such as '{\"enable_thinking\": false}'"));
    }
    if (!chat_.variables.is_object()) {
      throw ConfigError(problem(cat("--chat-variables is ", chat_.variables.type_name()))
                            .at("tptrain tokenize")
                            .must("be an object such as '{\"enable_thinking\": false}'"));
    }
  }

  /// The line that `line`, the one of that number, becomes. Throws an error that names the line.
  std::string operator()(const std::string& line, int64_t number) const {
    const std::string place = cat("standard input:", number);
    const json row = formats::parse_strict_json(line, place);
    if (!row.is_object()) {
      throw DataError(problem(cat("this line is ", row.type_name()))
                          .at(place)
                          .must(cat("be an object with \"", key(), "\"")));
    }
    const auto found = row.find(key());
    if (found == row.end()) {
      throw DataError(problem(cat("this line has no \"", key(), "\""))
                          .at(place)
                          .must(cat("be an object with \"", key(), "\"")));
    }
    try {
      if (command_.decode) return decoded(*found, place);
      if (command_.chat) return chat(line);
      if (!found->is_string()) {
        throw DataError(problem(cat("\"text\" is ", found->type_name())).must("be a string"));
      }
      return encoded(
          found->get_ref<const std::string&>(), /*shown=*/false,
          {.add_special = !command_.no_special, .special_as_text = command_.special_as_text});
    } catch (const Error& e) {
      throw at_line(e, place);
    } catch (const std::bad_alloc&) {
      throw DataError(problem(cat("the memory does not suffice for this line of ",
                                  human_bytes(static_cast<int64_t>(line.size()))))
                          .at(place)
                          .remedy("Cut it into several lines."));
    }
  }

 private:
  const char* key() const { return command_.decode ? "ids" : command_.chat ? "messages" : "text"; }

  /// The same error with the line in front of its message.
  static Error at_line(const Error& error, const std::string& place) {
    std::string message = error.what();
    const size_t kind = message.find(": ");
    if (message.find(place) == std::string::npos && kind != std::string::npos) {
      message.insert(kind + 2, place + ": ");
    }
    return Error(error.code(), message);
  }

  static std::string dump(const ordered_json& row) {
    // Bytes that are no UTF-8 (of the bytes tokenizer, or of half a character) become U+FFFD.
    return row.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }

  /// Written piece by piece: a tree of a long line takes many times its size. `text` goes before
  /// the ids where `shown` says so.
  std::string encoded(const std::string& text, bool shown,
                      const tokenizer::EncodeOptions& options) const {
    const std::vector<int32_t> ids = tokenizer_->encode(text, options);
    std::string out = "{";
    if (shown) out += "\"text\":" + dump(text) + ",";
    out += "\"ids\":[";
    const char* comma = "";
    for (const int32_t id : ids) {
      out.append(comma).append(std::to_string(id));
      comma = ",";
    }
    out += "],\"tokens\":[";
    comma = "";
    for (const int32_t id : ids) {
      out.append(comma).append(dump(tokenizer_->token(id)));
      comma = ",";
    }
    return out + "]}\n";
  }

  std::string chat(const std::string& line) const {
    const ordered_json row = ordered_json::parse(line);  // tools keep the order of their keys
    chat_template::ChatOptions options = chat_;
    if (const auto tools = row.find("tools"); tools != row.end()) options.tools = *tools;
    const std::string text = template_->render_json(row["messages"], options);
    return encoded(text, /*shown=*/true, {});
  }

  std::string decoded(const json& list, const std::string& place) const {
    const auto refuse = [](const json& value) {
      throw DataError(
          problem(cat("\"ids\" holds ", value.is_number() ? value.dump() : value.type_name()))
              .must("be a list of ids: integers from 0 to 2,147,483,647"));
    };
    if (!list.is_array()) refuse(list);
    std::vector<int32_t> ids;
    for (const json& id : list) {
      if (!id.is_number_integer() || id < 0 || id > INT32_MAX) refuse(id);
      ids.push_back(id.get<int32_t>());
    }
    ordered_json out;
    out["text"] = tokenizer_->decode(ids, {.skip_special = command_.no_special});
    return dump(out) + "\n";
  }

  const TokenizeCommand& command_;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer_;
  std::optional<chat_template::ChatTemplate> template_;
  chat_template::ChatOptions chat_;
};

/// Reads lines up to the bounds of a block; false where there are none.
bool read_block(std::istream& in, std::vector<std::string>& lines) {
  lines.clear();
  size_t bytes = 0;
  std::string line;
  while (lines.size() < kBlockLines && bytes < kBlockBytes && std::getline(in, line)) {
    bytes += line.size();
    lines.push_back(std::move(line));
  }
  return !lines.empty();
}

/// Writes what became of the lines, up to the first that failed, whose error it throws.
void work_on_block(const LineWorker& worker, const std::vector<std::string>& lines,
                   int64_t first_number, int64_t threads, std::ostream& out) {
  std::vector<std::string> results(lines.size());
  std::vector<std::exception_ptr> failures(lines.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < lines.size(); i = next++) {
      try {
        results[i] = worker(lines[i], first_number + static_cast<int64_t>(i));
      } catch (...) {
        failures[i] = std::current_exception();
        return;  // what comes behind is not written; what comes before has been taken already
      }
    }
  };
  {
    std::vector<std::jthread> workers;
    const auto most = std::min<int64_t>(threads, static_cast<int64_t>(lines.size()));
    for (int64_t i = 1; i < most; ++i) workers.emplace_back(work);
    work();
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    if (failures[i]) {
      out.flush();
      std::rethrow_exception(failures[i]);
    }
    out << results[i];
  }
}

}  // namespace

int run_tokenize(const TokenizeCommand& command) {
  const LineWorker worker(command);
  std::ios::sync_with_stdio(false);
  std::vector<std::string> lines;
  for (int64_t number = 1; read_block(std::cin, lines);
       number += static_cast<int64_t>(lines.size())) {
    work_on_block(worker, lines, number, command.threads, std::cout);
    if (!std::cout) break;  // main says so
  }
  if (std::cin.bad()) throw DataError(problem("standard input cannot be read"));
  return 0;
}

}  // namespace tptrain::apps
