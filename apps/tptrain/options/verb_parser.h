// The rules that every verb's command line shares. CLI11 itself is in verb_parser.cpp alone: it
// takes a compiler ten seconds. Included by options/*.cpp alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "cli.h"

namespace tptrain::apps {

/// In place of all arguments: the names of a verb's options, a line each, for completion.
inline constexpr const char* kListOptions = "--list-options";

// The rules of one verb's command line. Options are bound to what they fill; parse() reports what
// CLI11 would word differently from version to version.
class VerbParser {
 public:
  VerbParser(const std::string& verb, const std::string& description, const std::string& examples);
  ~VerbParser();
  VerbParser(const VerbParser&) = delete;
  VerbParser& operator=(const VerbParser&) = delete;

  /// Adds an option that takes one value.
  void option(const std::string& name, std::string& value, const std::string& type,
              const std::string& doc);
  void option(const std::string& name, int64_t& value, const std::string& type,
              const std::string& doc);
  void option(const std::string& name, uint64_t& value, const std::string& type,
              const std::string& doc);
  void option(const std::string& name, double& value, const std::string& type,
              const std::string& doc);
  void option(const std::string& name, std::optional<int64_t>& value, const std::string& type,
              const std::string& doc);
  void option(const std::string& name, std::optional<double>& value, const std::string& type,
              const std::string& doc);
  /// Adds an option that may be repeated, each time with one value.
  void list(const std::string& name, std::vector<std::string>& values, const std::string& type,
            const std::string& doc);
  /// Adds an option that takes one value or more (as a shell expands a glob), and may be repeated.
  void values(const std::string& name, std::vector<std::string>& values, const std::string& type,
              const std::string& doc);
  void flag(const std::string& name, bool& value, const std::string& doc);
  void positional(const std::string& name, std::string& value, const std::string& doc);
  /// One or more words without an option before them.
  void positionals(const std::string& name, std::vector<std::string>& values,
                   const std::string& doc);

  /// The help text where --help is asked for; else fills what the options are bound to. Throws
  /// ConfigError.
  std::optional<PrintCommand> parse(std::vector<std::string> arguments);

  /// What the options broke, one after another; finish() throws where there was any.
  void require(bool holds, const std::string& received, const std::string& constraint);
  void finish() const;

 private:
  struct Cli11;
  template <typename T>
  void add(const std::string& name, T& value, const std::string& type, const std::string& doc);
  bool has(const std::string& name) const;
  std::vector<std::string> with_dotted_options_as_sets(
      const std::vector<std::string>& arguments) const;
  Problem unknown(const std::string& argument) const;
  std::string see_help() const;

  std::string name_;
  std::unique_ptr<Cli11> cli_;
  std::vector<std::string> names_;
  std::vector<Problem> problems_;
};

inline constexpr const char* kSetDoc =
    "Overrides one value of the run file; may be repeated, and written as --section.key=value "
    "(docs/configuration.md)";

}  // namespace tptrain::apps
