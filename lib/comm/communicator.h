// Collectives on tensors over one axis of the mesh. Backends: shared memory or MPI for CPU tensors,
// NCCL for CUDA tensors, one rank (everything is the identity). Contract of every function: each
// rank of the axis calls it in the same order with the same sizes and dtype (shared memory throws
// where they differ; the others may hang); tensors are contiguous and on this communicator's
// device; fp32, bf16 and int64. Results are bitwise the same on every rank and in every identical
// run; the maximum of a NaN is unspecified. On CUDA the result is ordered behind the work of the
// current stream and the current stream is ordered behind the result; the host does not block
// (except in barrier). Throws CommError, before anything is sent where an argument is wrong.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "comm/reduce_op.h"

namespace tptrain::comm {

/// What a communicator has done so far: tests count collectives with it, metrics report it.
struct CommCounters {
  int64_t all_reduces = 0;
  int64_t reduce_scatters = 0;
  int64_t all_gathers = 0;
  int64_t broadcasts = 0;
  int64_t all_to_alls = 0;
  int64_t pushes = 0;  // of these all-gathers and reduce_scatters, by copy engines
  int64_t bytes = 0;   // of the full (gathered or unreduced) tensor of each call; of an all_to_all:
                       // of what all ranks send
};

/// A collective that start_all_gather or start_reduce_scatter has begun. Wait for each: one that is
/// dropped unwaited leaves its result without an order.
class Work {
 public:
  virtual ~Work() = default;
  /// Orders the current stream behind the result; on CUDA the host does not block. May be called
  /// again.
  virtual void wait() = 0;
};
/// One whose result is there already.
std::unique_ptr<Work> finished_work();

/// An all-gather along dim 0 whose pieces may be used as they come. Destroying it says that `whole`
/// is no longer read: behind what the current stream has been given by then.
class PiecewiseGather {
 public:
  virtual ~PiecewiseGather() = default;
  /// [size * n, ..] of pieces [n, ..]: valid as far as it was waited for.
  virtual const at::Tensor& whole() const = 0;
  /// Orders the current stream behind the piece of `rank`. May be called again.
  virtual void wait(int rank) = 0;
  /// Whether pieces come one by one, so that work on the first may begin before the last is there.
  virtual bool in_pieces() const = 0;
};

/// A reduce_scatter (sum) along dim 0 whose pieces leave as they are made. Every part is written
/// and sent, then finish() is called, once each.
class PiecewiseReduce {
 public:
  virtual ~PiecewiseReduce() = default;
  /// [size * n, ..]: where this rank's terms go; part r, [n, ..], belongs to the sum of rank r.
  virtual const at::Tensor& whole() const = 0;
  /// Part `rank` has been written, by what the current stream was given until now.
  virtual void send(int rank) = 0;
  virtual bool in_pieces() const = 0;
  /// This rank's piece of the sum, [n, ..]; the current stream is ordered behind it.
  virtual at::Tensor finish() = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Axis name for messages: "tp", "dp", "world".
  virtual const std::string& name() const = 0;

  /// In place.
  virtual void all_reduce(at::Tensor& tensor, ReduceOp op) = 0;
  /// output: 1/size of input's elements; rank r gets the r-th contiguous piece of the sum. output
  /// may be that piece of input itself (in place).
  virtual void reduce_scatter(at::Tensor& output, const at::Tensor& input, ReduceOp op) = 0;
  /// output: size times input's elements; piece r comes from rank r. input may be that piece of
  /// output itself (in place).
  virtual void all_gather(at::Tensor& output, const at::Tensor& input) = 0;
  virtual void broadcast(at::Tensor& tensor, int root) = 0;
  /// Each rank has something for each. `counts` [size * size], the same on every rank: rank s sends
  /// counts[s * size + r] elements to rank r. input: this rank's parts for ranks 0, 1, ..; output:
  /// the parts for this rank from ranks 0, 1, ..; each without gaps, in memory of their own.
  virtual void all_to_all(at::Tensor& output, const at::Tensor& input, at::IntArrayRef counts) = 0;
  virtual void barrier() = 0;

  // The same collectives, begun now and done by the time of Work::wait(), so that what the current
  // stream is given in between runs beside them. They read what the current stream has queued
  // before the start. Until wait() the buffers stay alive and untouched, the input too. Starts and
  // blocking calls of one axis come in the same order on every rank; waits in any. Where a backend
  // has no background the call is done when it returns.
  virtual std::unique_ptr<Work> start_reduce_scatter(at::Tensor& output, const at::Tensor& input,
                                                     ReduceOp op);
  virtual std::unique_ptr<Work> start_all_gather(at::Tensor& output, const at::Tensor& input);

  /// Begins to gather `input` [n, ..], which the caller leaves untouched and may let go of. At most
  /// two of an axis are alive at a time beside the one begun last.
  virtual std::unique_ptr<PiecewiseGather> gather_in_pieces(const at::Tensor& input);
  /// `piece`: sizes [n, ..] of one rank's part.
  virtual std::unique_ptr<PiecewiseReduce> reduce_in_pieces(at::IntArrayRef piece,
                                                            const at::TensorOptions& options);

  /// Throws CommError where a collective that was given to the device has failed since (a link that
  /// is gone). For whoever waits for the device: such a collective never ends.
  virtual void throw_if_failed() {}

  const CommCounters& counters() const { return counters_; }

 protected:
  /// What gather_in_pieces and reduce_in_pieces may give where it is quicker to wait for the whole.
  std::unique_ptr<PiecewiseGather> gather_at_once(const at::Tensor& input);
  std::unique_ptr<PiecewiseReduce> reduce_at_once(at::IntArrayRef piece,
                                                  const at::TensorOptions& options);

  CommCounters counters_;
};

/// The axis of one rank: collectives are copies or nothing at all.
std::unique_ptr<Communicator> single_rank_communicator(std::string name);

/// Has a rank and a size but throws InternalError on any collective: to lay out a model for a rank
/// that is not there (tptrain plan, unit tests).
std::unique_ptr<Communicator> planning_communicator(std::string name, int rank, int size);

}  // namespace tptrain::comm
