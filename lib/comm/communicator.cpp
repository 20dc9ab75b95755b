// What a backend without a background does with a collective that is only to be started, and one
// without pieces with a collective that may come in pieces.
#include "comm/communicator.h"

#include <ATen/Functions.h>

#include <exception>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::comm {

namespace {

class FinishedWork final : public Work {
 public:
  void wait() override {}
};

std::vector<int64_t> times(at::IntArrayRef piece, int64_t ranks) {
  std::vector<int64_t> sizes = piece.vec();
  sizes.at(0) *= ranks;
  return sizes;
}

// Whether the current stream goes on beside a collective, or waits for it where it begins.
enum class Runs { beside, at_once };

// For destructors, which must not throw: they run in the wake of an exception above all, and it is
// the one to be told. A device that failed says so at the next call as well.
void wait_at_the_end(Work& work) noexcept {
  try {
    work.wait();
  } catch (const std::exception&) {
  }
}

class WholeGather final : public PiecewiseGather {
 public:
  WholeGather(Communicator& axis, Runs runs, at::Tensor input)
      : input_(std::move(input)),
        whole_(at::empty(times(input_.sizes(), axis.size()), input_.options())) {
    if (runs == Runs::beside) {
      work_ = axis.start_all_gather(whole_, input_);
    } else {
      axis.all_gather(whole_, input_);
      work_ = finished_work();
    }
  }
  // Until the result is there both tensors are in use: their memory must not go to another.
  ~WholeGather() override { wait_at_the_end(*work_); }
  const at::Tensor& whole() const override { return whole_; }
  void wait(int) override {
    work_->wait();
    input_.reset();
  }
  bool in_pieces() const override { return false; }

 private:
  at::Tensor input_;
  at::Tensor whole_;
  std::unique_ptr<Work> work_;
};

class WholeReduce final : public PiecewiseReduce {
 public:
  WholeReduce(Communicator& axis, Runs runs, at::IntArrayRef piece,
              const at::TensorOptions& options)
      : axis_(axis),
        runs_(runs),
        whole_(at::empty(times(piece, axis.size()), options)),
        result_(at::empty(piece, options)) {}
  ~WholeReduce() override {
    if (work_) wait_at_the_end(*work_);
  }
  const at::Tensor& whole() const override { return whole_; }
  void send(int) override {
    if (++sent_ < axis_.size()) return;
    if (runs_ == Runs::beside) {
      work_ = axis_.start_reduce_scatter(result_, whole_, ReduceOp::sum);
    } else {
      axis_.reduce_scatter(result_, whole_, ReduceOp::sum);
      work_ = finished_work();
    }
  }
  bool in_pieces() const override { return false; }
  at::Tensor finish() override {
    if (!work_) {
      throw InternalError(problem(cat(axis_.name(), ": a reduction ends with ", sent_, " of ",
                                      axis_.size(), " parts sent")));
    }
    work_->wait();
    work_.reset();
    whole_.reset();
    return std::move(result_);
  }

 private:
  Communicator& axis_;
  Runs runs_;
  at::Tensor whole_;
  at::Tensor result_;
  int sent_ = 0;
  std::unique_ptr<Work> work_;
};

}  // namespace

std::unique_ptr<Work> finished_work() { return std::make_unique<FinishedWork>(); }

std::unique_ptr<Work> Communicator::start_reduce_scatter(at::Tensor& output,
                                                         const at::Tensor& input, ReduceOp op) {
  reduce_scatter(output, input, op);
  return finished_work();
}

std::unique_ptr<Work> Communicator::start_all_gather(at::Tensor& output, const at::Tensor& input) {
  all_gather(output, input);
  return finished_work();
}

std::unique_ptr<PiecewiseGather> Communicator::gather_in_pieces(const at::Tensor& input) {
  return std::make_unique<WholeGather>(*this, Runs::beside, input);
}

std::unique_ptr<PiecewiseReduce> Communicator::reduce_in_pieces(at::IntArrayRef piece,
                                                                const at::TensorOptions& options) {
  return std::make_unique<WholeReduce>(*this, Runs::beside, piece, options);
}

std::unique_ptr<PiecewiseGather> Communicator::gather_at_once(const at::Tensor& input) {
  return std::make_unique<WholeGather>(*this, Runs::at_once, input);
}

std::unique_ptr<PiecewiseReduce> Communicator::reduce_at_once(at::IntArrayRef piece,
                                                              const at::TensorOptions& options) {
  return std::make_unique<WholeReduce>(*this, Runs::at_once, piece, options);
}

}  // namespace tptrain::comm
