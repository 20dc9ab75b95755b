#include "base/random_id.h"

#include <sys/random.h>

#include <cerrno>

#include "base/error.h"
#include "base/hex.h"

namespace tptrain {

uint64_t random_word() {
  uint64_t value = 0;
  while (::getrandom(&value, sizeof value, 0) != sizeof value) {
    if (errno != EINTR) throw InternalError(problem("getrandom failed"));
  }
  return value;
}

std::string random_id() { return to_hex(random_word(), 16) + to_hex(random_word(), 16); }

}  // namespace tptrain
