// Which of the files that the sources name are tokenized, and as what.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "data/file_reader.h"
#include "data/tokenize_files.h"

namespace tptrain::data {

namespace {

std::optional<RowKind> first_row_kind(const CorpusFile& file, int64_t vocab_size) {
  JsonlParser parser(vocab_size);
  const std::unique_ptr<RowReader> rows = open_rows(file.path, file.kind.layout);
  while (const auto text = rows->next()) {
    const auto row = parser.parse(*text, file.path.native(), rows->line_number());
    if (row) return row->kind;
  }
  return std::nullopt;
}

CorpusFile look_at(const SourceFile& source, const std::string& format) {
  FileReader reader(source.path);
  const std::string_view head = reader.next();
  CorpusFile file{.path = source.path, .kind = kind_of_file(source.path, head, format)};
  file.any_bytes = format == "text";
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

}  // namespace

std::vector<CorpusFile> choose_files(const std::vector<SourceFile>& files, const Corpus& corpus,
                                     const std::string& key, int64_t vocab_size,
                                     std::vector<std::string>& notes) {
  std::vector<CorpusFile> all;
  std::vector<bool> source_has_rows(corpus.sources.size());
  for (const SourceFile& file : files) {
    all.push_back(look_at(file, corpus.format));
    const FileKind& kind = all.back().kind;
    if (kind.usable() && kind.format == Format::rows) source_has_rows[file.source] = true;
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
                             .must("hold text or JSON rows, plain or packed by gzip or zstd")
                             .remedy(kind.remedy));
    } else if (!kind.usable()) {
      reasons[file.source][kind.refused_as].push_back(name);
    } else if (file.in_directory && kind.format == Format::text && source_has_rows[file.source] &&
               corpus.format.empty() && !named_text(file.path)) {
      reasons[file.source]["beside rows, and not named .txt"].push_back(name);
    } else {
      chosen.push_back(std::move(all[i]));
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
  for (CorpusFile& file : chosen) {
    if (file.kind.format == Format::rows) file.rows = first_row_kind(file, vocab_size);
  }
  return chosen;
}

}  // namespace tptrain::data
