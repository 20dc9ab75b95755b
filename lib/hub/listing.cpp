#include "hub/listing.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/hex.h"
#include "base/printable.h"
#include "base/text.h"
#include "base/utf8.h"
#include "formats/strict_json.h"
#include "hub/attempts.h"
#include "hub/out_folder.h"

namespace tptrain::hub {
namespace {

using nlohmann::json;

constexpr size_t kMostAnswer = size_t{64} << 20;
constexpr int kPagePatience = 4;  // two seconds: who has no network need not wait to be told
constexpr size_t kMostFiles = 1'000'000;

[[noreturn]] void distrust(const std::string& url, const std::string& received,
                           const std::string& constraint) {
  throw DataError(problem(received)
                      .at(url)
                      .must(constraint)
                      .remedy("This is no answer of a Hugging Face hub: look at HF_ENDPOINT and at "
                              "proxies on the way."));
}

class Api {
 public:
  Api(HttpClient& http, const Hub& hub, const Repository& repository)
      : http_(http), hub_(hub), repository_(repository) {}

  std::string address(const std::string& below) const {
    return cat(hub_.endpoint, "/api/",
               repository_.kind == RepositoryKind::dataset ? "datasets/" : "models/",
               repository_.id, "/", below);
  }

  json ask(const std::string& url, HttpAnswer& answer) {
    Attempts attempts(hub_, repository_, cat("the list of files of ", repository_.text()),
                      kPagePatience);
    for (;;) {
      std::string text;
      answer = http_.get(url, 0,
                         {.begin = [](const HttpAnswer&) {},
                          .bytes =
                              [&](std::string_view more) {
                                if (text.size() + more.size() > kMostAnswer)
                                  distrust(url, "the answer does not end", "be of 64 MiB at most");
                                text += more;
                              }});
      if (answer.ok()) return formats::parse_strict_json(text, url);
      attempts.failed(answer, http_.error_body());
    }
  }

 private:
  HttpClient& http_;
  const Hub& hub_;
  const Repository& repository_;
};

std::string text_member(const json& entry, const char* name, const std::string& url) {
  const auto at = entry.is_object() ? entry.find(name) : entry.end();
  if (at == entry.end() || !at->is_string())
    distrust(url, cat("an entry has no text \"", name, "\""), "have one");
  return at->get<std::string>();
}

int64_t size_member(const json& entry, const std::string& url) {
  const auto at = entry.find("size");
  constexpr uint64_t kMost = uint64_t{1} << 50;
  if (at == entry.end() || !at->is_number_unsigned() || at->get<uint64_t>() > kMost)
    distrust(url, "an entry has no size", "have one, in bytes");
  return at->get<int64_t>();
}

RemoteFile file_of(const json& entry, const std::string& url) {
  RemoteFile file;
  file.path = text_member(entry, "path", url);
  if (const std::string fault = fault_of_path(file.path); !fault.empty())
    distrust(url, cat("the path \"", printable_line(file.path), "\" ", fault),
             "be a plain path within the repository");
  const auto lfs = entry.find("lfs");
  const bool large = lfs != entry.end() && lfs->is_object();
  file.size_bytes = size_member(large ? *lfs : entry, url);
  file.hash = text_member(large ? *lfs : entry, "oid", url);
  if (!is_hex(file.hash, large ? 64 : 40))
    distrust(url, cat("the hash of ", file.path, " is \"", printable_line(file.hash), "\""),
             cat("be ", large ? 64 : 40, " hex digits"));
  return file;
}

/// The address in `Link: <...>; rel="next"`; "" on the last page.
std::string next_page(const HttpAnswer& answer, const Hub& hub, const std::string& url) {
  const std::string link = answer.header("link");
  if (link.find("rel=\"next\"") == std::string::npos) return "";
  const size_t begin = link.find('<');
  const size_t end = link.find('>');
  if (begin == std::string::npos || end == std::string::npos || end < begin)
    distrust(url, "the next page has no address", "have one");
  const std::string next = link.substr(begin + 1, end - begin - 1);
  if (origin_of(next) != origin_of(hub.endpoint))
    distrust(url, cat("the next page is ", printable_line(next)), "be of the same hub");
  return next;
}

/// No file twice, and none that is a folder of another.
void check_apart(std::vector<RemoteFile>& files, const std::string& url) {
  std::set<std::string> paths;
  for (const RemoteFile& file : files) {
    if (!paths.insert(file.path).second)
      distrust(url, cat(file.path, " is listed twice"), "be once");
  }
  for (const std::string& path : paths) {
    for (size_t at = path.find('/'); at != std::string::npos; at = path.find('/', at + 1)) {
      if (paths.count(path.substr(0, at)) != 0)
        distrust(url, cat(path.substr(0, at), " is a file and a folder"), "be one of them");
    }
  }
}

}  // namespace

std::string fault_of_path(const std::string& path) {
  constexpr size_t kMostPath = 1024;
  constexpr size_t kMostName = 240;
  if (path.empty()) return "is empty";
  if (path.size() > kMostPath) return "is too long";
  if (path[0] == '/') return "begins at the root";
  if (printable_line(path) != path) return "holds characters that cannot be shown";
  if (path.find('\\') != std::string::npos) return "holds a backslash";
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    if (name.empty()) return "holds an empty name";
    if (name == "." || name == "..") return cat("holds the name ", name);
    if (name.size() > kMostName) return "holds a name that is too long";
    if (begin == 0 && name == kStagingFolder) return "is in the folder of unfinished files";
    begin = end + 1;
  }
  return "";
}

Listing list_repository(HttpClient& http, const Hub& hub, const Repository& repository) {
  Api api(http, hub, repository);
  Listing listing;
  HttpAnswer answer;
  const std::string about =
      api.address(cat("revision/", percent_encoded_part(repository.revision)));
  listing.commit = text_member(api.ask(about, answer), "sha", about);
  if (!is_hex(listing.commit, 40)) distrust(about, "\"sha\" is no commit", "be 40 hex digits");

  std::string url = api.address(cat("tree/", listing.commit, "?recursive=true&expand=false"));
  std::set<std::string> asked;
  while (!url.empty()) {
    if (!asked.insert(url).second) distrust(url, "the pages go in a circle", "end");
    const json page = api.ask(url, answer);
    if (!page.is_array()) distrust(url, "the list of files is no array", "be one");
    for (const json& entry : page) {
      if (text_member(entry, "type", url) == "file") listing.files.push_back(file_of(entry, url));
    }
    if (listing.files.size() > kMostFiles) distrust(url, "the list of files does not end", "end");
    url = next_page(answer, hub, url);
  }
  check_apart(listing.files, about);
  return listing;
}

std::string file_url(const Hub& hub, const Repository& repository, const std::string& commit,
                     const std::string& path) {
  return cat(hub.endpoint, "/", repository.text(), "/resolve/", commit, "/", percent_encoded(path));
}

}  // namespace tptrain::hub
