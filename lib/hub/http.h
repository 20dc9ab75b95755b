// One HTTP GET after another, by libcurl, which is loaded when the first client is made: nothing
// else of the program needs it. Redirects are followed here, not by libcurl: the token goes to the
// hub alone, and nobody leads from https to http.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "hub/repository.h"

namespace tptrain::hub {

struct HttpAnswer {
  int status = 0;                              // 0: there was none
  std::map<std::string, std::string> headers;  // names in lower case
  std::string url;                             // that answered, after redirects
  std::string failure;                         // "": the answer came whole
  bool from_hub = true;                        // of the endpoint, not of a server it led to

  bool ok() const { return failure.empty() && (status == 200 || status == 206); }
  /// "" where there is none.
  std::string header(const std::string& name) const;
};

/// Who takes the body of an answer of status 200 or 206: told of the answer first, then given the
/// bytes as they come. Either may throw: the transfer ends, and get() throws it.
struct HttpBody {
  std::function<void(const HttpAnswer&)> begin;
  std::function<void(std::string_view)> bytes;
};

/// One thread each.
class HttpClient {
 public:
  /// Throws ConfigError where this machine has no libcurl.
  explicit HttpClient(const Hub& hub);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// The bytes from `from` on, where the server can. What goes wrong on the way stands in the
  /// answer; of an error's body the first 64 KiB are its `error_body`.
  HttpAnswer get(const std::string& url, int64_t from, const HttpBody& body);
  const std::string& error_body() const { return error_body_; }

 private:
  HttpAnswer get_once(const std::string& url, int64_t from, const HttpBody& body);
  std::string redirect_of(const HttpAnswer& answer);

  struct Curl;
  const Hub& hub_;
  std::unique_ptr<Curl> curl_;
  std::string error_body_;
};

/// "https://host:port" of an address, in lower case and without the scheme's own port; "" where it
/// is neither http nor https.
std::string origin_of(const std::string& url);

}  // namespace tptrain::hub
