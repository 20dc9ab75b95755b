#include "version.h"

#include "commit.h"

namespace tptrain::apps {

std::string program_version() {
  return "tptrain " TPTRAIN_VERSION " (" TPTRAIN_BACKENDS "), commit " TPTRAIN_COMMIT;
}

}  // namespace tptrain::apps
