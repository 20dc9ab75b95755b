#include "mpi/zero/late_communicator.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/text.h"

namespace tptrain::testing {
namespace {

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  // As bytes: nan equals nan.
  return at::equal(a.view({-1}).view(at::kByte), b.view({-1}).view(at::kByte));
}

}  // namespace

class LateCommunicator::LateWork final : public comm::Work {
 public:
  LateWork(LateCommunicator& owner, Kind kind, int64_t number)
      : owner_(owner), kind_(kind), number_(number) {}
  ~LateWork() override {
    if (!waited_) owner_.complaints_.push_back(cat("work ", number_, " was dropped unwaited"));
  }
  void wait() override {
    owner_.run_up_to(number_);
    if (!std::exchange(waited_, true)) --owner_.open(kind_);
  }

 private:
  LateCommunicator& owner_;
  Kind kind_;
  int64_t number_;
  bool waited_ = false;
};

std::unique_ptr<comm::Work> LateCommunicator::start_reduce_scatter(at::Tensor& output,
                                                                   const at::Tensor& input,
                                                                   comm::ReduceOp op) {
  ++started_reduce_scatters_;
  return start({.kind = Kind::reduce_scatter, .output = output, .input = input, .op = op});
}

std::unique_ptr<comm::Work> LateCommunicator::start_all_gather(at::Tensor& output,
                                                               const at::Tensor& input) {
  ++started_all_gathers_;
  return start({.kind = Kind::all_gather, .output = output, .input = input});
}

std::unique_ptr<comm::Work> LateCommunicator::start(Started started) {
  started.number = next_number_++;
  started.input_at_start = started.input.clone();
  started.output_at_start = started.output.clone();
  auto work = std::make_unique<LateWork>(*this, started.kind, started.number);
  ++open(started.kind);
  queue_.push_back(std::move(started));
  return work;
}

void LateCommunicator::run_up_to(int64_t number) {
  while (!queue_.empty() && queue_.front().number <= number) {
    Started next = std::move(queue_.front());
    queue_.pop_front();
    run(next);
  }
}

void LateCommunicator::run_all() { run_up_to(next_number_); }

void LateCommunicator::run(Started& started) {
  if (!same_bytes(started.input, started.input_at_start))
    complaints_.push_back(cat("the input of work ", started.number, " was written meanwhile"));
  if (!same_bytes(started.output, started.output_at_start))
    complaints_.push_back(cat("the output of work ", started.number, " was written meanwhile"));
  if (started.kind == Kind::all_gather) {
    real_.all_gather(started.output, started.input);
  } else {
    real_.reduce_scatter(started.output, started.input, started.op);
  }
  counters_ = real_.counters();
}

}  // namespace tptrain::testing
