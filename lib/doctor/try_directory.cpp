#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "doctor/facts.h"

namespace tptrain::doctor {
namespace {

namespace fs = std::filesystem;

// Linux, include/uapi/linux/magic.h, and those of file systems that are not part of it.
std::string file_system_of(const fs::path& path) {
  constexpr std::array<std::pair<int64_t, const char*>, 13> kNames = {{{0xEF53, "ext4"},
                                                                       {0x58465342, "xfs"},
                                                                       {0x9123683E, "btrfs"},
                                                                       {0x01021994, "tmpfs"},
                                                                       {0x794C7630, "overlay"},
                                                                       {0x6969, "nfs"},
                                                                       {0xFF534D42, "cifs"},
                                                                       {0x0BD00BD0, "lustre"},
                                                                       {0x47504653, "gpfs"},
                                                                       {0x19830326, "beegfs"},
                                                                       {0x00C36400, "ceph"},
                                                                       {0x2FC12FC1, "zfs"},
                                                                       {0x65735546, "fuse"}}};
  struct statfs facts {};
  if (::statfs(path.c_str(), &facts) != 0) return "";
  for (const auto& [magic, name] : kNames) {
    if (static_cast<int64_t>(facts.f_type) == magic) return name;
  }
  return "";
}

/// `path`, or the nearest folder above it that is there.
fs::path existing(fs::path path) {
  std::error_code failed;
  path = fs::absolute(path, failed);
  while (!fs::is_directory(path, failed) && path.has_relative_path()) path = path.parent_path();
  return path;
}

/// What a save does, with a file of 16 MiB. MiB/s.
double write_as_a_save(const fs::path& folder) {
  constexpr size_t kPiece = size_t{1} << 20;
  constexpr int kPieces = 16;
  const std::string piece(kPiece, 'x');
  const fs::path temporary = folder / "file.tmp";
  const auto begin = std::chrono::steady_clock::now();
  DurableFile file(temporary, FailAs::data_error);
  for (int i = 0; i < kPieces; ++i) file.write(piece);
  file.commit();
  rename_durably(temporary, folder / "file", FailAs::data_error);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return kPieces / std::max(seconds.count(), 1e-6);
}

}  // namespace

DirectoryFacts try_directory(const std::string& path) {
  DirectoryFacts facts{.path = path};
  const fs::path folder = existing(path);
  facts.file_system = file_system_of(folder);
  const fs::path own = folder / cat(".tptrain-doctor-", ::getpid());
  try {
    if (fs::exists(path) && !fs::is_directory(path))
      throw DataError(problem("this is no folder").at(path));
    fs::create_directory(own);
    facts.free_bytes = free_space_bytes(folder, FailAs::data_error);
    facts.write_mib_per_s = write_as_a_save(own);
    facts.no_locks = FileLock(own / "lock").not_supported();
  } catch (const std::exception& error) {
    facts.failed = error.what();
  }
  std::error_code ignored;
  fs::remove_all(own, ignored);
  return facts;
}

}  // namespace tptrain::doctor
