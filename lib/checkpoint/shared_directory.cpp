#include "checkpoint/shared_directory.h"

#include <system_error>
#include <thread>

#include "base/cause.h"
#include "base/error.h"
#include "base/files.h"
#include "base/host.h"
#include "base/random_id.h"
#include "base/text.h"
#include "checkpoint/manifest.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;

namespace {

void write_nonce(const fs::path& run_dir, const fs::path& file, const std::string& nonce) {
  try {
    create_directories_durably(run_dir, FailAs::run_dir_error);
    write_file_atomically(file, nonce, FailAs::run_dir_error);
  } catch (const ConfigError& e) {
    throw unwritable_run_dir(run_dir, e);
  }
}

bool sees_nonce(const fs::path& file, const std::string& nonce,
                std::chrono::milliseconds patience) {
  const auto give_up = std::chrono::steady_clock::now() + patience;
  while (true) {
    std::error_code error;
    if (fs::exists(file, error))
      return read_file(file, /*limit_bytes=*/1024, FailAs::run_dir_error) == nonce;
    if (std::chrono::steady_clock::now() >= give_up) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace

ConfigError unwritable_run_dir(const fs::path& run_dir, const ConfigError& reason) {
  return ConfigError(
      problem(cat("run_dir ", run_dir.string(), " cannot be written: ", cause_of(reason)))
          .must("be a directory this user may write to")
          .remedy("Set run_dir to another directory, or mend its permissions."));
}

void check_shared_directory(comm::ControlGroup& group, const fs::path& run_dir,
                            const SharedDirectoryOptions& options) {
  const std::string nonce = group.broadcast(group.rank() == 0 ? random_id() : "", 0);
  const std::string first_host = group.broadcast(group.rank() == 0 ? host_name() : "", 0);
  const fs::path file = run_dir / cat(".shared-", nonce);
  comm::agree(group, [&] {
    if (group.rank() == 0) write_nonce(run_dir, file, nonce);
  });
  // A nonce that cannot be removed is a small hidden file left behind, no reason to refuse the run.
  const auto remove_nonce = [&] {
    std::error_code ignored;
    if (group.rank() == 0) fs::remove(file, ignored);
  };
  try {
    comm::agree(group, [&] {
      if (sees_nonce(file, nonce, options.patience)) return;
      throw ConfigError(
          problem(cat("run_dir ", run_dir.string(),
                      " is not on a file system shared by all hosts: rank ", group.rank(), " on ",
                      host_name(), " does not see the file that rank 0 on ", first_host,
                      " wrote there"))
              .remedy("Set run_dir to a directory that every host mounts (NFS, Lustre, ...)."));
    });
  } catch (...) {
    remove_nonce();
    throw;
  }
  remove_nonce();
}

}  // namespace tptrain::checkpoint
