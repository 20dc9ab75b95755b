#include "base/special_file.h"

#include <system_error>

#include "base/error.h"
#include "base/text.h"

namespace tptrain {

void refuse_special_file(const std::filesystem::path& path) {
  std::error_code ignored;  // whoever opens it says what is wrong with it
  const std::filesystem::file_status status = std::filesystem::status(path, ignored);
  const bool fifo = std::filesystem::is_fifo(status);
  if (!fifo && !std::filesystem::is_socket(status)) return;
  throw ConfigError(
      problem(cat("there is a ", fifo ? "FIFO" : "socket", " of this name"))
          .at(path.string())
          .must("be a regular file: the run would wait until somebody reads the other end")
          .remedy("Remove it; the run makes the file. To follow a run, use tail -f on the file."));
}

}  // namespace tptrain
