// An axis whose started collectives take place as late as the contract allows, when they are waited
// for: a result that is read too early, a buffer that is written too soon and a work that is never
// waited for become errors, where the CPU's communicators, which have no background, hide them. It
// also counts what has been started and what is still under way. For tensors on the CPU.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "support/forwarding_communicator.h"

namespace tptrain::testing {

class LateCommunicator final : public ForwardingCommunicator {
 public:
  /// `real` must outlive this object, and this object its works.
  explicit LateCommunicator(comm::Communicator& real) : ForwardingCommunicator(real) {}

  std::unique_ptr<comm::Work> start_reduce_scatter(at::Tensor& output, const at::Tensor& input,
                                                   comm::ReduceOp op) override;
  std::unique_ptr<comm::Work> start_all_gather(at::Tensor& output,
                                               const at::Tensor& input) override;

  int64_t started_reduce_scatters() const { return started_reduce_scatters_; }
  int64_t started_all_gathers() const { return started_all_gathers_; }
  /// Works that nobody has waited for yet.
  int64_t open_reduce_scatters() const { return open_reduce_scatters_; }
  int64_t open_all_gathers() const { return open_all_gathers_; }
  /// Breaches of the contract of started collectives.
  const std::vector<std::string>& complaints() const { return complaints_; }

 private:
  enum class Kind { reduce_scatter, all_gather };
  struct Started {
    int64_t number = 0;
    Kind kind = Kind::all_gather;
    at::Tensor output, input;
    at::Tensor input_at_start = {}, output_at_start = {};  // copies
    comm::ReduceOp op = comm::ReduceOp::sum;
  };
  class LateWork;
  std::unique_ptr<comm::Work> start(Started started);
  void run_up_to(int64_t number);
  void run(Started& started);
  void run_all();
  // What was started before takes place first: the ranks agree on the order of starts alone.
  void before_call() override { run_all(); }
  int64_t& open(Kind kind) {
    return kind == Kind::all_gather ? open_all_gathers_ : open_reduce_scatters_;
  }

  std::deque<Started> queue_;
  int64_t next_number_ = 0;
  int64_t started_reduce_scatters_ = 0;
  int64_t started_all_gathers_ = 0;
  int64_t open_reduce_scatters_ = 0;
  int64_t open_all_gathers_ = 0;
  std::vector<std::string> complaints_;
};

}  // namespace tptrain::testing
