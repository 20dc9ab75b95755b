// A build without the sources of FlashAttention-3.
#include "base/error.h"
#include "kernels/cuda/flash3.h"

namespace tptrain::kernels::cuda {

bool has_flash3() { return false; }
bool takes_flash3(const Flash3&, int) { return false; }
void flash3_forward(const Flash3&, Stream) {
  throw InternalError(problem("FlashAttention-3 was asked for in a build without it"));
}
void flash3_backward(const Flash3& args, Stream stream) { flash3_forward(args, stream); }

}  // namespace tptrain::kernels::cuda
