#include "model/dropout.h"

#include "base/text.h"
#include "random/philox.h"

namespace tptrain::model {

kernels::Dropout DropoutNumbers::attention(int64_t layer, int64_t first_head) const {
  if (options_.attention == 0) return {};
  return {.probability = options_.attention,
          .key = random::philox_key(options_.seed, cat("dropout/step ", options_.step, "/layer ",
                                                       layer, "/attention probabilities")),
          .first_sample = options_.first_sample,
          .first_head = first_head};
}

kernels::Dropout DropoutNumbers::residual(int64_t layer, std::string_view site) const {
  if (options_.residual == 0) return {};
  return {.probability = options_.residual,
          .key = random::philox_key(
              options_.seed, cat("dropout/step ", options_.step, "/layer ", layer, "/", site)),
          .first_sample = options_.first_sample};
}

kernels::Dropout DropoutNumbers::adapter(int64_t layer, std::string_view linear) const {
  if (options_.adapter == 0) return {};
  return {.probability = options_.adapter,
          .key = random::philox_key(options_.seed, cat("dropout/step ", options_.step, "/layer ",
                                                       layer, "/adapter of ", linear)),
          .first_sample = options_.first_sample};
}

}  // namespace tptrain::model
