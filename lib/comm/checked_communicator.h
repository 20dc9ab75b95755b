// What every backend has in common: arguments are checked before anything is sent, and calls are
// counted. A backend implements the run_ functions and may rely on the checks. Internal to comm.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/progress_board.h"
#include "comm/communicator.h"

namespace tptrain::comm {

inline int64_t bytes_of(const at::Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size());
}

class CheckedCommunicator : public Communicator {
 public:
  /// `device`: where tensors must be; none: anywhere. `board`: gets each collective before it
  /// begins; may be null, else outlives this.
  CheckedCommunicator(std::string name, int rank, int size, std::optional<at::Device> device,
                      ProgressBoard* board);

  int rank() const final { return rank_; }
  int size() const final { return size_; }
  const std::string& name() const final { return name_; }

  void all_reduce(at::Tensor& tensor, ReduceOp op) final;
  void reduce_scatter(at::Tensor& output, const at::Tensor& input, ReduceOp op) final;
  void all_gather(at::Tensor& output, const at::Tensor& input) final;
  void broadcast(at::Tensor& tensor, int root) final;
  void all_to_all(at::Tensor& output, const at::Tensor& input, at::IntArrayRef counts) final;
  std::unique_ptr<Work> start_reduce_scatter(at::Tensor& output, const at::Tensor& input,
                                             ReduceOp op) final;
  std::unique_ptr<Work> start_all_gather(at::Tensor& output, const at::Tensor& input) final;

 protected:
  // Called with at least one element; contiguous, one of fp32, bf16, int64 (what is moved alone
  // also of one byte), on the device; pieces disjoint or exactly in place.
  virtual void run_all_reduce(at::Tensor& tensor, ReduceOp op) = 0;
  virtual void run_reduce_scatter(at::Tensor& output, const at::Tensor& input, ReduceOp op) = 0;
  virtual void run_all_gather(at::Tensor& output, const at::Tensor& input) = 0;
  virtual void run_broadcast(at::Tensor& tensor, int root) = 0;
  virtual void run_all_to_all(at::Tensor& output, const at::Tensor& input,
                              at::IntArrayRef counts) = 0;
  // For backends with a background; else the work is done at once.
  virtual std::unique_ptr<Work> run_start_reduce_scatter(at::Tensor& output,
                                                         const at::Tensor& input, ReduceOp op);
  virtual std::unique_ptr<Work> run_start_all_gather(at::Tensor& output, const at::Tensor& input);

  /// Where a call holds the host up until it is done, its time is communication.
  StepClock* clock() const;
  /// On the progress board, as what this rank is about to begin; `call` is a literal.
  void write_on_board(const char* call, int64_t bytes);
  /// What a call does with elements: bytes can be moved, but not be added up.
  enum class Elements { moved, reduced };
  void check_tensor(const char* call, const char* argument, const at::Tensor& tensor,
                    Elements elements) const;

 private:
  // Arguments checked, the call counted.
  void admit_reduce_scatter(const at::Tensor& output, const at::Tensor& input);
  void admit_all_gather(const at::Tensor& output, const at::Tensor& input);
  void check_pieces(const char* call, const char* piece_name, const at::Tensor& piece,
                    const char* whole_name, const at::Tensor& whole, Elements elements) const;

  std::string name_;
  int rank_;
  int size_;
  std::optional<at::Device> device_;
  ProgressBoard* board_;
};

}  // namespace tptrain::comm
