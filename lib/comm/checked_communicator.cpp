#include "comm/checked_communicator.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::comm {

CheckedCommunicator::CheckedCommunicator(std::string name, int rank, int size,
                                         std::optional<at::Device> device, ProgressBoard* board)
    : name_(std::move(name)), rank_(rank), size_(size), device_(device), board_(board) {}

void CheckedCommunicator::write_on_board(const char* call, int64_t bytes) {
  if (board_ != nullptr) board_->collective(name_, call, bytes);
}

StepClock* CheckedCommunicator::clock() const {
  const bool on_host = !device_ || device_->is_cpu();
  return on_host && board_ != nullptr ? &board_->clock() : nullptr;
}

void CheckedCommunicator::check_tensor(const char* call, const char* argument,
                                       const at::Tensor& tensor, Elements elements) const {
  const std::string where = cat(name_, ": ", call);
  if (!tensor.defined()) {
    throw CommError(problem(cat(argument, " is undefined")).at(where).must("be a tensor"));
  }
  const at::ScalarType type = tensor.scalar_type();
  const bool number = type == at::kFloat || type == at::kBFloat16 || type == at::kLong;
  const bool byte = tensor.element_size() == 1;
  if (!number && !(byte && elements == Elements::moved)) {
    throw CommError(problem(cat(argument, " has dtype ", at::toString(type)))
                        .at(where)
                        .must(elements == Elements::moved
                                  ? "be Float, BFloat16, Long (int64) or of one byte"
                                  : "be Float, BFloat16 or Long (int64)"));
  }
  if (device_ && tensor.device() != *device_) {
    throw CommError(problem(cat(argument, " is on ", tensor.device().str()))
                        .at(where)
                        .must(cat("be on ", device_->str(), ", this axis's device")));
  }
  if (!tensor.is_contiguous()) {
    throw CommError(
        problem(cat(argument, " has shape [", join(tensor.sizes()), "] and strides [",
                    join(tensor.strides()), "]"))
            .at(where)
            .must("be contiguous")
            .remedy("A copy made here would lose the result: let the caller hold contiguous "
                    "memory."));
  }
}

void CheckedCommunicator::check_pieces(const char* call, const char* piece_name,
                                       const at::Tensor& piece, const char* whole_name,
                                       const at::Tensor& whole, Elements elements) const {
  const std::string where = cat(name_, ": ", call);
  check_tensor(call, piece_name, piece, elements);
  check_tensor(call, whole_name, whole, elements);
  if (piece.scalar_type() != whole.scalar_type()) {
    throw CommError(
        problem(cat(piece_name, " has dtype ", at::toString(piece.scalar_type())))
            .at(where)
            .must(cat("have the dtype of ", whole_name, ", ", at::toString(whole.scalar_type()))));
  }
  if (piece.numel() * size_ != whole.numel()) {
    throw CommError(problem(cat(whole_name, " has ", whole.numel(), " elements"))
                        .at(where)
                        .must(cat("have ", piece.numel() * size_, ": ", size_, " ranks times the ",
                                  piece.numel(), " of ", piece_name)));
  }
  const auto* piece_begin = static_cast<const char*>(piece.const_data_ptr());
  const auto* whole_begin = static_cast<const char*>(whole.const_data_ptr());
  const bool disjoint =
      piece_begin + bytes_of(piece) <= whole_begin || whole_begin + bytes_of(whole) <= piece_begin;
  if (!disjoint && piece_begin != whole_begin + rank_ * bytes_of(piece)) {
    throw CommError(
        problem(cat(piece_name, " overlaps ", whole_name, " ", piece_begin - whole_begin,
                    " bytes from its start"))
            .at(where)
            .must(cat("be memory of its own or exactly piece ", rank_, " of ", whole_name, ", ",
                      rank_ * bytes_of(piece), " bytes from its start")));
  }
}

void CheckedCommunicator::all_reduce(at::Tensor& tensor, ReduceOp op) {
  check_tensor("all_reduce", "tensor", tensor, Elements::reduced);
  write_on_board("all_reduce", bytes_of(tensor));
  ++counters_.all_reduces;
  counters_.bytes += bytes_of(tensor);
  const StepClock::In phase(clock(), StepPhase::communication);
  if (tensor.numel() > 0) run_all_reduce(tensor, op);
}

void CheckedCommunicator::admit_reduce_scatter(const at::Tensor& output, const at::Tensor& input) {
  check_pieces("reduce_scatter", "output", output, "input", input, Elements::reduced);
  write_on_board("reduce_scatter", bytes_of(input));
  ++counters_.reduce_scatters;
  counters_.bytes += bytes_of(input);
}

