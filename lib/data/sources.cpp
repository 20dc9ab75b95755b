// data.train and data.eval -> files: globs, directories, and what is wrong with them. Reads no
// file.
#include <algorithm>
#include <map>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "data/glob.h"
#include "data/token_store.h"

namespace tptrain::data {

namespace fs = std::filesystem;

namespace {

/// Files that two of the sources name, which are read once nevertheless.
class NamedTwice {
 public:
  void add(const fs::path& file, const std::string& by, const std::string& earlier) {
    if (!files_.insert(file.native()).second || files_.size() > 1) return;
    first_ = cat(file.string(), " (by ", earlier, " and ", by, ")");
  }
  void tell(std::vector<std::string>& notes) const {
    if (files_.size() == 1) notes.push_back(cat("named twice and read once: ", first_));
    if (files_.size() > 1) {
      notes.push_back(
          cat("named twice and read once: ", with_thousands(static_cast<int64_t>(files_.size())),
              " files, the first is ", first_));
    }
  }

 private:
  std::set<std::string> files_;
  std::string first_;
};

}  // namespace

std::vector<SourceFile> expand_sources(const std::vector<config::DataSource>& sources,
                                       const std::string& key, size_t first,
                                       std::vector<std::string>& notes) {
  if (sources.empty()) {
    throw DataError(problem("no text is named")
                        .at(key)
                        .must("list at least one file, directory or glob")
                        .remedy(cat("Set ", key, ": [{path: corpus/*.txt}].")));
  }
  // By absolute name, so that one file named twice in two ways is read once.
  std::map<std::string, SourceFile> files;
  std::vector<Problem> problems;
  NamedTwice named_twice;
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string& path = sources[i].path;
    const GlobResult found = expand_glob(path);
    for (const fs::path& file : found.files) {
      const auto [known, added] =
          files.emplace(fs::absolute(file).lexically_normal().native(),
                        SourceFile{.path = file, .source = i, .in_directory = found.directory});
      // Named by one source and found by another: named.
      if (!added && !found.directory) known->second.in_directory = false;
      if (!added && known->second.source != i)  // one glob may find a file twice
        named_twice.add(known->second.path, path, sources[known->second.source].path);
    }
    if (!found.files.empty()) continue;
    Problem p =
        problem(cat("\"", path, "\" matches no file"))
            .at(cat(key, "[", first + i, "]"))
            .remedy(cat("Check the spelling; a relative path starts at the current directory, ",
                        fs::current_path().string(), "."));
    if (found.empty_directory) {
      p.received = cat("the directory \"", path, "\" holds no file");
      p.remedy("Put text files there; hidden files and directories are skipped.");
    } else if (found.special_file) {
      p.received = cat("\"", path, "\" is neither a file nor a directory");
      p.remedy("Name a regular file, a directory or a glob.");
    } else if (found.matched_directories > 0) {
      p.received = cat("\"", path, "\" matches no file, only ", found.matched_directories,
                       found.matched_directories == 1 ? " directory" : " directories");
      p.remedy(cat("A glob names files: write ", path, "/** for all files below."));
    }
    problems.push_back(std::move(p));
  }
  if (!problems.empty()) throw DataError(problems);
  named_twice.tell(notes);
  std::vector<SourceFile> sorted;
  for (auto& [absolute, file] : files) sorted.push_back(std::move(file));
  // By bytes, not by components as operator< of paths: the order must be the one that `ls` in the C
  // locale shows.
  std::sort(sorted.begin(), sorted.end(), [](const SourceFile& a, const SourceFile& b) {
    return a.path.native() < b.path.native();
  });
  return sorted;
}

}  // namespace tptrain::data
