// A build without cuDNN's graph interface: LibTorch's calls of cuDNN and FlashAttention-2 serve.
#include "kernels/cuda/cudnn_graph.h"

namespace tptrain::kernels::cuda {

bool has_cudnn_graphs() { return false; }

const CudnnAnswer& cudnn_graph(const CudnnAttention&, CudnnPass) {
  static const CudnnAnswer none = {.refusal =
                                       "this program was built without cuDNN's graph interface"};
  return none;
}

}  // namespace tptrain::kernels::cuda
