// A Communicator that passes every call on to another one: what tests change of an axis derives
// from it and overrides that alone.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"

namespace tptrain::testing {

class ForwardingCommunicator : public comm::Communicator {
 public:
  /// `real` must outlive this object.
  explicit ForwardingCommunicator(comm::Communicator& real) : real_(real) {}

  int rank() const override { return real_.rank(); }
  int size() const override { return real_.size(); }
  const std::string& name() const override { return real_.name(); }

  void all_reduce(at::Tensor& tensor, comm::ReduceOp op) override {
    before_call();
    real_.all_reduce(tensor, op);
    take_counters();
  }
  void reduce_scatter(at::Tensor& output, const at::Tensor& input, comm::ReduceOp op) override {
    before_call();
    real_.reduce_scatter(output, input, op);
    take_counters();
  }
  void all_gather(at::Tensor& output, const at::Tensor& input) override {
    before_call();
    real_.all_gather(output, input);
    take_counters();
  }
  void broadcast(at::Tensor& tensor, int root) override {
    before_call();
    real_.broadcast(tensor, root);
    take_counters();
  }
  void all_to_all(at::Tensor& output, const at::Tensor& input, at::IntArrayRef counts) override {
    before_call();
    real_.all_to_all(output, input, counts);
    take_counters();
  }
  void barrier() override {
    before_call();
    real_.barrier();
  }
  std::unique_ptr<comm::Work> start_reduce_scatter(at::Tensor& output, const at::Tensor& input,
                                                   comm::ReduceOp op) override {
    std::unique_ptr<comm::Work> work = real_.start_reduce_scatter(output, input, op);
    take_counters();
    return work;
  }
  std::unique_ptr<comm::Work> start_all_gather(at::Tensor& output,
                                               const at::Tensor& input) override {
    std::unique_ptr<comm::Work> work = real_.start_all_gather(output, input);
    take_counters();
    return work;
  }

 protected:
  /// Before each call that is done when it returns.
  virtual void before_call() {}
  void take_counters() { counters_ = real_.counters(); }

  comm::Communicator& real_;
};

}  // namespace tptrain::testing
