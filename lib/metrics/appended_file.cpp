#include "metrics/appended_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/interrupted_call.h"
#include "base/special_file.h"
#include "base/text.h"

namespace tptrain::metrics {

namespace {

[[noreturn]] void throw_errno(const std::filesystem::path& path, std::string_view call,
                              int error = errno) {
  throw DataError(problem(cat(call, " failed: ", std::strerror(error)))
                      .at(path.string())
                      .remedy(error == ENOSPC || error == EDQUOT
                                  ? "Free space on this file system."
                                  : "Check that run_dir exists and may be written to."));
}

}  // namespace

AppendedFile::AppendedFile(const std::filesystem::path& path) : path_(path) {
  refuse_special_file(path);
  descriptor_ = until_not_interrupted(
      [&] { return ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666); });
  if (descriptor_ < 0) throw_errno(path, "open");
}

AppendedFile::~AppendedFile() { ::close(descriptor_); }

int AppendedFile::cut_at(int64_t end) const {
  return until_not_interrupted([&] { return ::ftruncate(descriptor_, end); });
}

void AppendedFile::append(std::string_view record) {
  if (whole_until_ && cut_at(*whole_until_) != 0) throw_errno(path_, "ftruncate");
  whole_until_.reset();
  const off_t end = ::lseek(descriptor_, 0, SEEK_END);  // -1 where it is no regular file
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t count = ::write(descriptor_, record.data() + done, record.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      if (end >= 0 && done > 0 && cut_at(end) != 0) whole_until_ = end;
      throw_errno(path_, "write", error);
    }
    done += static_cast<size_t>(count);
  }
}

}  // namespace tptrain::metrics
