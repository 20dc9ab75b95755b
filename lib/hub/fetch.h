// tptrain fetch: files of a repository of the Hugging Face hub -> a folder. Several at a time; what
// was begun is gone on with; a file gets its name when its size and hash are those of the hub's
// list, and never before.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "hub/listing.h"
#include "hub/repository.h"

namespace tptrain::hub {

struct FetchOptions {
  Repository repository;
  std::vector<std::string> include;  // globs, as a shell's, whose * also takes /; empty: see chosen
  std::string out;
  bool overwrite = false;  // files that are there and differ are replaced
  int files_at_a_time = 4;
};

/// What of a listing is fetched, and what is left out though it may be large.
struct Choice {
  std::vector<RemoteFile> files;
  std::vector<RemoteFile> left_out;
};
/// With no glob: all, but of a model with .safetensors files not the same weights in other forms,
/// nor what git alone reads. Throws ConfigError where a glob matches nothing.
Choice choose_files(const Listing& listing, const FetchOptions& options);

struct Fetched {
  std::string commit;
  int64_t files = 0;
  int64_t bytes = 0;          // of all files
  int64_t files_there = 0;    // that were whole already
  int64_t bytes_resumed = 0;  // that earlier attempts had left
};
/// `say` gets a line for whoever waits. Shows its progress as work (base/work.h). Throws
/// ConfigError, DataError; what has come stays for the next attempt.
Fetched fetch(const Hub& hub, const FetchOptions& options,
              const std::function<void(const std::string&)>& say);

}  // namespace tptrain::hub
