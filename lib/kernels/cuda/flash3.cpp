#include "kernels/cuda/flash3.h"

#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "kernels/cuda/flash3_instances.h"

namespace tptrain::kernels::cuda {

[[noreturn]] void flash3_refused(const char* why) {
  throw InternalError(problem(cat("kernels: FlashAttention-3: ", why)));
}

bool has_flash3() { return true; }

bool takes_flash3(const Flash3& args, int capability) {
  // Its code is of sm_90a, which no other card runs; it counts the elements of a sequence in int32.
  return capability == 90 && (args.head_dim == 64 || args.head_dim == 128) &&
         args.filled_positions() * args.batch <= std::numeric_limits<int32_t>::max() &&
         args.filled_positions() * args.heads * args.head_dim <=
             std::numeric_limits<int32_t>::max();
}

void flash3_forward(const Flash3& args, Stream stream) {
  args.head_dim == 64 ? flash3_forward_of<64>(args, stream) : flash3_forward_of<128>(args, stream);
}

void flash3_backward(const Flash3& args, Stream stream) {
  const bool groups = args.heads != args.kv_heads;
  if (args.head_dim == 64)
    groups ? flash3_backward_of<64, true>(args, stream)
           : flash3_backward_of<64, false>(args, stream);
  else
    groups ? flash3_backward_of<128, true>(args, stream)
           : flash3_backward_of<128, false>(args, stream);
}

}  // namespace tptrain::kernels::cuda
