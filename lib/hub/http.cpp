#include "hub/http.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <exception>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::hub {
namespace {

constexpr int kMostRedirects = 10;
constexpr size_t kMostErrorBody = size_t{64} << 10;

// Of curl.h, which a build machine need not have: parts of the interface of libcurl.so.4, stable
// since 2006.
struct CURL;
struct curl_slist;
using CURLcode = int;
constexpr CURLcode CURLE_OK = 0;
constexpr long CURL_GLOBAL_DEFAULT = 3;
constexpr size_t CURL_ERROR_SIZE = 256;
enum CURLoption : int {
  CURLOPT_LOW_SPEED_LIMIT = 19,
  CURLOPT_LOW_SPEED_TIME = 20,
  CURLOPT_CONNECTTIMEOUT = 78,
  CURLOPT_NOSIGNAL = 99,
  CURLOPT_WRITEDATA = 10001,
  CURLOPT_URL = 10002,
  CURLOPT_ERRORBUFFER = 10010,
  CURLOPT_USERAGENT = 10018,
  CURLOPT_HTTPHEADER = 10023,
  CURLOPT_HEADERDATA = 10029,
  CURLOPT_CAINFO = 10065,
  CURLOPT_WRITEFUNCTION = 20011,
  CURLOPT_HEADERFUNCTION = 20079,
};
enum CURLINFO : int { CURLINFO_RESPONSE_CODE = 0x200002, CURLINFO_REDIRECT_URL = 0x10001f };

struct Library {
  CURLcode (*global_init)(long);
  CURL* (*easy_init)();
  void (*easy_cleanup)(CURL*);
  void (*easy_reset)(CURL*);
  CURLcode (*easy_setopt)(CURL*, CURLoption, ...);
  CURLcode (*easy_perform)(CURL*);
  CURLcode (*easy_getinfo)(CURL*, CURLINFO, ...);
  const char* (*easy_strerror)(CURLcode);
  curl_slist* (*slist_append)(curl_slist*, const char*);
  void (*slist_free_all)(curl_slist*);
};

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) throw InternalError(problem(cat("libcurl has no ", name)));
}

Library load() {
  void* library = nullptr;
  // Debian's own names of the same interface with another TLS library stand behind.
  for (const char* name : {"libcurl.so.4", "libcurl-gnutls.so.4", "libcurl-nss.so.4"}) {
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    throw ConfigError(problem("this machine has no libcurl (libcurl.so.4)")
                          .must("have it to fetch from the hub")
                          .remedy("Debian and Ubuntu: sudo apt-get install curl; RHEL: sudo dnf "
                                  "install libcurl; conda: conda install libcurl. Or download the "
                                  "files elsewhere and copy them."));
  }
  Library found{};
  find(library, "curl_global_init", found.global_init);
  find(library, "curl_easy_init", found.easy_init);
  find(library, "curl_easy_cleanup", found.easy_cleanup);
  find(library, "curl_easy_reset", found.easy_reset);
  find(library, "curl_easy_setopt", found.easy_setopt);
  find(library, "curl_easy_perform", found.easy_perform);
  find(library, "curl_easy_getinfo", found.easy_getinfo);
  find(library, "curl_easy_strerror", found.easy_strerror);
  find(library, "curl_slist_append", found.slist_append);
  find(library, "curl_slist_free_all", found.slist_free_all);
  if (found.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
    throw InternalError(problem("libcurl: curl_global_init failed"));
  return found;
}

const Library& library() {
  static const Library kLibrary = load();  // stays loaded: it holds state of its own threads' TLS
  return kLibrary;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

std::string trimmed(std::string_view text) {
  constexpr const char* kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) - begin + 1));
}

/// What one transfer writes to; libcurl's callbacks must not throw through it.
struct Transfer {
  CURL* handle;
  HttpAnswer& answer;
  const HttpBody& body;
  std::string& error_body;
  std::exception_ptr thrown = nullptr;
  bool begun = false;

  void header_line(std::string_view line) {
    if (line.starts_with("HTTP/")) return answer.headers.clear();  // after an interim answer
    const size_t colon = line.find(':');
    if (colon == line.npos) return;
    answer.headers[lower(std::string(line.substr(0, colon)))] = trimmed(line.substr(colon + 1));
  }

  void bytes(std::string_view more) {
    long status = 0;
    library().easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    answer.status = static_cast<int>(status);
    if (status != 200 && status != 206) {
      error_body.append(
          more.substr(0, kMostErrorBody - std::min(kMostErrorBody, error_body.size())));
      return;
    }
    if (!begun) body.begin(answer);
    begun = true;
    body.bytes(more);
  }
};

template <typename Work>
size_t guarded(Transfer& transfer, size_t count, Work&& work) {
  try {
    work();
    return count;
  } catch (...) {
    transfer.thrown = std::current_exception();
    return count == 0 ? 1 : 0;  // not what was given: the transfer ends
  }
}

size_t on_header(char* bytes, size_t size, size_t count, void* transfer) {
  auto& one = *static_cast<Transfer*>(transfer);
  return guarded(one, size * count, [&] { one.header_line({bytes, size * count}); });
}

size_t on_bytes(char* bytes, size_t size, size_t count, void* transfer) {
  auto& one = *static_cast<Transfer*>(transfer);
  return guarded(one, size * count, [&] { one.bytes({bytes, size * count}); });
}

