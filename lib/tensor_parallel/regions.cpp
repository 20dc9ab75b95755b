#include "tensor_parallel/regions.h"

#include <torch/csrc/autograd/custom_function.h>

#include "tensor_parallel/saved_pointer.h"

namespace tptrain::tensor_parallel {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CopyToRegion : public torch::autograd::Function<CopyToRegion> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& replicated,
                            comm::Communicator* tp) {
    ctx->saved_data["tp"] = saved_pointer(tp);
    return replicated;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::Tensor grad = grads[0].contiguous();
    pointer_from<comm::Communicator>(ctx->saved_data["tp"])->all_reduce(grad, comm::ReduceOp::sum);
    return {grad, {}};
  }
};

class ReduceFromRegion : public torch::autograd::Function<ReduceFromRegion> {
 public:
  static at::Tensor forward(AutogradContext* ctx, at::Tensor partial, comm::Communicator* tp) {
    ctx->mark_dirty({partial});
    tp->all_reduce(partial, comm::ReduceOp::sum);
    return partial;
  }

  static variable_list backward(AutogradContext*, const variable_list& grads) {
    return {grads[0], {}};
  }
};

}  // namespace

at::Tensor copy_to_region(const at::Tensor& replicated, comm::Communicator& tp) {
  if (tp.size() == 1) return replicated;
  return CopyToRegion::apply(replicated, &tp);
}

at::Tensor reduce_from_region(const at::Tensor& partial, comm::Communicator& tp) {
  if (tp.size() == 1) return partial;
  return ReduceFromRegion::apply(partial, &tp);
}

}  // namespace tptrain::tensor_parallel
