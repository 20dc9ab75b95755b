#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "doctor/facts.h"

namespace tptrain::doctor {
namespace {

namespace fs = std::filesystem;

// Linux, include/uapi/linux/magic.h, and those of file systems that are not part of it.
void look_at_file_system(const fs::path& path, DirectoryFacts& facts) {
  struct Known {
    int64_t magic;
    const char* name;
    std::optional<bool> of_all_hosts;
  };
  constexpr std::array<Known, 14> kKnown = {{{0xEF53, "ext4", false},
                                             {0x58465342, "xfs", false},
                                             {0x9123683E, "btrfs", false},
                                             {0x2FC12FC1, "zfs", false},
                                             {0x01021994, "tmpfs", false},
                                             {0x794C7630, "overlay", false},
                                             {0x6969, "nfs", true},
                                             {0xFF534D42, "cifs", true},
                                             {0xFE534D42, "smb2", true},
                                             {0x0BD00BD0, "lustre", true},
                                             {0x47504653, "gpfs", true},
                                             {0x19830326, "beegfs", true},
                                             {0x00C36400, "ceph", true},
                                             {0x65735546, "fuse", std::nullopt}}};
  struct statfs found {};
  if (::statfs(path.c_str(), &found) != 0) return;
  for (const Known& known : kKnown) {
    if (static_cast<int64_t>(found.f_type) != known.magic) continue;
    facts.file_system = known.name;
    facts.of_all_hosts = known.of_all_hosts;
  }
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
  look_at_file_system(folder, facts);
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
