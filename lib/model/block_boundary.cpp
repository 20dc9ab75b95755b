#include "model/block_boundary.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "tensor_parallel/saved_pointer.h"

namespace tptrain::model {

namespace {

using tensor_parallel::BlockObserver;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum class Side { entry, exit };

class BlockBoundary : public torch::autograd::Function<BlockBoundary> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& residual,
                               const std::optional<at::Tensor>& delta, BlockObserver* observer,
                               int block, Side side) {
    ctx->set_materialize_grads(false);  // the anchor's gradient is undefined and stays so
    ctx->saved_data["observer"] = tensor_parallel::saved_pointer(observer);
    ctx->saved_data["block"] = int64_t{block};
    ctx->saved_data["is_entry"] = side == Side::entry;
    if (!delta) return {residual};
    return {residual, *delta};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    auto* observer = tensor_parallel::pointer_from<BlockObserver>(ctx->saved_data["observer"]);
    const int block = static_cast<int>(ctx->saved_data["block"].toInt());
    if (ctx->saved_data["is_entry"].toBool()) {
      observer->after_backward(block);
    } else {
      observer->before_backward(block);
    }
    return {grads[0], grads.size() > 1 ? grads[1] : at::Tensor(), {}, {}, {}};
  }
};

ResidualStream cross(const ResidualStream& stream, BlockObserver& observer, int block, Side side) {
  const std::optional<at::Tensor> delta =
      stream.delta.defined() ? std::optional(stream.delta) : std::nullopt;
  const variable_list out = BlockBoundary::apply(stream.residual, delta, &observer, block, side);
  return {.residual = out[0], .delta = out.size() > 1 ? out[1] : at::Tensor()};
}

}  // namespace

ResidualStream enter_block(const ResidualStream& stream, BlockObserver& observer, int block) {
  return cross(stream, observer, block, Side::entry);
}

ResidualStream leave_block(const ResidualStream& stream, BlockObserver& observer, int block) {
  return cross(stream, observer, block, Side::exit);
}

at::Tensor enter_block(const at::Tensor& tensor, BlockObserver& observer, int block) {
  return enter_block(ResidualStream{.residual = tensor, .delta = {}}, observer, block).residual;
}

at::Tensor leave_block(const at::Tensor& tensor, BlockObserver& observer, int block) {
  return leave_block(ResidualStream{.residual = tensor, .delta = {}}, observer, block).residual;
}

}  // namespace tptrain::model
