#include "options/verb_parser.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <type_traits>
#include <utility>

#include "config/name_hints.h"
#include "options/help_text.h"

namespace tptrain::apps {

namespace {

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

}  // namespace

struct VerbParser::Cli11 {
  CLI::App app;
};

VerbParser::VerbParser(const std::string& verb, const std::string& description,
                       const std::string& examples)
    : name_(verb.empty() ? "tptrain" : "tptrain " + verb),
      cli_(new Cli11{CLI::App(description, name_)}) {
  cli_->app.allow_extras();  // to name the nearest option ourselves
  cli_->app.footer("Examples:\n" + examples + "\n");
}
VerbParser::~VerbParser() = default;

template <typename T>
void VerbParser::add(const std::string& name, T& value, const std::string& type,
                     const std::string& doc) {
  names_.push_back(name);
  CLI::Option* option = cli_->app.add_option(name, value, doc)->option_text(type);
  if constexpr (!std::is_same_v<T, std::string>) option->check(reads_as<T>);
}

#define TPTRAIN_OPTION(Type)                                                             \
  void VerbParser::option(const std::string& name, Type& value, const std::string& type, \
                          const std::string& doc) {                                      \
    add(name, value, type, doc);                                                         \
  }
TPTRAIN_OPTION(std::string)
TPTRAIN_OPTION(int64_t)
TPTRAIN_OPTION(uint64_t)
TPTRAIN_OPTION(double)
TPTRAIN_OPTION(std::optional<int64_t>)
TPTRAIN_OPTION(std::optional<double>)
#undef TPTRAIN_OPTION

void VerbParser::list(const std::string& name, std::vector<std::string>& values,
                      const std::string& type, const std::string& doc) {
  names_.push_back(name);
  cli_->app.add_option(name, values, doc)->option_text(type)->expected(1)->take_all();
}

void VerbParser::values(const std::string& name, std::vector<std::string>& values,
                        const std::string& type, const std::string& doc) {
  names_.push_back(name);
  cli_->app.add_option(name, values, doc)->option_text(type)->expected(-1);
}

void VerbParser::flag(const std::string& name, bool& value, const std::string& doc) {
  names_.push_back(name);
  cli_->app.add_flag(name, value, doc);
}

void VerbParser::positional(const std::string& name, std::string& value, const std::string& doc) {
  cli_->app.add_option(name, value, doc)->option_text(" ");
}

void VerbParser::positionals(const std::string& name, std::vector<std::string>& values,
                             const std::string& doc) {
  cli_->app.add_option(name, values, doc)->option_text(" ")->expected(-1);
}

std::optional<PrintCommand> VerbParser::parse(std::vector<std::string> arguments) {
  if (arguments == std::vector<std::string>{kListOptions}) return PrintCommand{join(names_, "\n")};
  if (has("--set")) arguments = with_dotted_options_as_sets(arguments);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  try {
    cli_->app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    return PrintCommand{within_80_columns(cli_->app.help())};
  } catch (const CLI::ParseError& e) {
    throw ConfigError(problem(e.what()).at(name_).remedy(see_help()));
  }
  const std::vector<std::string> extras = cli_->app.remaining();
  if (extras.empty()) return std::nullopt;
  throw ConfigError(unknown(extras[0]).at(name_));
}

void VerbParser::require(bool holds, const std::string& received, const std::string& constraint) {
  if (!holds) problems_.push_back(problem(received).at(name_).must(constraint).remedy(see_help()));
}

void VerbParser::finish() const {
  if (!problems_.empty()) throw ConfigError(problems_);
}

bool VerbParser::has(const std::string& name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

// --train.max_steps=3 and --train.max_steps 3, as torchtitan writes a key: --set
// train.max_steps=3.
std::vector<std::string> VerbParser::with_dotted_options_as_sets(
    const std::vector<std::string>& arguments) const {
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
    out.push_back(has_value ? argument.substr(2) : cat(argument.substr(2), "=", arguments[i + 1]));
    if (!has_value) ++i;
  }
  return out;
}

Problem VerbParser::unknown(const std::string& argument) const {
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

std::string VerbParser::see_help() const { return name_ + " --help shows the options."; }

}  // namespace tptrain::apps
