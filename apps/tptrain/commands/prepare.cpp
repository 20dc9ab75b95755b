// tptrain prepare: the text of a run file as token files, without training. One process, all cores;
// no MPI, no GPU, no parameters.
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <iostream>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "comm/control.h"
#include "commands/commands.h"
#include "config/parse.h"
#include "data/packing.h"
#include "data/show_row.h"
#include "formats/indexed_tokens.h"
#include "inference/model_directory.h"
#include "tokenizer/tokenizer.h"
#include "tool_display.h"
#include "train/corpora.h"
#include "train/resolve.h"

namespace tptrain::apps {
namespace {

namespace fs = std::filesystem;

constexpr size_t kShownBytes = 2000;

/// A name that a file may have: of a path, its letters and digits.
std::string file_name_of(const std::string& split, const std::string& name,
                         std::set<std::string>& taken) {
  std::string base = split;
  if (!name.empty()) base += "-";
  for (const char c : name) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_';
    base += plain ? c : '_';
  }
  std::string unique = base;
  for (int number = 2; !taken.insert(unique).second; ++number) unique = cat(base, "-", number);
  return unique;
}

class Preparation {
 public:
  Preparation(const PrepareCommand& command, const config::RunConfig& run,
              const tokenizer::Tokenizer& tokenizer)
      : command_(command), run_(run), tokenizer_(tokenizer) {}

  void prepare(const std::vector<train::NamedCorpus>& corpora, const std::string& split) {
    for (const train::NamedCorpus& named : corpora) {
      const data::PreparedTokens prepared =
          data::prepare_tokens(named.corpus, tokenizer_, train::data_directory(run_), split);
      const std::string name =
          cat(named.set, named.set.empty() || named.name.empty() ? "" : " ", named.name);
      for (const std::string& note : prepared.notes) std::cerr << "note: " << note << "\n";
      if (!prepared.rebuilt_because.empty())
        std::cerr << "note: made anew: " << prepared.rebuilt_because << "\n";
      std::cout << split << (name.empty() ? "" : " ") << name << ": "
                << with_thousands(prepared.tokens) << " tokens in "
                << with_thousands(prepared.documents)
                << (prepared.documents == 1 ? " document, " : " documents, ")
                << (!prepared.indexed.empty() ? "read where they lie, "
                    : prepared.reused         ? "there already, "
                                              : "")
                << prepared.path.string() << ".bin\n  read as " << prepared.read_as << "\n"
                << std::flush;
      const formats::TokenFile file = data::open_tokens(prepared);
      show(file);
      if (!command_.megatron.empty()) write_megatron(file, file_name_of(split, name, names_));
    }
  }

 private:
  void show(const formats::TokenFile& file) const {
    const bool color = ::isatty(STDOUT_FILENO) != 0;
    const data::RowMarks marks = color ? data::RowMarks{"\x1b[32m", "\x1b[0m"} : data::RowMarks{};
    const int64_t rows = std::min(command_.show, file.header().documents());
    for (int64_t row = 0; row < rows; ++row)
      std::cout << "  " << data::show_row(file, row, tokenizer_, kShownBytes, marks) << "\n";
  }

  void write_megatron(const formats::TokenFile& file, const std::string& name) const {
    create_directories_durably(command_.megatron, FailAs::data_error);
    const fs::path stem = fs::path(command_.megatron) / name;
    if (file.header().labelled)
      std::cerr << "note: " << stem.string()
                << " holds no labels, which the format does not know: every token will count\n";
    formats::write_indexed(file, stem);
    std::cout << "  written as " << stem.string() << ".bin and .idx\n";
  }

  const PrepareCommand& command_;
  const config::RunConfig& run_;
  const tokenizer::Tokenizer& tokenizer_;
  std::set<std::string> names_;
};

}  // namespace

int run_prepare(const PrepareCommand& command) {
  const std::string text = read_file(command.config, kTextLimitBytes, FailAs::config_error);
  const config::Parsed parsed = config::parse_run_config(text, command.config, command.sets);
  const config::RunConfig& run = parsed.config;
  train::check_model_directory(parsed);
  const auto tokenizer = tokenizer::make_tokenizer(train::tokenizer_of(run));
  comm::SingleRank alone;
  const inference::DecidedModel model =
      inference::decide_model(alone, run.model, tokenizer->vocab_size());
  const ToolDisplay display;
  Preparation preparation(command, run, *tokenizer);
  preparation.prepare(train::train_corpora(run, model.decoder.vocab_size), "train");
  preparation.prepare(train::eval_corpora(run, model.decoder.vocab_size), train::eval_split(run));
  return 0;
}

}  // namespace tptrain::apps
