// One file of a repository -> its place in a folder: begun, broken, resumed, checked.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "hub/http.h"
#include "hub/listing.h"
#include "hub/out_folder.h"

namespace tptrain::hub {

/// SHA-256 or git's name of the contents, as the listing gives.
class ContentHash {
 public:
  explicit ContentHash(const RemoteFile& file);
  ~ContentHash();
  ContentHash(ContentHash&&) noexcept;
  ContentHash& operator=(ContentHash&&) noexcept;
  void update(const void* bytes, size_t count);
  std::string hex();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Whether an open file is the one of the listing, byte for byte.
bool is_that_file(const Handle& open, const RemoteFile& file, const std::string& name);

struct DownloadFrom {
  const Hub& hub;
  const Repository& repository;
  std::string commit;
  const std::atomic<bool>& given_up;  // another file failed for good
};

/// The name of what is unfinished of a file: another for other contents.
std::string unfinished_name(const RemoteFile& file);

/// Fetches `file` into `out`. Returns the bytes that were there from an earlier attempt.
int64_t download(HttpClient& http, const DownloadFrom& from, const RemoteFile& file,
                 const OutFolder& out);

}  // namespace tptrain::hub
