#include "hub/fetch.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string_view>

#include "base/background.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/wildcard.h"
#include "base/work.h"
#include "hub/download.h"
#include "hub/out_folder.h"

namespace tptrain::hub {
namespace {

bool ends_with_any(const std::string& path, const auto& endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](std::string_view ending) { return path.ends_with(ending); });
}

/// The same weights for other programs, where the safetensors are there.
bool is_other_form(const std::string& path, bool has_standard_names) {
  constexpr std::array<std::string_view, 18> kEndings = {
      ".bin",    ".pt",        ".pth",  ".ckpt",   ".h5",  ".msgpack",
      ".onnx",   ".onnx_data", ".gguf", ".ggml",   ".ot",  ".pkl",
      ".tflite", ".mlmodel",   ".npz",  ".engine", ".pte", ".tar.gz"};
  if (path.starts_with("original/") || ends_with_any(path, kEndings)) return true;
  const std::string name = path.substr(path.rfind('/') + 1);
  return has_standard_names && name.starts_with("consolidated") && name.ends_with(".safetensors");
}

bool is_of_git(const std::string& path) {
  return path == ".gitattributes" || path.ends_with("/.gitattributes");
}

/// "tokenizer*" in any folder of the pattern's own; a pattern that ends in / is the folder.
bool matches(const std::string& glob, const std::string& path) {
  const std::string pattern = glob.ends_with('/') ? glob + "*" : glob;
  return matches_wildcards(pattern, path);
}

int64_t bytes_of(const std::vector<RemoteFile>& files) {
  int64_t bytes = 0;
  for (const RemoteFile& file : files) bytes += file.size_bytes;
  return bytes;
}

std::string first_names(const std::vector<std::string>& names) {
  constexpr size_t kMost = 5;
  const std::vector<std::string> some(
      names.begin(), names.begin() + static_cast<int64_t>(std::min(kMost, names.size())));
  return cat(join(some), names.size() > kMost ? cat(" and ", names.size() - kMost, " more") : "");
}

/// Of what is there already: which files are whole; the others are to be fetched.
std::vector<RemoteFile> missing_of(const std::vector<RemoteFile>& files, const OutFolder& out,
                                   bool overwrite) {
  std::vector<RemoteFile> missing;
  std::vector<std::string> other;
  const Work work("looking at what is there");
  for (const RemoteFile& file : files) {
    const auto open = out.open(file.path);
    const std::string place = (out.path() / file.path).string();
    if (open && is_that_file(*open, file, place)) continue;
    missing.push_back(file);
    if (open) other.push_back(file.path);
  }
  if (!other.empty() && !overwrite)
    throw ConfigError(problem(cat(first_names(other), other.size() == 1 ? " is" : " are",
                                  " there, and not as in the repository"))
                          .at(out.path().string())
                          .must("be replaced only when that is asked for")
                          .remedy("--overwrite replaces them; --out names another folder."));
  return missing;
}

void check_space(const std::vector<RemoteFile>& missing, const OutFolder& out) {
  const int64_t needed = bytes_of(missing);
  const int64_t free = free_space_bytes(out.path(), FailAs::data_error);
  if (needed <= free) return;
  throw DataError(
      problem(cat(human_bytes(needed), " are to be fetched, and ", human_bytes(free), " are free"))
          .at(out.path().string())
          .remedy("Free some space, fetch a part with --include, or choose another "
                  "folder with --out."));
}

/// Clients for whichever thread comes: their connections serve one file after another.
class Clients {
 public:
  explicit Clients(const Hub& hub) : hub_(hub) {}

  std::unique_ptr<HttpClient> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<HttpClient> client = std::move(idle_.back());
        idle_.pop_back();
        return client;
      }
    }
    return std::make_unique<HttpClient>(hub_);
  }
  void give_back(std::unique_ptr<HttpClient> client) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(client));
  }

 private:
  const Hub& hub_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<HttpClient>> idle_;
};

