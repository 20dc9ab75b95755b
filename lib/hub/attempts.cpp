#include "hub/attempts.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/printable.h"
#include "base/text.h"

namespace tptrain::hub {
namespace {

using std::chrono::milliseconds;

// 0.25 s, 0.5 s, 1 s ...
constexpr milliseconds kFirstPause{250};
constexpr milliseconds kLongestPause{16'000};
// What a server asks for (Retry-After) is granted up to here.
constexpr int kLongestAsked = 120;

/// The hub's own words: a header, or "error" of the body.
std::string reason_of(const HttpAnswer& answer, const std::string& body) {
  std::string reason = answer.header("x-error-message");
  if (reason.empty()) {
    const auto json = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("error") && json["error"].is_string())
      reason = json["error"].get<std::string>();
  }
  constexpr size_t kMost = 300;
  if (reason.size() > kMost) reason = reason.substr(0, kMost) + "...";
  return printable_line(reason);
}

milliseconds asked_pause(const HttpAnswer& answer) {
  const std::string text = answer.header("retry-after");
  int seconds = 0;
  std::from_chars(text.data(), text.data() + text.size(), seconds);  // a date: 0
  return std::chrono::seconds(std::clamp(seconds, 0, kLongestAsked));
}

}  // namespace

Attempts::Attempts(const Hub& hub, const Repository& repository, std::string what, int patience)
    : hub_(hub), repository_(repository), what_(std::move(what)), patience_(patience) {}

void Attempts::failed(const HttpAnswer& answer, const std::string& error_body) {
  if (!answer.failure.empty()) return pause(answer.failure, milliseconds::zero());
  const std::string reason = reason_of(answer, error_body);
  // An address that the hub led to may have run out; the hub gives a new one.
  const bool final = answer.status >= 400 && answer.status < 500 && answer.status != 408 &&
                     answer.status != 416 && answer.status != 429 && answer.from_hub;
  if (final) refused(answer, reason);
  pause(cat("status ", answer.status, reason.empty() ? "" : ": ", reason), asked_pause(answer));
}

void Attempts::failed(const std::string& reason) { pause(reason, milliseconds::zero()); }

void Attempts::pause(const std::string& reason, milliseconds at_least) {
  if (++in_a_row_ == patience_) {
    throw DataError(problem(cat("fetching ", what_, " failed ", patience_,
                                " times in a row, last with: ", printable_line(reason)))
                        .at(hub_.endpoint)
                        .remedy("What has come is kept: the same command again goes on with it. "
                                "Behind a proxy set HTTPS_PROXY; for a mirror of the hub "
                                "HF_ENDPOINT."));
  }
  const milliseconds own = std::min(kLongestPause, kFirstPause * (1 << (in_a_row_ - 1)));
  std::this_thread::sleep_for(std::max(own, at_least));
}

void Attempts::refused(const HttpAnswer& answer, const std::string& reason) {
  const std::string code = answer.header("x-error-code");
  const std::string page = cat(hub_.endpoint, "/", repository_.text());
  const bool model = repository_.kind == RepositoryKind::model;
  const std::string with_token =
      hub_.token.empty() ? "No token was sent" : cat("The token of ", hub_.token_from, " was sent");
  const std::string said = reason.empty() ? cat("status ", answer.status)
                                          : cat("\"", reason, "\" (status ", answer.status, ")");
  Problem p = problem(cat("the hub refuses ", what_, ": ", said)).at(hub_.endpoint);
  if (code == "RevisionNotFound") {
    p.remedy(cat("There is no revision ", repository_.revision, ": see the branches and tags on ",
                 page, "/tree/main, or leave --revision out."));
  } else if (code == "EntryNotFound") {
    p.remedy("The repository changed meanwhile: run the same command again.");
  } else if (code == "GatedRepo" || answer.status == 403) {
    p.remedy(cat("Accept its terms on ", page,
                 " with your account there, and set HF_TOKEN to a "
                 "token of that account that may read it. ",
                 with_token, "."));
  } else if (code == "RepoNotFound" || answer.status == 401 || answer.status == 404) {
    p.remedy(cat("See that the name is right: ", page,
                 ". A private or gated repository needs "
                 "HF_TOKEN. ",
                 with_token, ".",
                 model ? cat(" A data set is named datasets/", repository_.id, ".") : ""));
  }
  throw ConfigError(std::move(p));
}

}  // namespace tptrain::hub
