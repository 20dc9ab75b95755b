// What files hold and how they are read: rows and text under any name, packed by gzip or zstd, in
// arrays and lines; what is something else; what a directory gives.
#include <zlib.h>
#include <zstd.h>

#include "base/error.h"
#include "data/array_reader.h"
#include "data/arrow_rows.h"
#include "data/file_kind.h"
#include "data/file_reader.h"
#include "data/token_store.h"
#include "formats/token_file.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

namespace fs = std::filesystem;
using testing::has;
using testing::message_of;
using testing::TempDir;
using Texts = std::vector<std::string>;

std::string gzip(const std::string& text) {
  z_stream stream = {};
  REQUIRE(::deflateInit2(&stream, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(::deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(::deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& text) {
  ZSTD_CCtx* const context = ::ZSTD_createCCtx();
  ::ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);  // as the command line tool does
  std::string out(::ZSTD_compressBound(text.size()), '\0');
  out.resize(::ZSTD_compress2(context, out.data(), out.size(), text.data(), text.size()));
  ::ZSTD_freeCCtx(context);
  return out;
}

std::string unpacked(const fs::path& path) {
  FileReader reader(path);
  std::string text;
  for (std::string_view piece = reader.next(); !piece.empty(); piece = reader.next()) text += piece;
  CHECK(reader.sha256() == sha256_file(path));
  return text;
}

std::string failure_of(const fs::path& path) {
  return message_of<DataError>([&] { unpacked(path); });
}

PreparedTokens prepare(const TempDir& dir, const fs::path& source,
                       std::optional<config::DataFormat> format = {}) {
  return prepare_tokens({.sources = {{.path = source.string()}}, .format = format},
                        *tokenizer::make_tokenizer("bytes"), dir / "tokens", "train");
}

/// The documents of a source, in order.
Texts documents(const TempDir& dir, const fs::path& source,
                std::optional<config::DataFormat> format = {}) {
  const PreparedTokens prepared = prepare(dir, source, format);
  const formats::TokenFile file(prepared.path);
  Texts texts(1);
  std::vector<int64_t> ids(static_cast<size_t>(prepared.tokens));
  file.copy(0, ids);
  for (const int64_t id : ids) {
    if (id == 256) {
      texts.emplace_back();
    } else {
      texts.back() += static_cast<char>(id);
    }
  }
  texts.pop_back();
  return texts;
}

std::string refusal(const TempDir& dir, const fs::path& source,
                    std::optional<config::DataFormat> format = {}) {
  return message_of<DataError>([&] { prepare(dir, source, format); });
}

const std::string kRows = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
const std::string kArray =
    "\n[{\"text\": \"one\", \"x\": [\"]}\", {}]},\n\n {\"text\":\n\"two\"} ]\n";

TEST_CASE("rows are read under every name that rows have, packed or not") {
  const TempDir dir;
  const Texts both = {"one", "two"};
  for (const char* name :
       {"a.jsonl", "a.JSONL", "a.ndjson", "a.json", "a.Json", "a.jsonlines", "b.x.json"}) {
    INFO(name);
    for (const std::string& contents :
         {kRows, kArray, "\xEF\xBB\xBF" + kRows, "\xEF\xBB\xBF" + kArray}) {
      CHECK(documents(dir, dir.put(name, contents)) == both);
      CHECK(documents(dir, dir.put(std::string(name) + ".gz", gzip(contents))) == both);
      CHECK(documents(dir, dir.put(std::string(name) + ".zst", zstd(contents))) == both);
    }
    CHECK(documents(dir, dir.put(name, "{\"text\": \"one\"}\r\n\r\n{\"text\": \"two\"}\r\n")) ==
          both);
  }
  // By what they hold, whatever the name says of how they are packed.
  CHECK(documents(dir, dir.put("c.jsonl", gzip(kRows))) == both);
  CHECK(documents(dir, dir.put("c.json.gz", kRows)) == both);
}

TEST_CASE("text is packed likewise, and loses a byte order mark") {
  const TempDir dir;
  CHECK(documents(dir, dir.put("a.txt",
                               "\xEF\xBB\xBF"
                               "a\r\nb")) == Texts{"a\r\nb"});
  CHECK(documents(dir, dir.put("a.txt.gz", gzip("text"))) == Texts{"text"});
  CHECK(documents(dir, dir.put("a.md.zst", zstd("{{ text"))) == Texts{"{{ text"});
  CHECK(documents(dir, dir.put("a.txt", "\xEF\xBB\xBFx"), config::DataFormat::text) ==
        Texts{"\xEF\xBB\xBFx"});
  CHECK(prepare(dir, dir.put("a.txt", "x")).identity !=
        prepare(dir, dir.put("a.txt", "\xEF\xBB\xBFx")).identity);
}

TEST_CASE("packed streams: several in a file, larger than a piece, cut off, damaged") {
  const TempDir dir;
  std::string large;
  while (large.size() < 3'000'000) large += std::to_string(large.size()) + " words\n";
  for (const auto& pack : {gzip, zstd}) {
    CHECK(unpacked(dir.put("f", pack(large))) == large);
    CHECK(unpacked(dir.put("f", pack("a") + pack("") + pack(large))) == "a" + large);
    const std::string whole = pack(large);
    const std::string cut = whole.substr(0, whole.size() / 2);
    CHECK(has(failure_of(dir.put("f", cut)), "ends in the middle of its stream"));
    CHECK(has(failure_of(dir.put("f", whole.substr(0, whole.size() - 1))), "ends in the middle"));
    CHECK(has(failure_of(dir.put("f", whole + "behind")), " file is damaged ("));
    std::string flipped = whole;
    flipped[whole.size() / 2] ^= 0x40;
    // Found by the stream's own check, or before.
    CHECK(has(failure_of(dir.put("f", flipped)), pack == gzip ? "gzip file" : "zstd file"));
  }
  CHECK(failure_of(dir.put("f", gzip("a").substr(0, 9))) ==
        "data error: " + (dir / "f").string() +
            ": the gzip file ends in the middle of its stream: it is not complete.\n"
            "  Look at it with gzip -t; make it again, or unpack it.");
}

TEST_CASE("a small file that unpacks without end is stopped") {
  const TempDir dir;
  for (const auto& pack : {gzip, zstd}) {
    const std::string bomb = pack(std::string(size_t{70} << 20, ' '));
    REQUIRE(bomb.size() < 140'000);
    CHECK(has(failure_of(dir.put("f", bomb)), "unpacks to more than 500 times its size"));
  }
}

TEST_CASE("an array is taken apart wherever its lines end, and every fault has its line") {
  const TempDir dir;
  const auto elements = [&](const std::string& text) {
    ArrayReader reader(dir.put("a", text), 1 << 20);
    Texts all;
    while (const auto element = reader.next())
      all.push_back(std::to_string(reader.line_number()) + ":" + std::string(*element));
    CHECK(reader.sha256() == sha256_file(dir / "a"));
    return all;
  };
  CHECK(elements("[]").empty());
  CHECK(elements(" \n[\n]\n").empty());
  CHECK(elements("[{},\n{\"a\":\n[1, \"}\\\"]\"]}\n,\n\n3 , \"x,]\", [[]],null]") ==
        Texts{"1:{}", "2:{\"a\":\n[1, \"}\\\"]\"]}", "6:3", "6:\"x,]\"", "6:[[]]", "6:null"});
  const std::string long_text(900'000, 'y');
  CHECK(elements("[\"" + long_text + "\",\"" + long_text + "\",\"" + long_text + "\"]").size() ==
        3);
  const auto fault = [&](const std::string& text) {
    return message_of<DataError>([&] { elements(text); });
  };
  CHECK(fault("[{}\n{}]") == "data error: " + (dir / "a").string() +
                                 ":2: there is no comma between this row and the one before: it "
                                 "must have one.\n  Write the rows as [{...}, {...}], or one a "
                                 "line without brackets.");
  CHECK(has(fault("[{},\n]"), "a:2: there is a comma before the ]"));
  CHECK(has(fault("[{},\n"), "a:2: the file ends within its array"));
  CHECK(has(fault("[{},\n{\"a\": \"\n"), "the file ends within the row that begins in line 2"));
  CHECK(has(fault("[{}]\n{}"), "a:2: something stands behind the array"));
  CHECK(has(fault("{}"), "a:1: there is no ["));
  CHECK(has(fault("[\n\"" + std::string(2 << 20, 'x') + "\"]"),
            "a:2: the row is longer than 1.00 MiB: it must have at most 1,048,576 bytes"));
  CHECK(has(fault("[}]"), "a:1: "));
}

TEST_CASE("what is something else is named, with the way out") {
  const TempDir dir;
  struct Case {
    const char* name;
    std::string contents;
    const char* is;
    const char* remedy;
  };
  for (const Case& c : std::vector<Case>{
           {"a.parquet", "text", "named as Parquet and holds none", "to_json"},
           {"a.CSV", "a,b\n1,2\n", "comma-separated", "JSON lines"},
           {"a.csv.gz", gzip("a,b\n1,2\n"), "comma-separated", "JSON lines"},
           {"a.tsv", "a\tb\n", "tab-separated", "JSON lines"},
           {"a.txt", std::string("\xFF\xFEh\0i\0", 6), "UTF-16", "iconv -f utf-16"},
           {"a.jsonl", std::string("\xFE\xFF\0{\0}", 6), "UTF-16", "iconv -f utf-16"},
           {"a.txt", std::string("h\0i\0", 4), "NUL bytes", "data.format: text"},
           {"a.jsonl.bz2", "BZh91AY&SY", "a bzip2 file", "bunzip2"},
           {"a.xz",
            "\xFD"
            "7zXZ",
            "an xz file", "unxz"},
           {"a.zip", "PK\x03\x04", "a zip archive", "Unpack"},
           {"a.tar", std::string(257, 'n') + "ustar" + std::string(300, 'x'), "a tar archive",
            "Unpack"},
           {"a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "a Git LFS pointer", "git lfs pull"},
           {"a.json", "{\n  \"data\": []\n}\n", "one JSON object over several lines", "jq"},
           {"a.json", "{\"architectures\": []}\n", "JSON whose first line is no row", "A row is"},
           {"a.json", "plain", "named as JSON and holds none", "data.format: text"},
           {"a.txt", kRows, "begins with a JSON row", "data.format: jsonl"},
           {"a.txt", "[\n{\"messages\": []}]", "begins with a JSON row", "data.format: jsonl"},
           {"a", "{\"instruction\": \"x\"}", "begins with a JSON row", "data.format: text"},
       }) {
    INFO(c.name << " with " << c.contents);
    const std::string message = refusal(dir, dir.put(c.name, c.contents));
    CHECK(has(message, "data error: " + (dir / c.name).string() + ": the file seems to be "));
    CHECK(has(message, c.is));
    CHECK(has(message, c.remedy));
    fs::remove(dir / c.name);
  }
  // NUL bytes beyond the beginning, which no look at a head finds.
  const fs::path late = dir.put("late.txt", std::string(3 << 20, 'x') + '\0');
  CHECK(has(refusal(dir, late), "late.txt: there are NUL bytes in the file"));
  CHECK(prepare(dir, late, config::DataFormat::text).tokens == (3 << 20) + 2);
  // What a user says counts for more than what a file looks like.
  CHECK(documents(dir, dir.put("a.txt", kRows), config::DataFormat::text) == Texts{kRows});
  CHECK(documents(dir, dir.put("a.txt", kRows), config::DataFormat::jsonl) == Texts{"one", "two"});
  CHECK(documents(dir, dir.put("a.csv", "a,b\n"), config::DataFormat::text) == Texts{"a,b\n"});
  // All named files that are wrong, at once.
  dir.put("two/a.csv", "x");
  dir.put("two/b.pdf", "%PDF-1.7");
  const std::string both = refusal(dir, dir / "two/*");
  CHECK(has(both, "two/a.csv: the file seems to be"));
  CHECK(has(both, "two/b.pdf: the file seems to be a PDF"));
}

TEST_CASE("Parquet and Arrow files that are none are refused, with Arrow or without") {
  const TempDir dir;
  const std::string damaged = std::string(40, '\1');
  for (const auto& [magic, is] :
       std::vector<std::pair<std::string, std::string>>{{"PAR1", "a Parquet file"},
                                                        {"ARROW1", "an Arrow file"},
                                                        {"\xFF\xFF\xFF\xFF", "an Arrow stream"}}) {
    for (const char* name : {"a.parquet", "a.txt", "a.jsonl", "a"}) {
      const std::string message = refusal(dir, dir.put(name, magic + damaged + magic));
      INFO(message);
      if (reads_arrow()) {
        CHECK(has(message, (dir / name).string() + ": the file cannot be read ("));
      } else {
        CHECK(has(message, "the file seems to be " + is));
        CHECK(has(message, "scripts/setup.sh --parquet"));
      }
    }
  }
}

TEST_CASE("a directory gives what is known, and says what is left out") {
  const TempDir dir;
  dir.put("set/README.md", "# A data set");
  dir.put("set/dataset_info.json", "{\n \"features\": {}\n}");
  dir.put("set/a.jsonl", kRows);
  dir.put("set/b.json.gz", gzip(kArray));
  dir.put("set/c.txt", "three");
  dir.put("set/t.npy", "\x93NUMPY");
  const PreparedTokens prepared = prepare(dir, dir / "set");
  CHECK(prepared.documents == 5);
  REQUIRE(prepared.notes.size() == 1);
  const std::string& said = prepared.notes.front();
  CHECK(has(said, "of the directory " + (dir / "set").string() + " these are left out: "));
  CHECK(has(said, "README.md (beside rows, and not named .txt)"));
  CHECK(has(said, "dataset_info.json (one JSON object over several lines)"));
  CHECK(has(said, "t.npy (a NumPy array)"));
  CHECK(prepare(dir, dir / "set").notes == prepared.notes);  // of tokens that are there, too
  // Text of any name, where there are no rows.
  dir.put("src/a.cpp", "int a;");
  dir.put("src/b.md", "b");
  dir.put("src/picture.png", std::string("\x89PNG\0", 5));
  CHECK(documents(dir, dir / "src") == Texts{"int a;", "b"});
  CHECK(has(prepare(dir, dir / "src").notes.at(0), "picture.png (no text"));
  // A file that is named is no file that happens to lie there.
  CHECK(has(refusal(dir, dir / "set/*"), "dataset_info.json: the file seems to be"));
  CHECK(documents(dir, dir / "set/*.md") == Texts{"# A data set"});
  dir.put("none/a.npy", "\x93NUMPY");
  const std::string none = refusal(dir, dir / "none");
  CHECK(has(none, "data error: data.train: of the directory "));
  CHECK(has(none, "a.npy (a NumPy array): it must hold text or JSON rows"));
}

}  // namespace
}  // namespace tptrain::data
