#include "formats/links.h"

#include <sys/stat.h>

#include <cerrno>
#include <system_error>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::formats {

void refuse_broken_link(const std::filesystem::path& path) {
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0 || !S_ISLNK(info.st_mode)) return;
  if (::stat(path.c_str(), &info) == 0) return;
  const int error = errno;
  if (error == ELOOP) {
    throw DataError(problem("this symbolic link leads in a circle")
                        .at(path.string())
                        .must("lead to a file")
                        .remedy("Replace it by the file, or download the model again."));
  }
  if (error != ENOENT && error != ENOTDIR) return;
  std::error_code ignored;
  const std::string target = std::filesystem::read_symlink(path, ignored).string();
  throw DataError(
      problem(cat("this symbolic link points to ", target, ", which does not exist"))
          .at(path.string())
          .must("lead to a file")
          .remedy("A link of the hub's cache needs the folder blobs/ beside snapshots/: "
                  "copy the model with cp -rL, or finish its download."));
}

}  // namespace tptrain::formats
