#include "hub/repository.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"

namespace tptrain::hub {
namespace {

namespace fs = std::filesystem;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/// The hub's own rule for owners and names.
bool is_name(std::string_view name) {
  const auto fits = [](char c) {
    return is_letter_or_digit(c) || c == '-' || c == '_' || c == '.';
  };
  return !name.empty() && name.size() <= 96 && std::all_of(name.begin(), name.end(), fits) &&
         name[0] != '.' && name[0] != '-' && name.back() != '.' && name.back() != '-' &&
         name.find("..") == name.npos && name.find("--") == name.npos;
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string trimmed(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool is_true(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text == "1" || text == "on" || text == "yes" || text == "true";
}

fs::path token_file() {
  if (const std::string path = variable("HF_TOKEN_PATH"); !path.empty()) return path;
  if (const std::string home = variable("HF_HOME"); !home.empty()) return fs::path(home) / "token";
  const std::string cache = variable("XDG_CACHE_HOME");
  const std::string home = variable("HOME");
  if (cache.empty() && home.empty()) return {};
  return (cache.empty() ? fs::path(home) / ".cache" : fs::path(cache)) / "huggingface" / "token";
}

/// A token goes into a header as it stands.
std::string checked_token(const std::string& token, const std::string& from) {
  const auto visible = [](char c) { return c > ' ' && c < '\x7f'; };
  if (std::all_of(token.begin(), token.end(), visible)) return token;
  throw ConfigError(problem(cat("the token of ", from, " holds spaces or control characters"))
                        .must("be a token of the hub (hf_...)"));
}

void read_token(Hub& hub) {
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    hub.token = checked_token(trimmed(variable(name)), name);
    hub.token_from = name;
    if (!hub.token.empty()) return;
  }
  hub.token_from.clear();
  const fs::path file = token_file();
  std::error_code none;
  if (file.empty() || !fs::is_regular_file(file, none)) return;
  hub.token = checked_token(trimmed(read_file(file, 4096, FailAs::config_error)), file.string());
  hub.token_from = file.string();
}

}  // namespace

std::string Repository::short_name() const { return id.substr(id.rfind('/') + 1); }

std::string Repository::text() const {
  return cat(kind == RepositoryKind::dataset ? "datasets/" : "", id);
}

Repository parse_repository(const std::string& text) {
  Repository repository;
  std::string name = text;
  const Hub defaults;
  for (const std::string& prefix : {std::string("hf://"), defaults.endpoint + "/",
                                    std::string("https://hf.co/"), variable("HF_ENDPOINT") + "/"}) {
    if (prefix.size() > 1 && name.starts_with(prefix)) {
      name.erase(0, prefix.size());
      break;
    }
  }
  if (const size_t at = name.find('@'); at != std::string::npos) {
    repository.revision = name.substr(at + 1);
    name.erase(at);
    check_revision(repository.revision);
  }
  if (name.starts_with("datasets/")) {
    repository.kind = RepositoryKind::dataset;
    name.erase(0, std::string_view("datasets/").size());
  } else if (name.starts_with("models/")) {
    name.erase(0, std::string_view("models/").size());
  }
  while (name.ends_with('/')) name.pop_back();
  const size_t slash = name.find('/');
  const bool fits = slash == std::string::npos
                        ? is_name(name)
                        : is_name(name.substr(0, slash)) && is_name(name.substr(slash + 1));
  if (!fits) {
    throw ConfigError(problem(cat("\"", text, "\" is no repository of the Hugging Face hub"))
                          .must("be written as OWNER/NAME, or datasets/OWNER/NAME for a data set")
                          .remedy("As in: tptrain fetch Qwen/Qwen2.5-0.5B"));
  }
  repository.id = name;
  return repository;
}

void check_revision(const std::string& revision) {
  const auto fits = [](char c) {
    return c > ' ' && c < '\x7f' && c != '?' && c != '#' && c != '\\';
  };
  if (!revision.empty() && revision.size() <= 250 &&
      std::all_of(revision.begin(), revision.end(), fits) &&
      revision.find("..") == std::string::npos) {
    return;
  }
  throw ConfigError(problem(cat("\"", revision, "\" is no revision"))
                        .must("be the name of a branch or a tag, or a commit"));
}

Hub hub_of_environment() {
  Hub hub;
  if (std::string endpoint = trimmed(variable("HF_ENDPOINT")); !endpoint.empty()) {
    while (endpoint.ends_with('/')) endpoint.pop_back();
    if (!endpoint.starts_with("https://") && !endpoint.starts_with("http://")) {
      throw ConfigError(problem(cat("HF_ENDPOINT is ", endpoint))
                            .must("be an address, as https://huggingface.co is"));
    }
    hub.endpoint = endpoint;
  }
  hub.offline = is_true(variable("HF_HUB_OFFLINE")) || is_true(variable("TRANSFORMERS_OFFLINE"));
  if (const std::string text = trimmed(variable("HF_HUB_DOWNLOAD_TIMEOUT")); !text.empty()) {
    int seconds = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (error != std::errc() || end != text.data() + text.size() || seconds < 1) {
      throw ConfigError(problem(cat("HF_HUB_DOWNLOAD_TIMEOUT is ", text))
                            .must("be a whole number of seconds, at least 1"));
    }
    hub.stall_timeout = std::chrono::seconds(seconds);
  }
  for (const char* name : {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"}) {
    if (hub.certificates.empty()) hub.certificates = variable(name);
  }
  read_token(hub);
  return hub;
}

namespace {

std::string encoded(const std::string& text, bool slash_stays) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (is_letter_or_digit(c) || c == '-' || c == '.' || c == '_' || c == '~' ||
        (c == '/' && slash_stays)) {
      out += c;
    } else {
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return out;
}

}  // namespace

std::string percent_encoded(const std::string& path) { return encoded(path, true); }
std::string percent_encoded_part(const std::string& name) { return encoded(name, false); }

}  // namespace tptrain::hub
