// The rules that every verb's command line shares, on top of CLI11. Included by options/*.cpp
// alone.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "cli.h"
#include "config/name_hints.h"
#include "options/help_text.h"

namespace tptrain::apps {

template <typename T>
struct NumberOf {
  using type = T;
};
template <typename T>
struct NumberOf<std::optional<T>> {
  using type = T;
};

// "" where the whole text is a decimal number of type T, else why not. CLI11 by itself would read
// 010 as 8 and -1 as 2^64 - 1.
template <typename T>
std::string reads_as(const std::string& text) {
  using Number = typename NumberOf<T>::type;
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const size_t digits = text.find_first_not_of("-");
  const bool octal_to_cli11 = std::is_integral_v<Number> && digits != std::string::npos &&
                              text[digits] == '0' && text.size() > digits + 1;
  if (error == std::errc() && end == text.data() + text.size() && !octal_to_cli11) return "";
  const char* wanted = std::is_floating_point_v<Number> ? "a number"
                       : std::is_signed_v<Number>       ? "an integer"
                                                        : "an integer of at least 0";
  return cat("\"", text, "\" is not ", wanted);
}

/// In place of all arguments: the names of a verb's options, a line each, for completion.
inline constexpr const char* kListOptions = "--list-options";

// The rules of one verb's command line. Options are declared on `app`; parse() reports what CLI11
// would word differently from version to version.
class VerbParser {
 public:
  VerbParser(const std::string& verb, const std::string& description, const std::string& examples)
      : name_(verb.empty() ? "tptrain" : "tptrain " + verb), app_(description, name_) {
    app_.allow_extras();  // to name the nearest option ourselves
    app_.footer("Examples:\n" + examples + "\n");
  }

  CLI::App& app() { return app_; }

  /// Adds an option that takes one value.
  template <typename T>
  void option(const std::string& name, T& value, const std::string& type, const std::string& doc) {
    names_.push_back(name);
    CLI::Option* option = app_.add_option(name, value, doc)->option_text(type);
    if constexpr (!std::is_same_v<T, std::string>) option->check(reads_as<T>);
  }
  /// Adds an option that may be repeated, each time with one value.
  void list(const std::string& name, std::vector<std::string>& values, const std::string& type,
            const std::string& doc) {
    names_.push_back(name);
    app_.add_option(name, values, doc)->option_text(type)->expected(1)->take_all();
  }
  /// Adds an option that takes one value or more (as a shell expands a glob), and may be repeated.
  void values(const std::string& name, std::vector<std::string>& values, const std::string& type,
              const std::string& doc) {
    names_.push_back(name);
    app_.add_option(name, values, doc)->option_text(type)->expected(-1);
  }
  void flag(const std::string& name, bool& value, const std::string& doc) {
    names_.push_back(name);
    app_.add_flag(name, value, doc);
  }
  void positional(const std::string& name, std::string& value, const std::string& doc) {
    app_.add_option(name, value, doc)->option_text(" ");
  }

  /// One or more words without an option before them.
  void positionals(const std::string& name, std::vector<std::string>& values,
                   const std::string& doc) {
    app_.add_option(name, values, doc)->option_text(" ")->expected(-1);
  }

  /// The help text where --help is asked for; else fills what the options are bound to. Throws
  /// ConfigError.
  std::optional<PrintCommand> parse(std::vector<std::string> arguments) {
    if (arguments == std::vector<std::string>{kListOptions})
      return PrintCommand{join(names_, "\n")};
    if (has("--set")) arguments = with_dotted_options_as_sets(arguments);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    try {
      app_.parse(arguments);
    } catch (const CLI::CallForHelp&) {
      return PrintCommand{within_80_columns(app_.help())};
    } catch (const CLI::ParseError& e) {
      throw ConfigError(problem(e.what()).at(name_).remedy(see_help()));
    }
    const std::vector<std::string> extras = app_.remaining();
    if (extras.empty()) return std::nullopt;
    throw ConfigError(unknown(extras[0]).at(name_));
  }

  /// What the options broke, one after another; finish() throws where there was any.
  void require(bool holds, const std::string& received, const std::string& constraint) {
    if (!holds)
      problems_.push_back(problem(received).at(name_).must(constraint).remedy(see_help()));
  }
  void finish() const {
    if (!problems_.empty()) throw ConfigError(problems_);
  }

 private:
  bool has(const std::string& name) const {
    return std::find(names_.begin(), names_.end(), name) != names_.end();
  }

  // --train.max_steps=3 and --train.max_steps 3, as torchtitan writes a key: --set
  // train.max_steps=3.
  std::vector<std::string> with_dotted_options_as_sets(const std::vector<std::string>& arguments) {
    std::vector<std::string> out;
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string& argument = arguments[i];
      const std::string name = argument.substr(0, argument.find('='));
      if (!name.starts_with("--") || name.find('.') == std::string::npos) {
        out.push_back(argument);
        if (has(argument) && i + 1 < arguments.size()) out.push_back(arguments[++i]);  // its value
        continue;
      }
      const bool has_value = name.size() < argument.size();
      if (!has_value && (i + 1 == arguments.size() || arguments[i + 1].starts_with("--"))) {
        throw ConfigError(problem(cat(name, " has no value"))
                              .at(name_)
                              .must(cat("be written as ", name, "=VALUE")));
      }
      out.push_back("--set");
      out.push_back(has_value ? argument.substr(2)
                              : cat(argument.substr(2), "=", arguments[i + 1]));
      if (!has_value) ++i;
    }
    return out;
  }

  Problem unknown(const std::string& argument) const {
    const std::string option = argument.substr(0, argument.find('='));
    const bool is_file = argument.ends_with(".yaml") || argument.ends_with(".yml");
    if (option[0] != '-') {
      return problem(cat("\"", argument, "\" is one argument too many"))
          .remedy(is_file && has("--config") ? cat("Write --config ", argument, ".") : see_help());
    }
    Problem p = problem(cat(option, " is no known option"));
    const std::string meant = nearest_word(option, names_);
    if (!meant.empty()) return p.remedy(cat("Did you mean ", meant, "?"));
    const size_t letters = option.find_first_not_of('-');
    const std::string hint = has("--set") && letters != std::string::npos
                                 ? config::hint_for_name(option.substr(letters))
                                 : "";
    if (hint.empty()) return p.remedy(cat("Its options are ", join(names_), "."));
    return p.remedy(cat(hint, "\n  A value of the run file is given as --set section.key=value."));
  }

  std::string see_help() const { return name_ + " --help shows the options."; }

  std::string name_;
  CLI::App app_;
  std::vector<std::string> names_;
  std::vector<Problem> problems_;
};

inline constexpr const char* kSetDoc =
    "Overrides one value of the run file; may be repeated, and written as --section.key=value "
    "(docs/configuration.md)";

}  // namespace tptrain::apps
