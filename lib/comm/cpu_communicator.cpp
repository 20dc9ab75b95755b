#include "comm/cpu_communicator.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/text.h"
#include "comm/all_to_all_parts.h"
#include "comm/checked_communicator.h"
#include "comm/reduce.h"
#include "comm/shared_memory.h"

namespace tptrain::comm {

namespace {

Element element_of(const at::Tensor& tensor) {
  const at::ScalarType type = tensor.scalar_type();
  return type == at::kFloat ? Element::fp32 : type == at::kLong ? Element::int64 : Element::bf16;
}

class SharedMemoryCommunicator final : public CheckedCommunicator {
 public:
  SharedMemoryCommunicator(MpiGroup& group, std::unique_ptr<SharedMemory> memory)
      : CheckedCommunicator(group.name(), group.rank(), group.size(), at::Device(at::kCPU),
                            group.board()),
        memory_(std::move(memory)) {}
  void barrier() override {
    write_on_board("barrier", 0);
    memory_->barrier();
  }

 private:
  void run_all_reduce(at::Tensor& tensor, ReduceOp op) override {
    memory_->all_reduce(tensor.data_ptr(), tensor.numel(), element_of(tensor), op);
  }
  void run_reduce_scatter(at::Tensor& output, const at::Tensor& input, ReduceOp op) override {
    memory_->reduce_scatter(output.data_ptr(), input.const_data_ptr(), output.numel(),
                            element_of(output), op);
  }
  void run_all_gather(at::Tensor& output, const at::Tensor& input) override {
    memory_->all_gather(output.data_ptr(), input.const_data_ptr(), bytes_of(input));
  }
  void run_broadcast(at::Tensor& tensor, int root) override {
    memory_->broadcast(tensor.data_ptr(), bytes_of(tensor), root);
  }
  void run_all_to_all(at::Tensor& output, const at::Tensor& input,
                      at::IntArrayRef counts) override {
    memory_->all_to_all(output.data_ptr(), input.const_data_ptr(), counts,
                        static_cast<int64_t>(input.element_size()));
  }

  std::unique_ptr<SharedMemory> memory_;
};

// MPI knows no bf16: terms travel as 16-bit words and are combined by these, each pair in fp32 and
// rounded.
template <ReduceOp op>
void combine_bf16(void* in, void* in_out, int* count, MPI_Datatype*) {
  const void* sources[] = {in, in_out};
  reduce_elements(in_out, sources, 2, *count, Element::bf16, op);
}

class Bf16Op {
 public:
  Bf16Op(MPI_User_function* combine, std::string_view group) {
    check_mpi(MPI_Op_create(combine, /*commute=*/1, &op_), "MPI_Op_create", group);
  }
  ~Bf16Op() { MPI_Op_free(&op_); }
  Bf16Op(const Bf16Op&) = delete;
  Bf16Op& operator=(const Bf16Op&) = delete;
  MPI_Op handle() const { return op_; }

 private:
  MPI_Op op_ = MPI_OP_NULL;
};

class MpiCommunicator final : public CheckedCommunicator {
 public:
  MpiCommunicator(MpiGroup& group, int64_t max_elements_per_call)
      : CheckedCommunicator(group.name(), group.rank(), group.size(), at::Device(at::kCPU),
                            group.board()),
        group_(group),
        max_elements_(max_elements_per_call),
        bf16_sum_(&combine_bf16<ReduceOp::sum>, group.name()),
        bf16_max_(&combine_bf16<ReduceOp::max>, group.name()) {}
  void barrier() override { group_.barrier(); }

 private:
  MPI_Op op_of(const at::Tensor& tensor, ReduceOp op) const {
    const bool sum = op == ReduceOp::sum;
    if (tensor.scalar_type() == at::kBFloat16) return (sum ? bf16_sum_ : bf16_max_).handle();
    return sum ? MPI_SUM : MPI_MAX;
  }
  static MPI_Datatype type_of(const at::Tensor& tensor) {
    if (tensor.element_size() == 1) return MPI_BYTE;
    switch (element_of(tensor)) {
      case Element::fp32:
        return MPI_FLOAT;
      case Element::bf16:
        return MPI_UINT16_T;
      case Element::int64:
        return MPI_INT64_T;
    }
    return MPI_DATATYPE_NULL;
  }
  void check(int code, std::string_view call) const { check_mpi(code, call, name()); }

  // Calls each(first element, count as MPI wants it) until `total` elements are done.
  template <typename Each>
  void in_rounds(int64_t total, const Each& each) const {
    for (int64_t done = 0; done < total; done += max_elements_) {
      each(done, static_cast<int>(std::min(max_elements_, total - done)));
    }
  }

  void run_all_reduce(at::Tensor& tensor, ReduceOp op) override {
    char* data = static_cast<char*>(tensor.data_ptr());
    in_rounds(tensor.numel(), [&](int64_t first, int count) {
      check(MPI_Allreduce(MPI_IN_PLACE, data + first * tensor.element_size(), count,
                          type_of(tensor), op_of(tensor, op), group_.handle()),
            "MPI_Allreduce");
    });
  }

