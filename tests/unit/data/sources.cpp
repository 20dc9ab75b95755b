#include <sys/stat.h>

#include "base/error.h"
#include "base/text.h"
#include "data/glob.h"
#include "data/token_store.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

namespace fs = std::filesystem;
using testing::has;
using testing::message_of;
using testing::TempDir;

/// Makes a directory the current one while it lives.
class CurrentDirectory {
 public:
  explicit CurrentDirectory(const fs::path& path) : saved_(fs::current_path()) {
    fs::current_path(path);
  }
  ~CurrentDirectory() { fs::current_path(saved_); }

 private:
  fs::path saved_;
};

std::vector<config::DataSource> sources(const std::vector<std::string>& paths) {
  std::vector<config::DataSource> out;
  for (const std::string& path : paths) {
    config::DataSource source;
    source.path = path;
    out.push_back(source);
  }
  return out;
}

/// "a.txt b.txt"
std::string expanded(const std::vector<std::string>& paths) {
  std::vector<std::string> names;
  std::vector<std::string> notes;
  for (const SourceFile& file : expand_sources(sources(paths), "data.train", 0, notes))
    names.push_back(file.path.string());
  return join(names, " ");
}

std::string failure(const std::vector<std::string>& paths) {
  std::vector<std::string> notes;
  return message_of<DataError>([&] { expand_sources(sources(paths), "data.eval", 0, notes); });
}

std::string notes_of(const std::vector<std::string>& paths) {
  std::vector<std::string> notes;
  expand_sources(sources(paths), "data.train", 0, notes);
  return join(notes, "; ");
}

TEST_CASE("one component: *, ?, sets and ranges as in a shell") {
  struct Case {
    const char* pattern;
    const char* name;
    bool matches;
  };
  for (const Case& c : std::vector<Case>{
           {"*", "a", true},
           {"*", ".a", false},
           {".*", ".a", true},
           {"*.txt", "a.txt", true},
           {"*.txt", "a.txt2", false},
           {"*.txt", ".txt", false},
           {"a*b*c", "abc", true},
           {"a*b*c", "axbybzc", true},
           {"a*b*c", "axbyb", false},
           {"?", "a", true},
           {"?", "ab", false},
           {"?", "", false},
           {"a?c", "abc", true},
           {"[abc]", "b", true},
           {"[abc]", "d", false},
           {"[a-c]x", "bx", true},
           {"[a-c]x", "dx", false},
           {"[!a-c]", "d", true},
           {"[!a-c]", "b", false},
           {"[^a]", "b", true},
           {"[]]", "]", true},
           {"[a-]", "-", true},
           {"[!]]", "a", true},
           {"[ab", "[ab", true},
           {"[ab", "a", false},
           {"*[0-9].txt", "a12.txt", true},
           {"?txt", ".txt", false},
           {"**", "abc", true},
           {"", "", true},
           {"a", "", false},
           {"*", "", true},
           {"[\xc0-\xff]*", "\xc3\xa9", true},
       }) {
    INFO(c.pattern << " against " << c.name);
    CHECK(matches_component(c.pattern, c.name) == c.matches);
  }
}

TEST_CASE("many stars stay quick") {
  const std::string name(200, 'a');
  std::string pattern;
  for (int i = 0; i < 50; ++i) pattern += "a*";
  CHECK_FALSE(matches_component(pattern + "b", name));
}

TEST_CASE("a file that two sources name is said to be read once") {
  const TempDir dir;
  for (const char* name : {"a.txt", "b.txt", "d/c.txt"}) dir.put(name, "x");
  const CurrentDirectory here(dir.path());
  CHECK(notes_of({"a.txt", "b.txt", "d"}).empty());
  CHECK(notes_of({"**/**/*.txt"}).empty());  // one glob, whichever ways it finds a file
  CHECK(notes_of({"*.txt", "./a.txt"}) ==
        "named twice and read once: a.txt (by *.txt and ./a.txt)");
  CHECK(notes_of({"**/*.txt", "*.txt", "a.txt"}) ==
        "named twice and read once: 2 files, the first is a.txt (by **/*.txt and *.txt)");
}

