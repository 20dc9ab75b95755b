// Which program this is.
#pragma once

#include <string>

namespace tptrain::apps {

/// "tptrain 0.1.0 (CPU), commit 0123456789ab"; "-dirty" behind it where the tree had changes,
/// "unknown" where it had no history.
std::string program_version();

}  // namespace tptrain::apps
