#include "data/token_store.h"

#include <algorithm>
#include <map>
#include <system_error>

#include "base/background.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/work.h"
#include "chat_template/chat_template.h"
#include "data/chat_rows.h"
#include "data/file_reader.h"
#include "data/for_each_index.h"
#include "data/known_files.h"
#include "data/preparing.h"
#include "data/token_output.h"
#include "data/tokenize_files.h"
#include "formats/token_file.h"

namespace tptrain::data {

namespace fs = std::filesystem;

namespace {

bool any_has(const std::vector<CorpusFile>& files, RowKind::Content content) {
  return std::any_of(files.begin(), files.end(), [&](const CorpusFile& file) {
    return file.rows && file.rows->content == content;
  });
}

bool any_indexed(const std::vector<CorpusFile>& files) {
  return std::any_of(files.begin(), files.end(),
                     [](const CorpusFile& file) { return file.kind.format == Format::indexed; });
}

/// How a file is read, as far as that decides its tokens. What was read before others came is
/// named as it was then, so that its token files and checkpoints stay valid.
std::string reading_of(const CorpusFile& file, const ChatOptions& chat,
                       const chat_template::ChatTemplate* chat_template) {
  if (file.kind.format == Format::text) return file.marked ? "text without mark" : "text";
  std::string reading = cat(file.kind.layout == RowLayout::lines   ? "jsonl"
                            : file.kind.layout == RowLayout::array ? "json array"
                                                                   : "table",
                            file.rows && file.rows->masked ? " with attention_mask" : "");
  if (!file.rows) return reading;
  const std::string learned = cat(word(chat.train_on), chat.train_on_end ? " with end" : "");
  switch (file.rows->content) {
    case RowKind::Content::text:
    case RowKind::Content::ids:
    case RowKind::Content::labelled_ids:
      break;
    case RowKind::Content::conversation:
      return cat(reading, " conversations 2 ", learned,
                 file.rows->instruction ? " with their history " : " ", chat_template->hash());
    case RowKind::Content::completion:
      return cat(reading, " completions 2 ", learned);
  }
  return reading;
}

/// What the tokens depend on, and nothing else: neither names nor times, so a corpus that moves to
/// another folder keeps its token files.
std::string identity_of(const Corpus& corpus, const tokenizer::Tokenizer& tokenizer,
                        const chat_template::ChatTemplate* chat_template,
                        const std::vector<CorpusFile>& files) {
  Sha256 hash;
  hash.update("tptrain tokens 2: text with begin and end of text as the tokenizer has them\n");
  hash.update(tokenizer.hash() + "\n");
  hash.update(cat("special as text: ", corpus.special_as_text, "\n"));
  // Said only where it is not as it was before the keys were there, likewise.
  const std::string_view text_key = corpus.names.of(kTextKey);
  if (text_key != kTextKey) hash.update(cat("text key: ", text_key, "\n"));
  if (const std::string columns = corpus.names.named_columns(); !columns.empty())
    hash.update(cat("columns: ", columns, "\n"));
  if (const std::string roles = corpus.names.named_roles(); !roles.empty())
    hash.update(cat("roles: ", roles, "\n"));
  if (corpus.max_bad_fraction > 0) {
    hash.update(cat("rows that may be malformed: ", corpus.max_bad_fraction, "\n"));
  }
  if (corpus.subset) {
    hash.update(
        cat("subset: ", fixed(corpus.subset->fraction, 9), " or ", corpus.subset->count, "\n"));
  }
  if (corpus.holdout.any()) {
    const bool held_out = corpus.holdout.part == Holdout::Part::held_out;
    hash.update(cat(held_out ? "held out: " : "without what is held out: ",
                    fixed(corpus.holdout.share, 9), "\n"));
  }
  for (const CorpusFile& file : files) {
    hash.update(cat(reading_of(file, corpus.chat, chat_template), " ", file.sha256, "\n"));
  }
  return hash.hex();
}

/// What the files were recognised as, and how many of each.
std::string read_as(const std::vector<CorpusFile>& files) {
  std::map<std::string, size_t> files_of;
  for (const CorpusFile& file : files) {
    const bool table = file.kind.layout != RowLayout::lines && file.kind.layout != RowLayout::array;
    ++files_of[file.kind.format == Format::text      ? "text"
               : file.kind.format == Format::indexed ? "token files of Megatron-LM"
               : !file.rows
                   ? "no row"
                   : cat(table ? "rows of a table, each " : "rows, each ", describe(*file.rows))];
  }
  std::vector<std::string> parts;
  for (const auto& [what, count] : files_of)
    parts.push_back(cat(what, " (", with_thousands(static_cast<int64_t>(count)),
                        count == 1 ? " file)" : " files)"));
  return join(parts, "; ");
}

/// Nothing came of the files.
[[noreturn]] void refuse_empty(const std::vector<CorpusFile>& files, const Corpus& corpus,
                               const std::string& key) {
  const std::string first = cat("the first is ", files.front().path.string());
  if (!corpus.holdout.any()) {
    throw DataError(problem(cat("all rows of ", files.size(), " file(s) are empty, ", first))
                        .at(key)
                        .must("hold text")
                        .remedy("Name files with text."));
  }
  const bool held_out = corpus.holdout.part == Holdout::Part::held_out;
  throw DataError(
      problem(cat("no document of ", files.size(), " file(s) is ",
                  held_out ? "held out, " : "left to train on, ", first))
          .at("data.eval_share")
          .must("leave documents on both sides; a document is a row, and a file of text is one")
          .remedy(held_out ? "Raise it, or name files to evaluate on: data.eval."
                           : "Lower it, or name files to evaluate on: data.eval."));
}

/// Token files are read where they lie: nothing is made of them. They are a source of their own.
PreparedTokens prepare_indexed(const std::vector<CorpusFile>& files, const Corpus& corpus,
                               const std::string& key, int64_t vocab_size,
                               PreparedTokens prepared) {
  for (const CorpusFile& file : files) {
    if (file.kind.format == Format::indexed) continue;
    throw DataError(
        problem(cat(file.path.string(), " is text or rows, and there are token files"))
            .at(key)
            .must("be one or the other")
            .remedy("Name them as two sources: [{path: ..., name: a}, {path: ..., name: "
                    "b}]."));
  }
  if (corpus.holdout.any()) {
    throw ConfigError(problem(cat(files.front().path.string(), " is a Megatron token file"))
                          .at("data.eval_share")
                          .must("hold out of text or rows")
                          .remedy("Name token files to evaluate on: data.eval."));
  }
  if (corpus.subset) {
    throw ConfigError(problem("a subset of Megatron token files is asked for")
                          .at(key)
                          .must("be of text or rows")
                          .remedy("Give the source a weight instead."));
  }
  for (const CorpusFile& file : files) {
    fs::path stem = file.path;
    prepared.indexed.push_back(stem.replace_extension());
  }
  prepared.path = prepared.indexed.front();
  prepared.vocab_size = vocab_size;
  const formats::TokenFile tokens = formats::TokenFile::indexed(prepared.indexed, vocab_size);
  if (tokens.tokens() == 0) {
    throw DataError(problem("the token files are empty").at(key).must("hold tokens"));
  }
  prepared.identity = tokens.header().identity;
  prepared.tokens = tokens.tokens();
  prepared.documents = tokens.header().documents();
  return prepared;
}

int64_t size_of(const fs::path& path) {
  std::error_code unknown;  // whoever reads it says what is wrong
  const auto size = fs::file_size(path, unknown);
  return unknown ? 0 : static_cast<int64_t>(size);
}

std::string hash_file(const fs::path& path, const std::atomic<bool>& given_up) {
  FileReader reader(path, FileReader::Contents::as_stored);
  while (!given_up && !reader.next().empty()) continue;
  return reader.sha256();
}

/// Of every file, by several threads where there are several files to read.
void hash_files(std::vector<CorpusFile>& files, int threads, KnownFiles& known) {
  std::vector<CorpusFile*> unknown;
  for (CorpusFile& file : files) {
    if (const auto sha256 = known.sha256(file.path)) {
      file.sha256 = *sha256;
    } else {
      unknown.push_back(&file);
    }
  }
  if (unknown.empty()) return;
  int64_t bytes = 0;
  for (const CorpusFile* file : unknown) bytes += size_of(file->path);
  const Work work("hashing the text", WorkUnit::bytes, bytes);
  for_each_index(unknown.size(), threads, [&](const Turn& turn) {
    CorpusFile& file = *unknown[turn.index];
    file.sha256 = hash_file(file.path, turn.given_up);
  });
  for (const CorpusFile* file : unknown) known.note(file->path, file->sha256);
}

formats::Labels labels_of(const std::vector<CorpusFile>& files, TrainOn train_on) {
  using Content = RowKind::Content;
  const bool learned_in_part = train_on != TrainOn::all && (any_has(files, Content::conversation) ||
                                                            any_has(files, Content::completion));
  return learned_in_part || any_has(files, Content::labelled_ids) ? formats::Labels::stored
                                                                  : formats::Labels::none;
}

std::shared_ptr<const chat_template::ChatTemplate> chat_template_for(
    const Corpus& corpus, const std::vector<CorpusFile>& files) {
  if (!any_has(files, RowKind::Content::conversation)) return nullptr;
  return corpus.chat_template();
}

int64_t bytes_of(const std::vector<CorpusFile>& files) {
  int64_t bytes = 0;
  for (const CorpusFile& file : files) bytes += size_of(file.path);
  return bytes;
}

/// Whether a valid file stands where `prepared` says; else, what is wrong with the one that does.
bool take_existing(PreparedTokens& prepared, int64_t vocab_size, KnownFiles& known) {
  std::error_code ignored;
  if (!fs::exists(formats::token_idx_path(prepared.path), ignored)) return false;
  try {
    const formats::TokenFile file(prepared.path);
    if (file.header().identity == prepared.identity && file.header().vocab_size == vocab_size) {
      const fs::path bin = formats::token_bin_path(prepared.path);
      if (known.sha256(bin) != file.header().bin_sha256) {
        const Work work("checking the tokens", WorkUnit::bytes, size_of(bin));
        file.verify();
        known.note(bin, file.header().bin_sha256);
        known.save();
      }
      prepared.tokens = file.tokens();
      prepared.documents = file.header().documents();
      prepared.reused = true;
      return true;
    }
    prepared.rebuilt_because =
        "the file was made from other text, by another tokenizer or for another vocabulary size";
  } catch (const DataError& damage) {
    prepared.rebuilt_because = damage.what();
  }
  return false;
}

[[noreturn]] void refuse_conversations_as_text(const std::string& key) {
  throw ConfigError(
      problem("special_as_text is true, and there are rows of conversations")
          .at(key)
          .must("be without: what a template writes around turns is special tokens")
          .remedy("Leave special_as_text out, or train on the conversations in a run of their "
                  "own."));
}

/// chat_rows.h; -1 where there are no conversations, or it is not learned.
int32_t learned_end_of_turn(const chat_template::ChatTemplate* chat_template,
                            const tokenizer::Tokenizer& tokenizer, const ChatOptions& options) {
  if (chat_template == nullptr) return -1;
  if (!options.train_on_end && options.train_on != TrainOn::all) return -1;
  try {
    return end_of_turn(*chat_template, tokenizer);
  } catch (const DataError&) {
    return -1;  // the template has no such conversation: its rows may be read all the same
  }
}

}  // namespace

PreparedTokens prepare_tokens(const Corpus& corpus, const tokenizer::Tokenizer& tokenizer,
                              const fs::path& directory, const std::string& split) {
  const std::string key = corpus.key.empty() ? "data." + split : corpus.key;
  const int64_t vocab_size = corpus.vocab_size > 0 ? corpus.vocab_size : tokenizer.vocab_size();
  PreparedTokens prepared;
  std::vector<CorpusFile> files =
      choose_files(expand_sources(corpus.sources, key, corpus.first, prepared.notes), corpus, key,
                   vocab_size, prepared.notes);
  prepared.split = split;
  prepared.read_as = read_as(files);
  if (any_indexed(files))
    return prepare_indexed(files, corpus, key, vocab_size, std::move(prepared));
  if (corpus.special_as_text && any_has(files, RowKind::Content::conversation))
    refuse_conversations_as_text(key);
  KnownFiles known(directory,
                   corpus.trust_times ? KnownFiles::Trust::size_and_time : KnownFiles::Trust::none);
  const int threads = corpus.threads > 0 ? corpus.threads : usable_cores();
  hash_files(files, threads, known);
  const int64_t total_bytes = bytes_of(files);
  if (total_bytes == 0) {
    throw DataError(problem(cat("all ", files.size(), " file(s) are empty, the first is ",
                                files.front().path.string()))
                        .at(key)
                        .must("hold text")
                        .remedy("Name files with text."));
  }
  const auto chat_template = chat_template_for(corpus, files);
  prepared.end_of_turn = learned_end_of_turn(chat_template.get(), tokenizer, corpus.chat);
  prepared.identity = identity_of(corpus, tokenizer, chat_template.get(), files);
  prepared.path = directory / cat(split, "-", prepared.identity);

  if (take_existing(prepared, vocab_size, known)) return prepared;
  create_directories_durably(directory, FailAs::data_error);
  known.save();
  remove_abandoned(directory);
  remove_old_parts(directory);
  const PreparingLock lock(prepared.path);
  // Another run may have made it while this one waited.
  if (take_existing(prepared, vocab_size, known)) {
    prepared.rebuilt_because.clear();
    return prepared;
  }
  TokenOutput output({.stem = prepared.path,
                      .vocab_size = vocab_size,
                      .identity = prepared.identity,
                      .labels = labels_of(files, corpus.chat.train_on),
                      .in_parts = total_bytes >= corpus.part_bytes});
  if (output.begin()) {
    prepared.notes.push_back(cat("an interrupted run has left ", with_thousands(output.tokens()),
                                 " tokens: the tokenizing goes on behind them"));
  }
  const Work work("tokenizing", WorkUnit::bytes, total_bytes);
  tokenize_files(files, tokenizer, chat_template.get(), vocab_size, corpus, key, output,
                 prepared.notes);
  if (output.tokens() == 0) refuse_empty(files, corpus, key);
  const formats::TokenFileHeader header = output.commit();
  prepared.tokens = header.tokens;
  prepared.documents = header.documents();
  known.note(formats::token_bin_path(prepared.path), header.bin_sha256);
  known.save();
  return prepared;
}

}  // namespace tptrain::data
