// The two communicators that talk to nobody: the axis of one rank, and the stand-in for a rank that
// is not there.
#include <ATen/core/grad_mode.h>

#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "comm/checked_communicator.h"
#include "comm/communicator.h"

namespace tptrain::comm {

namespace {

// A sum over one rank is its only term: at most a copy is left to do.
class SingleRankCommunicator final : public CheckedCommunicator {
 public:
  explicit SingleRankCommunicator(std::string name)
      : CheckedCommunicator(std::move(name), 0, 1, std::nullopt, nullptr) {}
  void barrier() override {}

 private:
  void run_all_reduce(at::Tensor&, ReduceOp) override {}
  void run_reduce_scatter(at::Tensor& output, const at::Tensor& input, ReduceOp) override {
    copy(output, input);
  }
  void run_all_gather(at::Tensor& output, const at::Tensor& input) override { copy(output, input); }
  void run_broadcast(at::Tensor&, int) override {}
  void run_all_to_all(at::Tensor& output, const at::Tensor& input, at::IntArrayRef) override {
    copy(output, input);
  }

  static void copy(at::Tensor& output, const at::Tensor& input) {
    if (output.data_ptr() == input.data_ptr()) return;
    const at::NoGradGuard no_grad;
    output.copy_(input.view(output.sizes()));
  }
};

class PlanningCommunicator final : public Communicator {
 public:
  PlanningCommunicator(std::string name, int rank, int size)
      : name_(std::move(name)), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& name() const override { return name_; }
  void all_reduce(at::Tensor&, ReduceOp) override { refuse("all_reduce"); }
  void reduce_scatter(at::Tensor&, const at::Tensor&, ReduceOp) override {
    refuse("reduce_scatter");
  }
  void all_gather(at::Tensor&, const at::Tensor&) override { refuse("all_gather"); }
  void broadcast(at::Tensor&, int) override { refuse("broadcast"); }
  void all_to_all(at::Tensor&, const at::Tensor&, at::IntArrayRef) override {
    refuse("all_to_all");
  }
  void barrier() override { refuse("barrier"); }

 private:
  [[noreturn]] void refuse(const char* call) const {
    throw InternalError(problem(cat(call, " on a planning communicator"))
                            .at(cat(name_, " rank ", rank_, "/", size_))
                            .must("only lay out a model, never run it"));
  }

  std::string name_;
  int rank_;
  int size_;
};

}  // namespace

std::unique_ptr<Communicator> single_rank_communicator(std::string name) {
  return std::make_unique<SingleRankCommunicator>(std::move(name));
}

std::unique_ptr<Communicator> planning_communicator(std::string name, int rank, int size) {
  return std::make_unique<PlanningCommunicator>(std::move(name), rank, size);
}

}  // namespace tptrain::comm
