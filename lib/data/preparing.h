// One process at a time makes a token file; others of the same host or of others wait for it and
// then find it.
#pragma once

#include <filesystem>
#include <string>

namespace tptrain::data {

class PreparingLock {
 public:
  /// Waits until no other process holds the lock of `stem` (a token file without its extension);
  /// what that one writes meanwhile counts as progress here. Where the file system knows no locks
  /// there is none: the files are written under names of their own, and the last one stays. Throws
  /// DataError where the lock's file cannot be made. The directory must exist.
  explicit PreparingLock(const std::filesystem::path& stem);
  ~PreparingLock();
  PreparingLock(const PreparingLock&) = delete;
  PreparingLock& operator=(const PreparingLock&) = delete;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// Removes what killed processes have left of token files in `directory`: temporaries whose lock
/// nobody holds.
void remove_abandoned(const std::filesystem::path& directory);

}  // namespace tptrain::data
