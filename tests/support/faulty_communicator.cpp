#include "support/faulty_communicator.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace tptrain::testing {

using comm::ReduceOp;

bool FaultyCommunicator::struck(Fault::Call call) {
  if (call != fault_.call) return false;
  const int64_t index = calls_++;
  if (index < fault_.first || index > fault_.last) return false;
  ++strikes_;
  return true;
}

void FaultyCommunicator::spoil(at::Tensor& result) const {
  const at::NoGradGuard no_grad;
  if (fault_.kind == Fault::Kind::twice) result.mul_(2);
  if (fault_.kind == Fault::Kind::scale) result.mul_(fault_.factor);
  if (fault_.kind == Fault::Kind::perturb && result.numel() > 0) {
    result.view({-1})[0].add_(fault_.factor);
  }
}

void FaultyCommunicator::all_reduce(at::Tensor& tensor, ReduceOp op) {
  const bool faulty = struck(Fault::Call::all_reduce);
  if (faulty && fault_.kind == Fault::Kind::skip) return;
  ForwardingCommunicator::all_reduce(tensor, op);
  if (faulty && fault_.kind == Fault::Kind::twice) ForwardingCommunicator::all_reduce(tensor, op);
  if (faulty && fault_.kind != Fault::Kind::twice) spoil(tensor);
}

void FaultyCommunicator::reduce_scatter(at::Tensor& output, const at::Tensor& input, ReduceOp op) {
  const bool faulty = struck(Fault::Call::reduce_scatter);
  if (faulty && fault_.kind == Fault::Kind::skip) {
    const at::NoGradGuard no_grad;
    const at::Tensor own = input.view({size(), -1})[rank()];
    if (own.data_ptr() != output.data_ptr()) output.copy_(own.view(output.sizes()));
    return;
  }
  ForwardingCommunicator::reduce_scatter(output, input, op);
  if (faulty) spoil(output);
}

void FaultyCommunicator::all_gather(at::Tensor& output, const at::Tensor& input) {
  const bool faulty = struck(Fault::Call::all_gather);
  if (faulty && fault_.kind == Fault::Kind::skip) {
    const at::NoGradGuard no_grad;
    at::Tensor own = output.view({size(), -1})[rank()];
    if (own.data_ptr() != input.data_ptr()) own.copy_(input.view({-1}));
    return;
  }
  ForwardingCommunicator::all_gather(output, input);
  if (faulty) spoil(output);
}

void FaultyCommunicator::broadcast(at::Tensor& tensor, int root) {
  const bool faulty = struck(Fault::Call::broadcast);
  if (faulty && fault_.kind == Fault::Kind::skip) return;
  ForwardingCommunicator::broadcast(tensor, root);
  if (faulty) spoil(tensor);
}

std::unique_ptr<comm::Work> FaultyCommunicator::start_reduce_scatter(at::Tensor& output,
                                                                     const at::Tensor& input,
                                                                     ReduceOp op) {
  if (fault_.call == Fault::Call::reduce_scatter) {
    reduce_scatter(output, input, op);
    return comm::finished_work();
  }
  return ForwardingCommunicator::start_reduce_scatter(output, input, op);
}

std::unique_ptr<comm::Work> FaultyCommunicator::start_all_gather(at::Tensor& output,
                                                                 const at::Tensor& input) {
  if (fault_.call == Fault::Call::all_gather) {
    all_gather(output, input);
    return comm::finished_work();
  }
  return ForwardingCommunicator::start_all_gather(output, input);
}

}  // namespace tptrain::testing
