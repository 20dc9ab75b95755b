// Kernels that need scratch memory or a sort, captured in a CUDA graph: a replay gives the bits of
// the eager call, for what the inputs hold then, not for what they held at capture.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <functional>
#include <vector>

#include "kernels/kernels.h"
#include "support/catch.h"

using namespace tptrain::kernels;

namespace {

at::TensorOptions cuda(at::ScalarType type) {
  return at::TensorOptions(at::Device("cuda")).dtype(type);
}

/// Work on tensors made before: what it writes is compared.
struct Operation {
  const char* name;
  std::function<void()> randomise;  // the inputs, in place
  std::function<std::vector<at::Tensor>()> run;
};

std::vector<Operation> operations() {
  const at::Tensor x = at::empty({600, 1, 896}, cuda(at::kBFloat16)), grad = at::empty_like(x),
                   weight = at::ones({896}, cuda(at::kBFloat16));
  const at::Tensor ids = at::empty({600}, cuda(at::kLong));
  const at::Tensor logits = at::empty({600, 1024}, cuda(at::kBFloat16)).narrow(1, 0, 1003);
  const at::Tensor heads = at::empty({600, 1, 10 * 64}, cuda(at::kBFloat16)),
                   head_input = at::empty({600, 1, 9 * 64}, cuda(at::kBFloat16));
  const at::Tensor scale = at::full({}, 0.01, cuda(at::kFloat));
  const HeadNorm norm = {.q_weight = weight.narrow(0, 0, 64).contiguous(),
                         .k_weight = weight.narrow(0, 0, 64).contiguous(),
                         .eps = 1e-6};
  const AttentionShape shape = {.heads = 8, .kv_heads = 1, .head_dim = 64};
  const auto zeros = [](int64_t size) { return at::zeros({size}, cuda(at::kFloat)); };
  return {
      {"norm", [=] { x.normal_(), grad.normal_(); },
       [=] {
         const RmsNormResult result = rms_norm(x, weight, 1e-6);
         at::Tensor weight_grad = zeros(896);
         const at::Tensor grad_x =
             rms_norm_backward(grad, x, weight, result.inverse_rms, weight_grad);
         return std::vector<at::Tensor>{result.output, grad_x, weight_grad};
       }},
      {"head norm", [=] { heads.normal_(), head_input.normal_(); },
       [=] {
         at::Tensor received = heads.clone(), q_grad = zeros(64), k_grad = zeros(64);
         head_rms_norm_backward_(received, head_input, norm, shape, q_grad, k_grad);
         return std::vector<at::Tensor>{received, q_grad, k_grad};
       }},
      {"embedding", [=] { ids.random_(0, 100), grad.normal_(); },
       [=] {
         at::Tensor table_grad = at::zeros({60, 896}, cuda(at::kFloat));
         accumulate_embedding_gradient(table_grad, grad.view({600, 896}), ids,
                                       {.begin = 20, .vocab = 100});
         return std::vector<at::Tensor>{table_grad};
       }},
      {"bias", [=] { grad.normal_(); },
       [=] {
         at::Tensor bias_grad = zeros(896);
         accumulate_bias_gradient(bias_grad, grad);
         return std::vector<at::Tensor>{bias_grad};
       }},
      {"cross entropy", [=] { logits.normal_(), ids.random_(0, 1003); },
       [=] {
         at::Tensor rows = logits.clone();
         const VocabStatistics statistics = vocab_statistics_(rows, ids, 0);
         const at::Tensor sums = cross_entropy_sums(statistics.sums, statistics.row_max, ids);
         vocab_softmax_backward_(rows, statistics.sums, statistics.row_max, ids, 0, scale, 1e-4);
         return std::vector<at::Tensor>{sums, rows};
       }},
  };
}

}  // namespace

TEST_CASE("a replay gives the bits of the eager call, on new inputs", "[kernels]") {
  const c10::cuda::CUDAStreamGuard guard(at::cuda::getStreamFromPool());
  for (const Operation& operation : operations()) {
    CAPTURE(operation.name);
    operation.randomise();
    operation.run();  // what the first call sets up
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    const std::vector<at::Tensor> replayed = operation.run();
    graph.capture_end();
    for (int repeat = 0; repeat < 3; ++repeat) {
      operation.randomise();
      const std::vector<at::Tensor> eager = operation.run();
      graph.replay();
      for (size_t i = 0; i < eager.size(); ++i) CHECK(replayed[i].equal(eager[i]));
    }
  }
}
