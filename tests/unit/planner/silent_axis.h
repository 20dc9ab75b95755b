// A tp axis of several ranks in one process: it has a rank and a size, its collectives leave what
// this rank would have contributed. The numbers of a model on it are wrong, its memory is right.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "comm/communicator.h"

namespace tptrain::testing {

class SilentAxis final : public comm::Communicator {
 public:
  SilentAxis(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& name() const override { return name_; }
  void all_reduce(at::Tensor&, comm::ReduceOp) override {}
  void reduce_scatter(at::Tensor& output, const at::Tensor& input, comm::ReduceOp) override {
    const at::Tensor flat = input.view({-1});
    output.view({-1}).copy_(flat.narrow(0, rank_ * output.numel(), output.numel()));
  }
  void all_gather(at::Tensor& output, const at::Tensor& input) override {
    output.zero_();
    output.view({-1}).narrow(0, rank_ * input.numel(), input.numel()).copy_(input.view({-1}));
  }
  void broadcast(at::Tensor&, int) override {}
  void all_to_all(at::Tensor& output, const at::Tensor&, at::IntArrayRef) override {
    output.zero_();
  }
  void barrier() override {}

 private:
  int rank_;
  int size_;
  std::string name_ = "tp";
};

}  // namespace tptrain::testing
