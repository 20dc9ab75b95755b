// For the files that hash by OpenSSL.
#pragma once

#include "base/error.h"
#include "base/text.h"

namespace tptrain {

/// Throws InternalError unless `result` is 1, which is what OpenSSL's calls return where they
/// worked.
inline void check_openssl(int result, const char* call) {
  if (result != 1) throw InternalError(problem(cat("OpenSSL: ", call, " failed")));
}

}  // namespace tptrain
