// Names of shards and of checkpoint directories, and texts fit for one line of a log (manifest.h).
#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/cause.h"
#include "base/hex.h"
#include "base/text.h"
#include "checkpoint/manifest.h"

namespace tptrain::checkpoint {

namespace {

using Json = nlohmann::json;

bool all_digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string padded(const char* format, int64_t value) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, static_cast<long long>(value));
  return buffer.data();
}

}  // namespace

std::string one_line(std::string_view text) {
  constexpr size_t kMaxLine = 1000;
  std::string out;
  for (const char c : text.substr(0, kMaxLine)) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (control && (out.empty() || out.back() == ' ')) continue;
    out += control ? ' ' : c;
  }
  if (text.size() > kMaxLine) out += "...";
  // Through JSON and back: whatever is not UTF-8 (a cut character, a foreign file name) becomes the
  // replacement character.
  return Json::parse(Json(out).dump(-1, ' ', false, Json::error_handler_t::replace))
      .get<std::string>();
}

std::string plain_message(const std::exception& error) { return one_line(cause_of(error)); }

std::string shard_name(int64_t file, int64_t file_count) {
  return "shard-" + padded("%05lld", file) + "-of-" + padded("%05lld", file_count) + ".safetensors";
}

bool is_shard_name(std::string_view name) {
  constexpr std::string_view kHead = "shard-", kMiddle = "-of-", kTail = ".safetensors";
  if (!name.starts_with(kHead) || !name.ends_with(kTail)) return false;
  name.remove_prefix(kHead.size());
  name.remove_suffix(std::min(kTail.size(), name.size()));
  const size_t middle = name.find(kMiddle);
  return middle != name.npos && all_digits(name.substr(0, middle)) &&
         all_digits(name.substr(middle + kMiddle.size()));
}

std::string step_directory_name(int64_t step, int64_t attempt) {
  const std::string name = "step-" + padded("%08lld", step);
  return attempt <= 1 ? name : cat(name, ".", attempt);
}

bool is_step_directory_name(std::string_view name) {
  constexpr std::string_view kHead = "step-";
  if (!name.starts_with(kHead)) return false;
  name.remove_prefix(kHead.size());
  const size_t dot = name.find('.');
  if (dot == name.npos) return name.size() >= 8 && all_digits(name);
  return dot >= 8 && all_digits(name.substr(0, dot)) && all_digits(name.substr(dot + 1));
}

std::string temporary_directory_name(int64_t step, const std::string& save_id) {
  return ".tmp-" + padded("%08lld", step) + "-" + save_id;
}

bool is_temporary_directory_name(std::string_view name) {
  constexpr std::string_view kHead = ".tmp-";
  if (!name.starts_with(kHead)) return false;
  name.remove_prefix(kHead.size());
  const size_t dash = name.find('-');
  return dash != name.npos && dash >= 8 && dash <= 18 && all_digits(name.substr(0, dash)) &&
         is_hex(name.substr(dash + 1), 32);
}

int64_t step_of_temporary_directory(std::string_view name) {
  return std::stoll(std::string(name.substr(std::string_view(".tmp-").size())));
}

}  // namespace tptrain::checkpoint
