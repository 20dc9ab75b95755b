// What the hub says lies in a repository: a commit, and of each file its path, size and hash.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hub/http.h"
#include "hub/repository.h"

namespace tptrain::hub {

struct RemoteFile {
  std::string path = {};  // "tokenizer.json", "original/params.json"
  int64_t size_bytes = 0;
  std::string hash = {};  // SHA-256 of the contents (64 digits), or git's name of them (40)
};

struct Listing {
  std::string commit;  // 40 digits: what the revision is now
  std::vector<RemoteFile> files;
};

/// Throws ConfigError where the hub refuses, DataError where it cannot be reached or its answer is
/// none that may be trusted: a path that leads out of a folder, a hash that is none.
Listing list_repository(HttpClient& http, const Hub& hub, const Repository& repository);

/// Why a path of a listing must not become one of ours; "" where it may.
std::string fault_of_path(const std::string& path);

/// Where the hub has a file of that commit.
std::string file_url(const Hub& hub, const Repository& repository, const std::string& commit,
                     const std::string& path);

}  // namespace tptrain::hub
