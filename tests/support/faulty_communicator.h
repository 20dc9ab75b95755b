// A Communicator that does one thing wrong, for mutation tests: a suite that stays green with a
// fault in place proves nothing. It forwards to a real communicator and keeps the ranks in step: a
// collective that is left out is left out on every rank.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>

#include "support/forwarding_communicator.h"

namespace tptrain::testing {

struct Fault {
  enum class Call { none, all_reduce, reduce_scatter, all_gather, broadcast };
  enum class Kind {
    skip,     // the collective does not take place: each rank keeps, or copies, what is its own
    twice,    // an all_reduce takes place twice; the result of the others is doubled
    scale,    // the result is multiplied by `factor`
    perturb,  // `factor` is added to the first element of the result
  };

  Call call = Call::none;
  Kind kind = Kind::skip;
  double factor = 1.0;
  // Which of the calls of this kind are struck: the first to the last, counted from 0.
  int64_t first = 0;
  int64_t last = std::numeric_limits<int64_t>::max();

  static Fault skip_all_reduce() { return {.call = Call::all_reduce}; }
  static Fault skip_nth_all_reduce(int64_t n) {
    return {.call = Call::all_reduce, .first = n, .last = n};
  }
  static Fault twice_all_reduce() { return {.call = Call::all_reduce, .kind = Kind::twice}; }
  static Fault scale_all_reduce(double factor) {
    return {.call = Call::all_reduce, .kind = Kind::scale, .factor = factor};
  }
  static Fault scale_nth_all_reduce(int64_t n, double factor) {
    return {.call = Call::all_reduce, .kind = Kind::scale, .factor = factor, .first = n, .last = n};
  }
  static Fault perturb_all_reduce(double by) {
    return {.call = Call::all_reduce, .kind = Kind::perturb, .factor = by};
  }
  static Fault skip_reduce_scatter() { return {.call = Call::reduce_scatter}; }
  static Fault scale_reduce_scatter(double factor) {
    return {.call = Call::reduce_scatter, .kind = Kind::scale, .factor = factor};
  }
  static Fault skip_all_gather() { return {.call = Call::all_gather}; }
  static Fault perturb_all_gather(double by) {
    return {.call = Call::all_gather, .kind = Kind::perturb, .factor = by};
  }
  static Fault skip_broadcast() { return {.call = Call::broadcast}; }
};

class FaultyCommunicator final : public ForwardingCommunicator {
 public:
  FaultyCommunicator(comm::Communicator& real, const Fault& fault)
      : ForwardingCommunicator(real), fault_(fault) {}

  void all_reduce(at::Tensor& tensor, comm::ReduceOp op) override;
  void reduce_scatter(at::Tensor& output, const at::Tensor& input, comm::ReduceOp op) override;
  void all_gather(at::Tensor& output, const at::Tensor& input) override;
  void broadcast(at::Tensor& tensor, int root) override;
  // Those of the faulty kind take place at once, so that the fault strikes them as well.
  std::unique_ptr<comm::Work> start_reduce_scatter(at::Tensor& output, const at::Tensor& input,
                                                   comm::ReduceOp op) override;
  std::unique_ptr<comm::Work> start_all_gather(at::Tensor& output,
                                               const at::Tensor& input) override;

  /// How many calls the fault has struck: a mutation test checks that it is not 0.
  int64_t strikes() const { return strikes_; }

 private:
  bool struck(Fault::Call call);
  void spoil(at::Tensor& result) const;

  Fault fault_;
  int64_t calls_ = 0;  // of the faulty kind
  int64_t strikes_ = 0;
};

}  // namespace tptrain::testing