bool is_redirect(int status) {
  constexpr std::array<int, 5> kRedirects = {301, 302, 303, 307, 308};
  return std::find(kRedirects.begin(), kRedirects.end(), status) != kRedirects.end();
}

}  // namespace

struct HttpClient::Curl {
  CURL* handle;
  std::array<char, CURL_ERROR_SIZE> message{};

  Curl() : handle(library().easy_init()) {
    if (handle == nullptr) throw InternalError(problem("libcurl: curl_easy_init failed"));
  }
  ~Curl() { library().easy_cleanup(handle); }

  template <typename Value>
  void set(CURLoption option, Value value) {
    if (library().easy_setopt(handle, option, value) != CURLE_OK)
      throw InternalError(problem(cat("libcurl refuses option ", static_cast<int>(option))));
  }
};

std::string HttpAnswer::header(const std::string& name) const {
  const auto at = headers.find(name);
  return at == headers.end() ? "" : at->second;
}

std::string origin_of(const std::string& url) {
  const size_t scheme_end = url.find("://");
  if (scheme_end == std::string::npos) return "";
  const std::string scheme = lower(url.substr(0, scheme_end));
  if (scheme != "https" && scheme != "http") return "";
  std::string host = url.substr(scheme_end + 3);
  host = lower(host.substr(0, host.find_first_of("/?#\\")));
  if (host.find('@') != std::string::npos) return "";  // user:password@host: nobody needs it here
  const std::string own_port = scheme == "https" ? ":443" : ":80";
  if (host.ends_with(own_port)) host.resize(host.size() - own_port.size());
  return host.empty() ? "" : cat(scheme, "://", host);
}

HttpClient::HttpClient(const Hub& hub) : hub_(hub), curl_(std::make_unique<Curl>()) {}
HttpClient::~HttpClient() = default;

HttpAnswer HttpClient::get(const std::string& url, int64_t from, const HttpBody& body) {
  std::string next = url;
  for (int redirects = 0;; ++redirects) {
    HttpAnswer answer = get_once(next, from, body);
    if (!answer.failure.empty() || !is_redirect(answer.status)) return answer;
    next = redirect_of(answer);
    if (redirects == kMostRedirects) answer.failure = cat(kMostRedirects, " redirects and more");
    if (next.empty()) answer.failure = "a redirect that leads nowhere, or from https to http";
    if (!answer.failure.empty()) return answer;
  }
}

std::string HttpClient::redirect_of(const HttpAnswer& answer) {
  char* target = nullptr;  // absolute, whatever the header says
  library().easy_getinfo(curl_->handle, CURLINFO_REDIRECT_URL, &target);
  if (target == nullptr) return "";
  const std::string origin = origin_of(target);
  const bool downgrade = answer.url.starts_with("https:") && origin.starts_with("http:");
  return origin.empty() || downgrade ? "" : target;
}

HttpAnswer HttpClient::get_once(const std::string& url, int64_t from, const HttpBody& body) {
  HttpAnswer answer;
  answer.url = url;
  answer.from_hub = origin_of(url) == origin_of(hub_.endpoint);
  error_body_.clear();
  Transfer transfer{
      .handle = curl_->handle, .answer = answer, .body = body, .error_body = error_body_};
  library().easy_reset(curl_->handle);  // keeps connections
  curl_->message[0] = '\0';
  curl_->set(CURLOPT_URL, url.c_str());
  curl_->set(CURLOPT_NOSIGNAL, 1L);  // of several threads
  curl_->set(CURLOPT_ERRORBUFFER, curl_->message.data());
  curl_->set(CURLOPT_USERAGENT, "tptrain");
  curl_->set(CURLOPT_CONNECTTIMEOUT, 20L);
  curl_->set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_->set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(hub_.stall_timeout.count()));
  curl_->set(CURLOPT_HEADERFUNCTION, &on_header);
  curl_->set(CURLOPT_HEADERDATA, &transfer);
  curl_->set(CURLOPT_WRITEFUNCTION, &on_bytes);
  curl_->set(CURLOPT_WRITEDATA, &transfer);
  if (!hub_.certificates.empty()) curl_->set(CURLOPT_CAINFO, hub_.certificates.c_str());

  struct FreeList {
    void operator()(curl_slist* list) const { library().slist_free_all(list); }
  };
  std::unique_ptr<curl_slist, FreeList> headers;
  const auto add = [&](const std::string& line) {
    headers.reset(library().slist_append(headers.release(), line.c_str()));
  };
  add("Accept-Encoding: identity");  // sizes and ranges are those of the file
  if (from > 0) add(cat("Range: bytes=", from, "-"));
  if (answer.from_hub && !hub_.token.empty()) add(cat("Authorization: Bearer ", hub_.token));
  curl_->set(CURLOPT_HTTPHEADER, headers.get());

  const CURLcode code = library().easy_perform(curl_->handle);
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  long status = 0;
  library().easy_getinfo(curl_->handle, CURLINFO_RESPONSE_CODE, &status);
  answer.status = static_cast<int>(status);
  if (code != CURLE_OK) {
    const std::string more = curl_->message.data();
    answer.failure = more.empty() ? library().easy_strerror(code) : more;
  } else if ((status == 200 || status == 206) && !transfer.begun) {
    body.begin(answer);  // a file without bytes
  }
  return answer;
}

}  // namespace tptrain::hub
