#include "base/foreign_file.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace tptrain {

namespace {

constexpr size_t kLookedAt = 256;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

}  // namespace

void refuse_foreign_file(std::string_view beginning, const std::string& where) {
  using namespace std::string_view_literals;
  const std::string_view raw = beginning.substr(0, kLookedAt);
  const auto refuse = [&](const char* what, const char* remedy) {
    throw DataError(problem(cat("this is ", what)).at(where).remedy(remedy));
  };
  if (raw.starts_with("version https://git-lfs.github.com/")) {
    refuse("a Git LFS pointer, not the file that it stands for",
           "Run git lfs pull in the folder it was cloned to, or download the file again (hf "
           "download).");
  }
  if (raw.starts_with("PK\x03\x04"sv)) {
    refuse("a zip archive, as PyTorch writes pickled weights",
           "Download the model's safetensors files, or convert it once in Python: "
           "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT).");
  }
  if (raw.starts_with("\x1f\x8b"sv)) {
    refuse("compressed with gzip", "Unpack it (gunzip) or download the file again.");
  }
  std::string_view text = raw;
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  const size_t first = text.find_first_not_of(" \t\r\n");
  const std::string begin = lower(first == text.npos ? "" : text.substr(first));
  if (begin.starts_with("<!doctype html") || begin.starts_with("<html") ||
      begin.starts_with("<?xml")) {
    refuse("a web page, not the file",
           "The download was answered with a page, mostly of a login or of an error: download the "
           "file again (tptrain fetch).");
  }
  if (begin.starts_with("entry not found") || begin.starts_with("repository not found") ||
      begin.starts_with("invalid username or password") || begin.starts_with("access to model")) {
    refuse("the hub's answer to a download that it refused, not the file",
           "See that the name is right and the model's terms are accepted, and download the file "
           "again (tptrain fetch).");
  }
}

}  // namespace tptrain
