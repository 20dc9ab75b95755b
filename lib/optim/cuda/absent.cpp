// A build without CUDA: no tensor is on CUDA, so nothing comes here.
#include "base/error.h"
#include "optim/cuda/element_update.h"

namespace tptrain::optim::cuda {

namespace {

[[noreturn]] void absent() {
  throw InternalError(problem("an update on CUDA was asked for in a build without CUDA"));
}

}  // namespace

template <typename Rule>
void begin(const Begin<Rule>&, Stream) {
  absent();
}
template <typename Rule>
void update(const Pass<Rule>&, Stream) {
  absent();
}
template <typename Rule>
void update_words(const Pass<Rule>&, const LaunchedRanges&, Stream) {
  absent();
}

#define TPTRAIN_INSTANTIATE(Rule)                  \
  template void begin(const Begin<Rule>&, Stream); \
  template void update(const Pass<Rule>&, Stream); \
  template void update_words(const Pass<Rule>&, const LaunchedRanges&, Stream);
TPTRAIN_ELEMENT_RULES(TPTRAIN_INSTANTIATE)
#undef TPTRAIN_INSTANTIATE

}  // namespace tptrain::optim::cuda