TEST_CASE("sources: files, directories and globs, sorted by bytes, each file once") {
  const TempDir dir;
  for (const char* name : {"B.txt", "a.txt", "b.md", "d/c.txt", "d/e/f.txt", "d/e/g.md",
                           "d-1/x.txt", ".hidden.txt", ".git/h.txt", "d/.i.txt", "odd[1].txt"}) {
    dir.put(name, "x");
  }
  const CurrentDirectory here(dir.path());
  CHECK(expanded({"a.txt"}) == "a.txt");
  CHECK(expanded({"./a.txt", "a.txt", "d/../a.txt", (dir / "a.txt").string()}).find(' ') ==
        std::string::npos);
  CHECK(expanded({"*.txt"}) == "B.txt a.txt odd[1].txt");
  CHECK(expanded({"b.md", "*.txt", "a*"}) == "B.txt a.txt b.md odd[1].txt");
  CHECK(expanded({"d"}) == "d/c.txt d/e/f.txt d/e/g.md");
  CHECK(expanded({"d/"}) == "d/c.txt d/e/f.txt d/e/g.md");
  CHECK(expanded({"."}) == "B.txt a.txt b.md d-1/x.txt d/c.txt d/e/f.txt d/e/g.md odd[1].txt");
  CHECK(expanded({"**/*.txt"}) == "B.txt a.txt d-1/x.txt d/c.txt d/e/f.txt odd[1].txt");
  CHECK(expanded({"**/**/*.md"}) == "b.md d/e/g.md");
  CHECK(expanded({"d/**"}) == "d/c.txt d/e/f.txt d/e/g.md");
  CHECK(expanded({"d/**/f.txt"}) == "d/e/f.txt");
  CHECK(expanded({"**/e/*"}) == "d/e/f.txt d/e/g.md");
  CHECK(expanded({"*/*.txt"}) == "d-1/x.txt d/c.txt");
  CHECK(expanded({"*/e/../c.txt"}) == "d/c.txt");
  CHECK(expanded({"odd[1].txt"}) == "odd[1].txt");  // spelled as it is
  CHECK(expanded({".*.txt"}) == ".hidden.txt");
  CHECK(expanded({".hidden.txt"}) == ".hidden.txt");
  CHECK(expanded({".git"}) == ".git/h.txt");
  CHECK(expanded({(dir / "d/*/f.txt").string()}) == (dir / "d/e/f.txt").string());
}

TEST_CASE("links to files are followed; links to directories are not walked into") {
  const TempDir dir;
  dir.put("d/a.txt", "x");
  fs::create_symlink("a.txt", dir / "d/link.txt");
  fs::create_directory_symlink(".", dir / "d/circle");
  const CurrentDirectory here(dir.path());
  CHECK(expanded({"d"}) == "d/a.txt d/link.txt");
  CHECK(expanded({"d/**"}) == "d/a.txt d/link.txt");
  CHECK(expanded({"d/circle"}) == "d/circle/a.txt d/circle/link.txt");
  CHECK(expanded({"d/*/a.txt"}) == "d/circle/a.txt");
}

TEST_CASE("a link that leads nowhere is not passed over in silence") {
  const TempDir dir;
  dir.put("d/a.txt", "x");
  fs::create_symlink("nowhere", dir / "d/b.txt");
  const CurrentDirectory here(dir.path());
  CHECK(failure({"d"}) ==
        "data error: d/b.txt: the link leads to a file that is not there.\n"
        "  Repair or remove the link.");
  CHECK(has(failure({"d/*.txt"}), "d/b.txt: the link leads to"));
  CHECK(expanded({"d/a*"}) == "d/a.txt");
  fs::create_symlink("loop", dir / "loop");
  CHECK(failure({"loop"}) ==
        "data error: loop: stat failed: Too many levels of symbolic links.\n"
        "  Check the links and the permissions on the way to it.");
}

TEST_CASE("a source that matches nothing is named, with its key and why") {
  const TempDir dir;
  dir.put("sub/a.txt", "x");
  dir.put("hollow/.keep", "x");
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  fs::create_symlink("nowhere", dir / "dangling.txt");
  const CurrentDirectory here(dir.path());
  const std::string where = fs::current_path().string();
  CHECK(failure({"sub/*.json"}) ==
        "data error: data.eval[0]: \"sub/*.json\" matches no file.\n"
        "  Check the spelling; a relative path starts at the current directory, " +
            where + ".");
  CHECK(has(failure({"sub/a.txt", "mis.txt"}), "data.eval[1]: \"mis.txt\" matches no file"));
  CHECK(has(failure({""}), "data.eval[0]: \"\" matches no file"));
  CHECK(has(failure({"dangling.txt"}), "\"dangling.txt\" matches no file"));
  CHECK(failure({"s*"}) ==
        "data error: data.eval[0]: \"s*\" matches no file, only 1 directory.\n"
        "  A glob names files: write s*/** for all files below.");
  CHECK(has(failure({"[hs]*"}), "only 2 directories"));
  CHECK(failure({"hollow"}) ==
        "data error: data.eval[0]: the directory \"hollow\" holds no file.\n"
        "  Put text files there; hidden files and directories are skipped.");
  CHECK(failure({"pipe"}) ==
        "data error: data.eval[0]: \"pipe\" is neither a file nor a directory.\n"
        "  Name a regular file, a directory or a glob.");
  const std::string both = failure({"x*", "sub", "y*"});
  CHECK(has(both, "data.eval[0]: \"x*\""));
  CHECK(has(both, "\ndata error: data.eval[2]: \"y*\""));
  CHECK(failure({}) ==
        "data error: data.eval: no text is named: it must list at least one file, directory or "
        "glob.\n"
        "  Set data.eval: [{path: corpus/*.txt}].");
}

}  // namespace
}  // namespace tptrain::data
