// The name that git gives to a file's contents: SHA-1 of "blob SIZE\0" and the contents. Tells what
// a repository says lies in it; not a protection against those who want two contents of one name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace tptrain {

class GitBlobHash {
 public:
  /// `size_bytes` is that of the whole contents, which come in pieces.
  explicit GitBlobHash(int64_t size_bytes);
  ~GitBlobHash();
  GitBlobHash(const GitBlobHash&) = delete;
  GitBlobHash& operator=(const GitBlobHash&) = delete;
  void update(const void* bytes, size_t count);
  /// 40 lower-case hex digits; the object is spent afterwards.
  std::string hex();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain
