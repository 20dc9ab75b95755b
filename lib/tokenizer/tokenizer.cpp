// Which files a name means, and which loader reads them.
#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <filesystem>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/foreign_file.h"
#include "base/text.h"
#include "tokenizer/bpe_loaders.h"
#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/sentencepiece_tokenizer.h"
#include "tokenizer/tokenizer_config.h"

namespace tptrain::tokenizer {

namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargestFile = int64_t{256} << 20;  // Llama-3's tokenizer.json has 9 MB
constexpr const char* kKnownFiles =
    "tokenizer.json, tokenizer.model, or vocab.json with merges.txt";

std::string read(const fs::path& path) {
  std::string text = read_file(path, kLargestFile, FailAs::data_error);
  refuse_foreign_file(text, path.string());
  return text;
}

std::unique_ptr<Tokenizer> from_vocab_and_merges(const fs::path& folder,
                                                 const TokenizerConfig& config) {
  // The pair says neither the pattern nor the normaliser: GPT-2's are meant
  // where nothing else is said.
  const std::string& kind = config.tokenizer_class;
  if (!kind.empty() && !kind.starts_with("GPT2Tokenizer")) {
    throw DataError(problem(cat("tokenizer_config.json says ", kind,
                                ", but there are only vocab.json and merges.txt"))
                        .at(folder.string())
                        .must("have a tokenizer.json: the two files do not say how this "
                              "kind cuts "
                              "text into words")
                        .remedy("Load the tokenizer with transformers and save it "
                                "(save_pretrained)."));
  }
  for (const auto& [key, value] : {std::pair("add_bos_token", config.add_bos_token),
                                   std::pair("add_eos_token", config.add_eos_token)}) {
    if (!value.value_or(false)) continue;
    throw DataError(problem(cat(key, " is true, which is not built for vocab.json with merges.txt"))
                        .at(folder.string())
                        .remedy("Give a tokenizer.json: load the tokenizer with "
                                "transformers and save it "
                                "(save_pretrained)."));
  }
  const fs::path vocab = folder / "vocab.json";
  const fs::path merges = folder / "merges.txt";
  return load_vocab_and_merges(read(vocab), vocab.string(), read(merges), merges.string(),
                               config.token("eos_token"), config.beside());
}

std::unique_ptr<Tokenizer> from_ranks(const std::string& text, const fs::path& path,
                                      const TokenizerConfig& config) {
  // A rank file does not say how it cuts text into words; Llama-3's is known by
  // its size.
  const auto ranks = static_cast<int64_t>(std::count(text.begin(), text.end(), '\n')) +
                     (text.empty() || text.back() == '\n' ? 0 : 1);
  if (ranks != 128000) {
    throw DataError(problem(cat("a tiktoken file of ", with_thousands(ranks), " ranks"))
                        .at(path.string())
                        .must("have the 128,000 of Llama 3: the file itself does not say "
                              "how it "
                              "cuts text into words")
                        .remedy("Give a tokenizer.json: load the tokenizer with "
                                "transformers and "
                                "save it (save_pretrained)."));
  }
  TiktokenOptions options = llama3_tiktoken_options();
  if (!config.added.empty()) options.special = config.added;
  const std::string begin = config.token("bos_token");
  if (!begin.empty()) options.begin_of_text = begin;
  if (config.add_bos_token.has_value() && !*config.add_bos_token) options.begin_of_text = "";
  options.split_special_tokens = config.split_special_tokens;
  const std::string end = config.token("eos_token");
  if (!end.empty()) options.eos_token = end;
  return load_tiktoken_ranks(text, path.string(), options);
}

std::unique_ptr<Tokenizer> from_file(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const TokenizerConfig config = read_tokenizer_config(folder.string());
  if (path.filename() == "vocab.json" || path.filename() == "merges.txt") {
    return from_vocab_and_merges(folder, config);
  }
  const std::string text = read(path);
  const size_t first = text.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (first != std::string::npos && text[first] == '{' && first < 16) {
    return load_tokenizer_json(text, path.string(), config.token("eos_token"), config.beside());
  }
  if (looks_like_tiktoken(text)) return from_ranks(text, path, config);
  return load_sentencepiece(text, path.string(), config);
}

std::unique_ptr<Tokenizer> from_directory(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    if (is_taken(folder / name)) return from_file(folder / name);
  }
  const bool vocab = is_taken(folder / "vocab.json");
  const bool merges = is_taken(folder / "merges.txt");
  if (vocab && merges) return from_file(folder / "vocab.json");
  const char* half = vocab    ? " (vocab.json is there, merges.txt is not)"
                     : merges ? " (merges.txt is there, vocab.json is not)"
                              : "";
  throw ConfigError(problem(cat("this directory holds no tokenizer", half))
                        .at(folder.string())
                        .must(cat("hold ", kKnownFiles))
                        .remedy("Name the directory of a model as it is downloaded, a file of "
                                "these, or bytes."));
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name) {
  if (name == "bytes") return make_byte_tokenizer();
  std::error_code error;
  const fs::file_status status = fs::status(name, error);
  if (fs::is_directory(status)) return from_directory(name);
  if (fs::is_regular_file(status)) return from_file(name);
  const bool absent = status.type() == fs::file_type::not_found;
  throw ConfigError(problem(cat("the tokenizer \"", name, "\" ",
                                absent  ? "does not exist"
                                : error ? cat("cannot be read: ", error.message())
                                        : std::string("is neither a file nor a directory")))
                        .must(cat("be bytes, a directory with ", kKnownFiles, ", or such a file"))
                        .remedy("A name on the Hugging Face hub is not looked up: tptrain fetch "
                                "NAME brings it into a folder."));
}

}  // namespace tptrain::tokenizer
