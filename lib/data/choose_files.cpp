// Which of the files that the sources name are tokenized, and as what.
#include <algorithm>
#include <map>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "data/conversation_rows.h"
#include "data/corpus_rows.h"
#include "data/file_reader.h"
#include "data/tokenize_files.h"
#include "formats/indexed_tokens.h"

namespace tptrain::data {

namespace {

std::optional<JsonlRow> first_row_of(const CorpusFile& file, const Corpus& corpus,
                                     int64_t vocab_size) {
  JsonlParser parser(vocab_size, corpus.names);
  RowTally tally(corpus.max_bad_fraction);  // not closed: the rows are counted when tokenized
  return CorpusRows(file, parser, tally).next();
}

/// `"human" is {user: human}`: who speaks in a conversation by words that mean a role elsewhere,
/// and that its template is given as they are.
std::vector<std::string> foreign_roles(const JsonlRow& row) {
  std::vector<std::string> roles;
  for (const auto& message : row.conversation.messages) {
    const auto& word = message.at("role").get_ref<const std::string&>();
    const std::string_view role = role_of_word(word);
    const bool speaks = role == "user" || role == "assistant";
    const std::string said = cat(role, ": ", word);
    if (speaks && role != word && std::find(roles.begin(), roles.end(), said) == roles.end())
      roles.push_back(said);
  }
  return roles;
}

/// What files hold, by the sentence about it.
class Remarks {
 public:
  void add(const std::string& what, const std::filesystem::path& file) {
    files_[what].push_back(file.string());
  }
  /// What the first row of a file has that is not read as its author may have meant it.
  void look_at(const JsonlRow& row, const std::filesystem::path& file) {
    if (!row.unread.empty()) {
      add(cat("what looks like a conversation and is not read: ", row.unread,
              "; data.columns: {messages: KEY} reads one of that name"),
          file);
    }
    if (const std::vector<std::string> roles = foreign_roles(row); !roles.empty()) {
      add(cat("the chat template is given roles as they are written; data.roles: {", join(roles),
              "} says who that is"),
          file);
    }
  }
  void tell(std::vector<std::string>& notes) const {
    for (const auto& [what, files] : files_) {
      const std::string where = files.size() == 1
                                    ? files.front()
                                    : cat(with_thousands(static_cast<int64_t>(files.size())),
                                          " files, the first is ", files.front());
      notes.push_back(cat(what, " (", where, ")"));
    }
  }

 private:
  std::map<std::string, std::vector<std::string>> files_;
};

/// The .idx beside a .bin, where that is the index of a Megatron token file.
std::optional<std::filesystem::path> index_beside(const std::filesystem::path& path) {
  if (path.extension() != ".bin") return std::nullopt;
  std::filesystem::path index = path;
  index.replace_extension(".idx");
  std::error_code error;  // what cannot be looked at is no index
  if (!std::filesystem::is_regular_file(index, error)) return std::nullopt;
  if (!FileReader(index, FileReader::Contents::as_stored)
           .next()
           .starts_with(formats::kIndexedMagic))
    return std::nullopt;
  return index;
}

CorpusFile look_at(const SourceFile& source, const Corpus& corpus) {
  if (!corpus.format || corpus.format == config::DataFormat::indexed) {
    if (const auto index = index_beside(source.path))
      return {.path = *index, .kind = {.format = Format::indexed}};
  }
  FileReader reader(source.path);
  const std::string_view head = reader.next();
  CorpusFile file{.path = source.path,
                  .kind = kind_of_file(source.path, head, corpus.format, corpus.names)};
  file.any_bytes = corpus.format == config::DataFormat::text;
  file.marked = !file.any_bytes && without_mark(head).size() < head.size();
  return file;
}

/// Files of one source that are left out, by why.
using Reasons = std::map<std::string, std::vector<std::string>>;

std::string sentence(const std::string& directory, const Reasons& reasons) {
  constexpr size_t kShown = 3;
  std::vector<std::string> parts;
  for (const auto& [why, names] : reasons) {
    const std::vector<std::string> first(names.begin(),
                                         names.begin() + std::min(names.size(), kShown));
    parts.push_back(cat(join(first),
                        names.size() > kShown ? cat(" and ", names.size() - kShown, " more") : "",
                        " (", why, ")"));
  }
  return cat("of the directory ", directory, " these are left out: ", join(parts, "; "));
}

bool holds(const std::vector<CorpusFile>& files, const std::filesystem::path& path) {
  return std::any_of(files.begin(), files.end(),
                     [&](const CorpusFile& file) { return file.path == path; });
}

constexpr const char* kMustHold =
    "hold text or JSON rows, plain or packed by gzip or zstd, or be a "
    "Megatron token file";

}  // namespace

std::vector<CorpusFile> choose_files(const std::vector<SourceFile>& files, const Corpus& corpus,
                                     const std::string& key, int64_t vocab_size,
                                     std::vector<std::string>& notes) {
  std::vector<CorpusFile> all;
  std::vector<bool> source_has_rows(corpus.sources.size());
  std::vector<bool> source_has_tokens(corpus.sources.size());
  for (const SourceFile& file : files) {
    all.push_back(look_at(file, corpus));
    const FileKind& kind = all.back().kind;
    if (kind.usable() && kind.format == Format::rows) source_has_rows[file.source] = true;
    if (kind.format == Format::indexed) source_has_tokens[file.source] = true;
  }
  std::vector<Problem> problems;
  std::map<size_t, Reasons> reasons;
  std::vector<CorpusFile> chosen;
  for (size_t i = 0; i < files.size(); ++i) {
    const SourceFile& file = files[i];
    const FileKind& kind = all[i].kind;
    const std::string name = file.path.string();
    if (!kind.usable() && !file.in_directory) {
      problems.push_back(problem(cat("the file seems to be ", kind.refused_as))
                             .at(name)
                             .must(kMustHold)
                             .remedy(kind.remedy));
    } else if (!kind.usable()) {
      reasons[file.source][kind.refused_as].push_back(name);
    } else if (file.in_directory && kind.format != Format::indexed &&
               source_has_tokens[file.source]) {
      reasons[file.source]["beside token files"].push_back(name);
    } else if (file.in_directory && kind.format == Format::text && source_has_rows[file.source] &&
               !corpus.format && !named_text(file.path)) {
      reasons[file.source]["beside rows, and not named .txt"].push_back(name);
    } else if (kind.format != Format::indexed || !holds(chosen, all[i].path)) {
      chosen.push_back(std::move(all[i]));  // a .bin and its .idx are one
    }
  }
  if (!problems.empty()) throw DataError(problems);
  for (const auto& [source, why] : reasons) {
    notes.push_back(sentence(corpus.sources[source].path, why));
  }
  if (chosen.empty()) {
    throw DataError(problem(join(notes, "; "))
                        .at(key)
                        .must("hold text or JSON rows")
                        .remedy("Name the files themselves, or convert them (docs/data.md)."));
  }
  Remarks remarks;
  for (CorpusFile& file : chosen) {
    if (file.kind.format != Format::rows) continue;
    const std::optional<JsonlRow> row = first_row_of(file, corpus, vocab_size);
    if (!row) continue;
    file.rows = row->kind;
    remarks.look_at(*row, file.path);
  }
  remarks.tell(notes);
  return chosen;
}

}  // namespace tptrain::data
