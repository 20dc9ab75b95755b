#include "model/dropout.h"

#include "base/philox.h"
#include "base/text.h"

namespace tptrain::model {

kernels::Dropout DropoutNumbers::attention(int64_t layer, int64_t first_head) const {
  if (options_.attention == 0) return {};
  return {.probability = options_.attention,
          .key = philox_key(options_.seed, cat("dropout/step ", options_.step, "/layer ", layer,
                                               "/attention probabilities")),
          .first_sample = options_.first_sample,
          .first_head = first_head};
}

kernels::Dropout DropoutNumbers::residual(int64_t layer, std::string_view site) const {
  if (options_.residual == 0) return {};
  return {.probability = options_.residual,
          .key = philox_key(options_.seed,
                            cat("dropout/step ", options_.step, "/layer ", layer, "/", site)),
          .first_sample = options_.first_sample};
}

}  // namespace tptrain::model
