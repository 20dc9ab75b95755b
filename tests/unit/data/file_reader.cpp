#include "data/file_reader.h"

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

using testing::has;
using testing::message_of;
using testing::TempDir;

std::vector<std::string> lines_of(const std::filesystem::path& path) {
  LineReader reader(path, 3 << 20);
  std::vector<std::string> lines;
  while (const auto line = reader.next()) {
    lines.emplace_back(*line);
    CHECK(reader.line_number() == static_cast<int64_t>(lines.size()));
  }
  CHECK(reader.sha256() == sha256_file(path));
  return lines;
}

using Lines = std::vector<std::string>;

TEST_CASE("lines: with and without a last line feed, empty ones, a byte order mark") {
  const TempDir dir;
  CHECK(lines_of(dir.put("f", "")).empty());
  CHECK(lines_of(dir.put("f", "a")) == Lines{"a"});
  CHECK(lines_of(dir.put("f", "a\n")) == Lines{"a"});
  CHECK(lines_of(dir.put("f", "\n\na\r\n\nb")) == Lines{"", "", "a\r", "", "b"});
  CHECK(lines_of(dir.put("f", "\xEF\xBB\xBF{}\n\xEF\xBB\xBF")) == Lines{"{}", "\xEF\xBB\xBF"});
  CHECK(lines_of(dir.put("f", "\xEF\xBB\xBF")).empty());
}

TEST_CASE("lines that go over the end of a piece are whole, wherever the piece ends") {
  const TempDir dir;
  const size_t piece = size_t{1} << 20;
  for (const size_t first : {piece - 2, piece - 1, piece, piece + 1}) {
    const Lines lines = {std::string(first, 'a'), "", std::string(2 * piece + 3, 'b'), "c"};
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    INFO(first);
    CHECK(lines_of(dir.put("f", text)) == lines);
  }
}

TEST_CASE("a line that is too long is refused with its number, without being held") {
  const TempDir dir;
  const std::string path = dir.put("f", "a\n" + std::string(5 << 20, 'x')).string();
  LineReader reader(path, 3 << 20);
  CHECK(reader.next() == "a");
  CHECK(message_of<DataError>([&] { reader.next(); }) ==
        "data error: " + path +
            ":2: the line is longer than 3.00 MiB: it must have at most 3,145,728 bytes.\n"
            "  Cut the document into several lines; for plain text set data.format: text.");
  CHECK(has(message_of<DataError>([&] { LineReader(dir / "none", 1); }), "none: open failed"));
}

}  // namespace
}  // namespace tptrain::data
