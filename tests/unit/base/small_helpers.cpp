// Helpers that stand once for all: hex, ids, bf16, names in directories, ends of UTF-8, cores.
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/background.h"
#include "base/bf16.h"
#include "base/directory.h"
#include "base/error.h"
#include "base/hex.h"
#include "base/random_id.h"
#include "base/utf8.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain {
namespace {

namespace fs = std::filesystem;

TEST_CASE("hex has as many digits as asked for, and goes back to its bytes") {
  CHECK(to_hex(0x1a2b, 6) == "001a2b");
  CHECK(to_hex(0x1a2b, 2) == "2b");
  CHECK(to_hex(0xef, 2, HexCase::upper) == "EF");
  CHECK(to_hex(~uint64_t{0}, 16) == "ffffffffffffffff");
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  CHECK(to_hex(bytes).substr(0, 8) == "00010203");
  CHECK(bytes_of_hex(to_hex(bytes)) == bytes);
  CHECK(is_hex(to_hex(bytes), 512));
  CHECK_FALSE(is_hex("abcdeF", 6));
  CHECK_FALSE(is_hex("abc", 4));
}

TEST_CASE("ids are hex and nobody has the same") {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(random_id());
  CHECK(ids.size() == 1000);
  for (const std::string& id : ids) REQUIRE(is_hex(id, 32));
}

TEST_CASE("bf16 is rounded to the nearest, ties to even, and NaN stays NaN") {
  const auto of_bits = [](uint32_t bits) { return bf16_of(std::bit_cast<float>(bits)); };
  CHECK(of_bits(0x3f808000) == 0x3f80);  // a tie, down to even
  CHECK(of_bits(0x3f818000) == 0x3f82);  // a tie, up to even
  CHECK(of_bits(0x3f808001) == 0x3f81);
  CHECK(of_bits(0x7f7fffff) == 0x7f80);  // too large: infinity
  CHECK(of_bits(0xff800000) == 0xff80);
  CHECK(of_bits(0x7f800001) == 0x7fc0);  // no payload would be left
  CHECK(of_bits(0xff812345) == 0xff81);
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {  // what is bf16 stays as it is, NaN too
    const float value = bf16_to_float(static_cast<uint16_t>(bits));
    REQUIRE(bf16_of(value) == bits);
    REQUIRE(std::isnan(value) == ((bits & 0x7fff) > 0x7f80));
  }
}

TEST_CASE("a name is taken by a link that leads nowhere; entries are sorted") {
  const testing::TempDir dir;
  dir.put("b", "x");
  dir.put("a/inside", "y");
  fs::create_symlink("nowhere", dir / "c");
  fs::create_directory_symlink("a", dir / "d");
  CHECK(is_taken(dir / "c"));
  CHECK_FALSE(is_taken(dir / "e"));
  CHECK_FALSE(is_file(dir / "c"));
  CHECK(is_file(dir / "b"));
  CHECK_FALSE(is_file(dir / "a"));
  CHECK(is_real_directory(dir / "a"));
  CHECK_FALSE(is_real_directory(dir / "d"));
  CHECK(entries_of(dir / ".", FailAs::data_error).size() == 4);
  const std::vector<fs::path> sorted = {dir / "a", dir / "b", dir / "c", dir / "d"};
  CHECK(entries_if_readable(dir.path()) == sorted);
  CHECK(entries_if_readable(dir / "e").empty());
  CHECK_THROWS_AS(entries_of(dir / "e", FailAs::data_error), DataError);
  CHECK_THROWS_AS(entries_of(dir / "b", FailAs::checkpoint_error), CheckpointError);
}

TEST_CASE("the beginning of a text cuts no character in two") {
  const std::string text = "a\u00e9\u20ac\U0001f600b";  // of 1, 2, 3, 4 and 1 bytes
  std::string all;
  for (const uint32_t c : {0x61u, 0xe9u, 0x20acu, 0x1f600u, 0x62u}) append_utf8(all, c);
  CHECK(all == text);
  for (const auto& [limit, expected] : std::vector<std::pair<size_t, size_t>>{
           {0, 0}, {1, 1}, {2, 1}, {3, 3}, {5, 3}, {6, 6}, {9, 6}, {10, 10}, {11, 11}, {99, 11}})
    CHECK(utf8_prefix(text, limit).size() == expected);
  // Behind ASCII of any length: the look at eight bytes at once.
  for (size_t before = 0; before < 20; ++before) {
    const std::string broken = std::string(before, 'x') + "\xff" + std::string(20, 'y');
    CHECK(first_invalid_utf8(broken) == before);
    CHECK(first_invalid_utf8(std::string(before, 'x') + text) == std::string::npos);
  }
}

TEST_CASE("cores of several processes are counted once") {
  const std::string own = usable_core_set();
  CHECK(usable_cores() >= 1);
  CHECK(cores_in_any({own, own}) == usable_cores());
}

}  // namespace
}  // namespace tptrain