int64_t download_all(const Hub& hub, const FetchOptions& options, const std::string& commit,
                     const std::vector<RemoteFile>& missing, const OutFolder& out) {
  std::atomic<int64_t> resumed{0};
  std::atomic<bool> given_up{false};
  const DownloadFrom from{
      .hub = hub, .repository = options.repository, .commit = commit, .given_up = given_up};
  Clients clients(hub);
  const Work work(cat("fetching ", options.repository.text()), WorkUnit::bytes, bytes_of(missing));
  std::mutex mutex;
  std::exception_ptr first;  // the cause; what the others say then is a consequence
  in_parallel(static_cast<int64_t>(missing.size()), options.files_at_a_time, [&](int64_t i) {
    if (given_up) return;
    try {
      std::unique_ptr<HttpClient> client = clients.take();
      resumed += download(*client, from, missing[static_cast<size_t>(i)], out);
      clients.give_back(std::move(client));
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
      given_up = true;
    }
  });
  if (first) std::rethrow_exception(first);
  return resumed;
}

void check_online(const Hub& hub, const FetchOptions& options) {
  if (!hub.offline) return;
  throw ConfigError(
      problem(cat("HF_HUB_OFFLINE is set, and ", options.repository.text(), " is on the hub"))
          .at("tptrain fetch")
          .must("be unset to fetch")
          .remedy("Unset HF_HUB_OFFLINE, or copy a folder that was fetched on another "
                  "machine: model.path takes any."));
}

}  // namespace

Choice choose_files(const Listing& listing, const FetchOptions& options) {
  Choice choice;
  const auto any = [&](auto&& fits) {
    return std::any_of(listing.files.begin(), listing.files.end(),
                       [&](const RemoteFile& file) { return fits(file.path); });
  };
  const bool safetensors = options.repository.kind == RepositoryKind::model &&
                           any([](const auto& path) { return path.ends_with(".safetensors"); });
  const bool standard = any([](const auto& path) {
    return path == "model.safetensors" || path == "model.safetensors.index.json";
  });
  for (const std::string& glob : options.include) {
    if (any([&](const auto& path) { return matches(glob, path); })) continue;
    std::vector<std::string> names;
    for (const RemoteFile& file : listing.files) names.push_back(file.path);
    throw ConfigError(problem(cat("--include ", glob, " matches none of ", names.size(), " files"))
                          .at(options.repository.text())
                          .must("match at least one")
                          .remedy(cat("There are ", first_names(names), ".")));
  }
  for (const RemoteFile& file : listing.files) {
    const bool asked = std::any_of(options.include.begin(), options.include.end(),
                                   [&](const auto& glob) { return matches(glob, file.path); });
    if (asked || (options.include.empty() && !is_of_git(file.path) &&
                  !(safetensors && is_other_form(file.path, standard)))) {
      choice.files.push_back(file);
    } else if (options.include.empty() && !is_of_git(file.path)) {
      choice.left_out.push_back(file);
    }
  }
  if (choice.files.empty())
    throw ConfigError(problem("the repository holds no file").at(options.repository.text()));
  return choice;
}

Fetched fetch(const Hub& hub, const FetchOptions& options,
              const std::function<void(const std::string&)>& say) {
  check_online(hub, options);
  HttpClient http(hub);
  const Listing listing = list_repository(http, hub, options.repository);
  Choice choice = choose_files(listing, options);
  Fetched fetched{.commit = listing.commit,
                  .files = static_cast<int64_t>(choice.files.size()),
                  .bytes = bytes_of(choice.files)};
  constexpr size_t kShortCommit = 12;
  say(cat(options.repository.text(), " at ", options.repository.revision, " (",
          listing.commit.substr(0, kShortCommit), "): ", fetched.files,
          fetched.files == 1 ? " file, " : " files, ", human_bytes(fetched.bytes)));
  if (!choice.left_out.empty()) {
    std::vector<std::string> names;
    for (const RemoteFile& file : choice.left_out) names.push_back(file.path);
    say(cat("left out: ", first_names(names), " (", human_bytes(bytes_of(choice.left_out)),
            "), the weights in other forms; --include '*' takes all"));
  }
  const OutFolder out(options.out);
  std::vector<RemoteFile> missing = missing_of(choice.files, out, options.overwrite);
  fetched.files_there = fetched.files - static_cast<int64_t>(missing.size());
  check_space(missing, out);
  // The largest first: the last to end are small.
  std::stable_sort(missing.begin(), missing.end(), [](const RemoteFile& a, const RemoteFile& b) {
    return a.size_bytes > b.size_bytes;
  });
  fetched.bytes_resumed = download_all(hub, options, listing.commit, missing, out);
  return fetched;
}

}  // namespace tptrain::hub
