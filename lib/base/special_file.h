// A path that is about to be opened for appending, and may be something at which that waits for
// ever.
#pragma once

#include <filesystem>

namespace tptrain {

/// Throws ConfigError where `path` names a FIFO or a socket. Devices, as /dev/null, are taken.
void refuse_special_file(const std::filesystem::path& path);

}  // namespace tptrain
