// Memory: a header, however it is made, takes a small multiple of its own size to read, or to
// refuse. Every allocation of this program is counted.
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "base/error.h"
#include "formats/safetensors_header.h"
#include "formats/safetensors_index.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace {

std::atomic<int64_t> g_live_bytes{0};
std::atomic<int64_t> g_peak_bytes{0};

void* counted(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  const int64_t live = g_live_bytes += static_cast<int64_t>(malloc_usable_size(memory)) + 16;
  int64_t peak = g_peak_bytes;
  while (live > peak && !g_peak_bytes.compare_exchange_weak(peak, live)) {
  }
  return memory;
}

void uncounted(void* memory) {
  if (memory == nullptr) return;
  g_live_bytes -= static_cast<int64_t>(malloc_usable_size(memory)) + 16;
  std::free(memory);
}

}  // namespace

void* operator new(size_t size) { return counted(std::malloc(size)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  void* const memory = std::malloc(size);
  return memory == nullptr ? nullptr : counted(memory);
}
void operator delete(void* memory) noexcept { uncounted(memory); }
void operator delete(void* memory, size_t) noexcept { uncounted(memory); }

namespace tptrain::testing {
namespace {

constexpr int64_t kTextBytes = 8 << 20;
// What each test allows: bytes allocated at once for a byte of header.
constexpr double kMultiple = 10;

std::string file_of(const std::string& header) {
  std::string bytes(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header;
}

template <typename Call>
double multiple_of(size_t text_bytes, Call&& call) {
  const int64_t before = g_live_bytes;
  g_peak_bytes = before;
  call();
  return static_cast<double>(g_peak_bytes - before) / static_cast<double>(text_bytes);
}

// The verdict, and that memory stayed bounded on the way to it.
std::string read(const std::string& header) {
  const std::string file = file_of(header);
  std::string verdict;
  const double multiple = multiple_of(header.size(), [&] {
    verdict = message_of<DataError>(
        [&] { formats::read_safetensors_header(std::as_bytes(std::span(file)), "x.safetensors"); });
  });
  INFO(verdict.substr(0, 300) << "; bytes a byte of header: " << multiple);
  CHECK(multiple < kMultiple);
  return verdict;
}

std::string repeated(const std::string& begin, const std::string& piece, const std::string& end) {
  std::string text = begin;
  while (static_cast<int64_t>(text.size()) < kTextBytes) text += piece;
  return text + end;
}

TEST_CASE("a header of as many tensors as fit is read in bounded memory") {
  std::string text = "{";
  for (int i = 0; static_cast<int64_t>(text.size()) < kTextBytes; ++i) {
    text += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
            "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
  }
  CHECK(read(text + "}") == "(nothing was thrown)");
}

TEST_CASE("hostile headers are refused in bounded memory") {
  const std::string entry = "{\"a\":{\"dtype\":\"U8\",\"shape\":";
  CHECK(has(read(repeated(entry + "[0", ",0", "],\"data_offsets\":[0,0]}}")), "dimensions"));
  CHECK(has(read(repeated(entry, "[", "")), "no size (a list)"));
  CHECK(has(read(repeated("{\"a\":", "{\"a\":", "")), "unknown field"));
  CHECK(has(read(repeated("", "{", "")), "not valid JSON"));
  CHECK(has(read(repeated("{\"", "a", "")), "not valid JSON"));
  CHECK(has(read(repeated("{\"", "a", "\":1}")), "is no object"));
  CHECK(has(read(repeated("{\"a\":{\"dtype\":\"", "F", "\"}}")), "unknown dtype"));
  CHECK(has(read(repeated(entry + "[", "9", "]}}")), "65536 bytes are one number"));
  CHECK(has(read(repeated("{\"__metadata__\":{\"a\":\"", "\\u00e4", "\"}")), "not valid JSON"));
  CHECK(has(read(repeated("{", " ", "")), "not valid JSON: parse error"));
  CHECK(has(read(repeated("{", " ", "}")), "65536 bytes are one number, one word or space"));
  CHECK(read(repeated("{}", " ", "")) == "(nothing was thrown)");
  std::string many = "{\"__metadata__\":{";
  for (int i = 0; static_cast<int64_t>(many.size()) < kTextBytes; ++i) {
    many += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":\"\"";
  }
  CHECK(has(read(many + "}}"), "__metadata__ has more than 65536 entries"));
}

TEST_CASE("a large index is read in bounded memory") {
  std::string text = "{\"weight_map\":{";
  for (int i = 0; static_cast<int64_t>(text.size()) < kTextBytes; ++i) {
    text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":\"a.safetensors\"";
  }
  text += "}}";
  CHECK(multiple_of(text.size(), [&] { formats::parse_safetensors_index(text, "index"); }) <
        kMultiple);
  std::string nested = "{\"metadata\":";
  while (static_cast<int64_t>(nested.size()) < kTextBytes) nested += "[";
  CHECK(multiple_of(nested.size(), [&] {
          CHECK(has(message_of<DataError>([&] { formats::parse_safetensors_index(nested, ""); }),
                    "stay within 64 levels"));
        }) < kMultiple);
}

}  // namespace
}  // namespace tptrain::testing