void CheckedCommunicator::admit_all_gather(const at::Tensor& output, const at::Tensor& input) {
  check_pieces("all_gather", "input", input, "output", output, Elements::moved);
  write_on_board("all_gather", bytes_of(output));
  ++counters_.all_gathers;
  counters_.bytes += bytes_of(output);
}

void CheckedCommunicator::reduce_scatter(at::Tensor& output, const at::Tensor& input, ReduceOp op) {
  admit_reduce_scatter(output, input);
  const StepClock::In phase(clock(), StepPhase::communication);
  if (input.numel() > 0) run_reduce_scatter(output, input, op);
}

void CheckedCommunicator::all_gather(at::Tensor& output, const at::Tensor& input) {
  admit_all_gather(output, input);
  const StepClock::In phase(clock(), StepPhase::communication);
  if (output.numel() > 0) run_all_gather(output, input);
}

std::unique_ptr<Work> CheckedCommunicator::start_reduce_scatter(at::Tensor& output,
                                                                const at::Tensor& input,
                                                                ReduceOp op) {
  admit_reduce_scatter(output, input);
  const StepClock::In phase(clock(), StepPhase::communication);
  return input.numel() > 0 ? run_start_reduce_scatter(output, input, op) : finished_work();
}

std::unique_ptr<Work> CheckedCommunicator::start_all_gather(at::Tensor& output,
                                                            const at::Tensor& input) {
  admit_all_gather(output, input);
  const StepClock::In phase(clock(), StepPhase::communication);
  return output.numel() > 0 ? run_start_all_gather(output, input) : finished_work();
}

std::unique_ptr<Work> CheckedCommunicator::run_start_reduce_scatter(at::Tensor& output,
                                                                    const at::Tensor& input,
                                                                    ReduceOp op) {
  run_reduce_scatter(output, input, op);
  return finished_work();
}

std::unique_ptr<Work> CheckedCommunicator::run_start_all_gather(at::Tensor& output,
                                                                const at::Tensor& input) {
  run_all_gather(output, input);
  return finished_work();
}

void CheckedCommunicator::broadcast(at::Tensor& tensor, int root) {
  check_tensor("broadcast", "tensor", tensor, Elements::moved);
  if (root < 0 || root >= size_) {
    throw CommError(problem(cat("root is ", root))
                        .at(cat(name_, ": broadcast"))
                        .must(cat("be a rank of this axis, 0 to ", size_ - 1)));
  }
  write_on_board("broadcast", bytes_of(tensor));
  ++counters_.broadcasts;
  counters_.bytes += bytes_of(tensor);
  const StepClock::In phase(clock(), StepPhase::communication);
  if (tensor.numel() > 0) run_broadcast(tensor, root);
}

void CheckedCommunicator::all_to_all(at::Tensor& output, const at::Tensor& input,
                                     at::IntArrayRef counts) {
  const char* call = "all_to_all";
  const std::string where = cat(name_, ": ", call);
  check_tensor(call, "output", output, Elements::moved);
  check_tensor(call, "input", input, Elements::moved);
  const auto size = static_cast<size_t>(size_);
  if (counts.size() != size * size ||
      std::ranges::any_of(counts, [](int64_t n) { return n < 0; })) {
    throw CommError(problem(cat("counts are ", join(counts)))
                        .at(where)
                        .must(cat("be ", size * size, " numbers that are not negative")));
  }
  if (input.scalar_type() != output.scalar_type()) {
    throw CommError(problem(cat("input has dtype ", at::toString(input.scalar_type())))
                        .at(where)
                        .must(cat("have that of output, ", at::toString(output.scalar_type()))));
  }
  int64_t sent = 0, received = 0, all = 0;
  for (int r = 0; r < size_; ++r) {
    sent += counts[static_cast<size_t>(rank_ * size_ + r)];
    received += counts[static_cast<size_t>(r * size_ + rank_)];
  }
  for (const int64_t count : counts) all += count;
  if (input.numel() != sent || output.numel() != received) {
    throw CommError(problem(cat("input has ", input.numel(), " elements, output ", output.numel()))
                        .at(where)
                        .must(cat("have ", sent, " and ", received, ", by counts")));
  }
  write_on_board(call, all * static_cast<int64_t>(input.element_size()));
  ++counters_.all_to_alls;
  counters_.bytes += all * static_cast<int64_t>(input.element_size());
  const StepClock::In phase(clock(), StepPhase::communication);
  if (all > 0) run_all_to_all(output, input, counts);
}

}  // namespace tptrain::comm