  void run_reduce_scatter(at::Tensor& output, const at::Tensor& input, ReduceOp op) override {
    const int64_t count = output.numel();
    const int64_t width = output.element_size();
    const char* from = static_cast<const char*>(input.const_data_ptr());
    char* to = static_cast<char*>(output.data_ptr());
    // MPI's own in-place form leaves piece 0 in front on every rank and spoils the rest; ours needs
    // memory of its own.
    const bool in_place = to == from + rank() * count * width;
    std::vector<char> apart;
    if (in_place) {
      apart.resize(count * width);
      to = apart.data();
    }
    if (count <= max_elements_) {
      check(MPI_Reduce_scatter_block(from, to, static_cast<int>(count), type_of(output),
                                     op_of(output, op), group_.handle()),
            "MPI_Reduce_scatter_block");
    } else {
      for (int r = 0; r < size(); ++r) {
        in_rounds(count, [&](int64_t first, int n) {
          check(MPI_Reduce(from + (r * count + first) * width, to + first * width, n,
                           type_of(output), op_of(output, op), r, group_.handle()),
                "MPI_Reduce");
        });
      }
    }
    if (in_place) std::copy(apart.begin(), apart.end(), static_cast<char*>(output.data_ptr()));
  }

  void run_all_gather(at::Tensor& output, const at::Tensor& input) override {
    const int64_t count = input.numel();
    const int64_t width = input.element_size();
    const void* from = input.const_data_ptr();
    char* to = static_cast<char*>(output.data_ptr());
    char* own = to + rank() * count * width;
    const bool in_place = own == from;
    if (count <= max_elements_) {
      const int n = static_cast<int>(count);
      check(MPI_Allgather(in_place ? MPI_IN_PLACE : from, n, type_of(output), to, n,
                          type_of(output), group_.handle()),
            "MPI_Allgather");
      return;
    }
    if (!in_place) std::copy_n(static_cast<const char*>(from), count * width, own);
    for (int r = 0; r < size(); ++r) {
      in_rounds(count, [&](int64_t first, int n) {
        check(MPI_Bcast(to + (r * count + first) * width, n, type_of(output), r, group_.handle()),
              "MPI_Bcast");
      });
    }
  }

  void run_broadcast(at::Tensor& tensor, int root) override {
    char* data = static_cast<char*>(tensor.data_ptr());
    in_rounds(tensor.numel(), [&](int64_t first, int count) {
      check(MPI_Bcast(data + first * tensor.element_size(), count, type_of(tensor), root,
                      group_.handle()),
            "MPI_Bcast");
    });
  }

  // Round by round with one rank after the other. All make as many rounds, of nothing towards the
  // end of a short part: each receive has its send.
  void run_all_to_all(at::Tensor& output, const at::Tensor& input,
                      at::IntArrayRef counts) override {
    const AllToAllParts parts(counts, rank(), size());
    const int64_t width = input.element_size();
    const char* from = static_cast<const char*>(input.const_data_ptr());
    char* to = static_cast<char*>(output.data_ptr());
    for (int shift = 0; shift < size(); ++shift) {
      const auto target = static_cast<size_t>((rank() + shift) % size());
      const auto source = static_cast<size_t>((rank() - shift + size()) % size());
      in_rounds(parts.largest, [&](int64_t first, int) {
        const auto count_of = [&](int64_t whole) {
          return static_cast<int>(std::clamp<int64_t>(whole - first, 0, max_elements_));
        };
        check(MPI_Sendrecv(from + (parts.send_begin[target] + first) * width,
                           count_of(parts.sent[target]), type_of(input), static_cast<int>(target),
                           0, to + (parts.receive_begin[source] + first) * width,
                           count_of(parts.received[source]), type_of(output),
                           static_cast<int>(source), 0, group_.handle(), MPI_STATUS_IGNORE),
              "MPI_Sendrecv");
      });
    }
  }

  MpiGroup& group_;
  int64_t max_elements_;
  Bf16Op bf16_sum_;
  Bf16Op bf16_max_;
};

}  // namespace

CpuBackend cpu_communicator(MpiGroup& group, Waiting waiting, const CpuOptions& options) {
  std::string why_not = "as requested";
  if (options.transport == CpuTransport::automatic) {
    auto memory = SharedMemory::create(
        group, group.name(), {.slot_bytes = options.slot_bytes, .waiting = waiting}, &why_not);
    if (memory) {
      return {std::make_unique<SharedMemoryCommunicator>(group, std::move(memory)),
              "shared memory"};
    }
    why_not = cat("no shared memory, ", why_not);
  }
  return {std::make_unique<MpiCommunicator>(group, options.max_elements_per_call),
          cat("MPI (", why_not, ")")};
}

}  // namespace tptrain::comm
