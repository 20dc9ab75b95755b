// What every communicator must do, whatever carries it: the same checks run over MPI, over shared
// memory, over NCCL and on one rank. Values are small integers where a result is compared exactly
// (exact in bf16 too), and awkward fractions where only equality between ranks counts.
#pragma once

#include <ATen/ATen.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/communicator.h"
#include "support/catch.h"

namespace tptrain::testing {

using comm::Communicator;
using comm::ReduceOp;

inline const std::vector<at::ScalarType>& all_types() {
  static const std::vector<at::ScalarType> types{at::kFloat, at::kBFloat16, at::kLong};
  return types;
}

// Lengths of a piece: one element, less than a cache line, not a multiple of anything, several
// rounds of the small slots that the tests use.
inline const std::vector<int64_t>& all_lengths() {
  static const std::vector<int64_t> lengths{1, 7, 4099, 50021};
  return lengths;
}

/// [n]: -8 .. 8, another sequence on each rank; sums over 8 ranks stay exact in bf16.
inline at::Tensor integers(int64_t n, int rank, at::ScalarType type, at::Device device) {
  const at::Tensor values = (at::arange(n, at::kLong) * (rank + 1) + 3 * rank).remainder(17) - 8;
  return values.to(type).to(device);
}

/// [n]: fractions whose sum depends on the order in which they are added.
inline at::Tensor fractions(int64_t n, int rank, at::ScalarType type, at::Device device) {
  const at::Tensor x = at::arange(n, at::kDouble) + 0.1 + rank;
  return (at::sin(x * 12.9898) * at::exp(at::cos(x * 78.233) * 6)).to(type).to(device);
}

/// The exact sum or maximum over ranks 0 .. size-1 of integers(n, rank).
inline at::Tensor expected_reduction(int64_t n, int size, ReduceOp op, at::ScalarType type,
                                     at::Device device) {
  at::Tensor result = integers(n, 0, at::kLong, at::kCPU);
  for (int r = 1; r < size; ++r) {
    const at::Tensor next = integers(n, r, at::kLong, at::kCPU);
    result = op == ReduceOp::sum ? result + next : at::maximum(result, next);
  }
  return result.to(type).to(device);
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor left = a.cpu();
  const at::Tensor right = b.cpu();
  if (left.numel() != right.numel() || left.scalar_type() != right.scalar_type()) return false;
  // A tensor without elements has no address, and memcmp takes none.
  return left.nbytes() == 0 ||
         std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
}

inline void check_all_reduce(Communicator& comm, at::Device device) {
  for (const at::ScalarType type : all_types()) {
    for (const int64_t n : all_lengths()) {
      for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max}) {
        INFO(comm.name() << " " << at::toString(type) << " n " << n);
        at::Tensor x = integers(n, comm.rank(), type, device);
        comm.all_reduce(x, op);
        CHECK(same_bits(x, expected_reduction(n, comm.size(), op, type, device)));
      }
    }
  }
}

inline void check_reduce_scatter(Communicator& comm, at::Device device) {
  for (const at::ScalarType type : all_types()) {
    for (const int64_t n : all_lengths()) {
      for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max}) {
        INFO(comm.name() << " " << at::toString(type) << " n " << n);
        const int64_t whole = n * comm.size();
        const at::Tensor expected =
            expected_reduction(whole, comm.size(), op, type, device).narrow(0, n * comm.rank(), n);
        const at::Tensor input = integers(whole, comm.rank(), type, device);
        const at::Tensor before = input.clone();
        at::Tensor output = at::zeros({n}, input.options());
        comm.reduce_scatter(output, input, op);
        CHECK(same_bits(output, expected));
        CHECK(same_bits(input, before));

        at::Tensor own_piece = input.narrow(0, n * comm.rank(), n);  // in place
        comm.reduce_scatter(own_piece, input, op);
        CHECK(same_bits(own_piece, expected));
      }
    }
  }
}

inline void check_all_gather(Communicator& comm, at::Device device) {
  for (const at::ScalarType type : all_types()) {
    for (const int64_t n : all_lengths()) {
      INFO(comm.name() << " " << at::toString(type) << " n " << n);
      std::vector<at::Tensor> pieces;
      for (int r = 0; r < comm.size(); ++r) pieces.push_back(integers(n, r, type, device));
      const at::Tensor expected = at::cat(pieces);
      const at::Tensor input = integers(n, comm.rank(), type, device);
      at::Tensor output = at::zeros({n * comm.size()}, input.options());
      comm.all_gather(output, input);
      CHECK(same_bits(output, expected));

      at::Tensor in_place = at::zeros({n * comm.size()}, input.options());
      in_place.narrow(0, n * comm.rank(), n).copy_(input);
      comm.all_gather(in_place, in_place.narrow(0, n * comm.rank(), n));
      CHECK(same_bits(in_place, expected));
    }
  }
}

/// What is moved and not added up may be of one byte: FP8 as well.
inline void check_bytes(Communicator& comm, at::Device device) {
  for (const at::ScalarType type : {at::kByte, at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    for (const int64_t n : all_lengths()) {
      INFO(comm.name() << " " << at::toString(type) << " n " << n);
      const auto of_rank = [&](int64_t rank) {
        const at::Tensor values = at::arange(n, at::TensorOptions(at::kLong).device(device));
        return values.mul(rank + 3).remainder(251).to(at::kByte);
      };
      std::vector<at::Tensor> pieces;
      for (int r = 0; r < comm.size(); ++r) pieces.push_back(of_rank(r));
      at::Tensor output = at::zeros({n * comm.size()}, pieces[0].options()).view(type);
      comm.all_gather(output, of_rank(comm.rank()).view(type));
      CHECK(output.view(at::kByte).equal(at::cat(pieces)));
      at::Tensor x = of_rank(comm.rank()).view(type);
      comm.broadcast(x, comm.size() - 1);
      CHECK(x.view(at::kByte).equal(of_rank(comm.size() - 1)));
    }
  }
}

inline void check_broadcast(Communicator& comm, at::Device device) {
  for (const at::ScalarType type : all_types()) {
    for (const int64_t n : all_lengths()) {
      for (int root = 0; root < comm.size(); ++root) {
        INFO(comm.name() << " " << at::toString(type) << " n " << n << " root " << root);
        at::Tensor x = integers(n, comm.rank(), type, device);
        comm.broadcast(x, root);
        CHECK(same_bits(x, integers(n, root, type, device)));
      }
    }
  }
}

/// Parts of unlike sizes, none among them, whatever they are made of.
inline void check_all_to_all(Communicator& comm, at::Device device) {
  const int size = comm.size();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kLong, at::kByte}) {
    for (const int64_t n : all_lengths()) {
      INFO(comm.name() << " " << at::toString(type) << " n " << n);
      std::vector<int64_t> counts;
      for (int s = 0; s < size; ++s) {
        for (int r = 0; r < size; ++r) counts.push_back((s + 2 * r) % 3 * n + (s > r ? 1 : 0));
      }
      const auto part = [&](int s, int r) {
        return integers(counts[static_cast<size_t>(s * size + r)], s * size + r, at::kLong,
                        at::kCPU)
            .abs()
            .to(type)
            .to(device);
      };
      std::vector<at::Tensor> sent, expected;
      for (int r = 0; r < size; ++r) {
        sent.push_back(part(comm.rank(), r));
        expected.push_back(part(r, comm.rank()));
      }
      const at::Tensor input = at::cat(sent);
      at::Tensor output = at::zeros_like(at::cat(expected));
      comm.all_to_all(output, input, counts);
      CHECK(same_bits(output, at::cat(expected)));
      CHECK(same_bits(input, at::cat(sent)));
    }
  }
  // Nothing for others: the ranks stay in step.
  std::vector<int64_t> own(static_cast<size_t>(size * size), 0);
  for (int r = 0; r < size; ++r) own[static_cast<size_t>(r * size + r)] = 5;
  const at::Tensor input = integers(5, comm.rank(), at::kFloat, device);
  at::Tensor output = at::zeros_like(input);
  comm.all_to_all(output, input, own);
  CHECK(same_bits(output, input));
}

/// Sums that depend on the order: the same bits on every rank and in two runs, and near the sum in
/// double precision.
inline void check_reproducible(Communicator& comm, at::Device device) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t n : all_lengths()) {
      INFO(comm.name() << " " << at::toString(type) << " n " << n);
      at::Tensor once = fractions(n, comm.rank(), type, device);
      at::Tensor again = once.clone();
      comm.all_reduce(once, ReduceOp::sum);
      comm.all_reduce(again, ReduceOp::sum);
      CHECK(same_bits(once, again));

      at::Tensor of_all = at::zeros({n * comm.size()}, once.options());
      comm.all_gather(of_all, once);
      for (int r = 0; r < comm.size(); ++r) CHECK(same_bits(of_all.narrow(0, n * r, n), once));

      at::Tensor exact = at::zeros({n}, at::kDouble);
      at::Tensor magnitude = at::zeros({n}, at::kDouble);
      for (int r = 0; r < comm.size(); ++r) {
        const at::Tensor term = fractions(n, r, type, at::kCPU).to(at::kDouble);
        exact += term;
        magnitude += term.abs();
      }
      // Each of size-1 additions rounds by at most half a unit in the last place: 2^-24 of fp32,
      // 2^-8 of bf16.
      const double unit = type == at::kFloat ? 0x1p-24 : 0x1p-8;
      const at::Tensor error = (once.cpu().to(at::kDouble) - exact).abs();
      CHECK(at::all(error <= magnitude * (unit * comm.size())).item<bool>());
    }
  }
}

/// Many calls of changing kind and size behind one another: no call sees what another left.
inline void check_sequence(Communicator& comm, at::Device device) {
  for (int i = 0; i < 100; ++i) {
    const int64_t n = 1 + (i * 7919) % 5000;
    const auto values = [&](int rank) {
      return at::full({n}, i + rank + 1, at::kFloat).to(device);
    };
    at::Tensor x = values(comm.rank());
    const double total = comm.size() * (i + 1) + comm.size() * (comm.size() - 1) / 2.0;
    if (i % 4 == 0) {
      comm.all_reduce(x, ReduceOp::sum);
      CHECK(at::all(x == total).item<bool>());
    } else if (i % 4 == 1) {
      comm.broadcast(x, i % comm.size());
      CHECK(same_bits(x, values(i % comm.size())));
    } else if (i % 4 == 2) {
      const at::Tensor input = values(comm.rank()).repeat({comm.size()});
      comm.reduce_scatter(x, input, ReduceOp::sum);
      CHECK(at::all(x == total).item<bool>());
    } else {
      at::Tensor all = at::zeros({n * comm.size()}, x.options());
      comm.all_gather(all, x);
      for (int r = 0; r < comm.size(); ++r) CHECK(same_bits(all.narrow(0, n * r, n), values(r)));
    }
    if (i % 50 == 0) comm.barrier();
  }
}

/// Several collectives under way at once, awaited in another order than they were started.
inline void check_started(Communicator& comm, at::Device device) {
  for (const at::ScalarType type : all_types()) {
    for (const int64_t n : all_lengths()) {
      INFO(comm.name() << " " << at::toString(type) << " n " << n);
      const at::Tensor input = integers(n * comm.size(), comm.rank(), type, device);
      const at::Tensor whole =
          expected_reduction(n * comm.size(), comm.size(), ReduceOp::sum, type, device);
      const at::Tensor expected = whole.narrow(0, n * comm.rank(), n);
      at::Tensor apart = at::zeros({n}, input.options());
      at::Tensor in_place = input.clone();
      at::Tensor own = in_place.narrow(0, n * comm.rank(), n);
      at::Tensor gathered = at::zeros({n * comm.size()}, input.options());
      const at::Tensor piece = integers(n, comm.rank(), type, device);

      const auto scattering = comm.start_reduce_scatter(apart, input, ReduceOp::sum);
      const auto scattering_in_place = comm.start_reduce_scatter(own, in_place, ReduceOp::sum);
      const auto gathering = comm.start_all_gather(gathered, piece);
      gathering->wait();
      scattering_in_place->wait();
      scattering->wait();
      scattering->wait();  // again: nothing left to do
      CHECK(same_bits(apart, expected));
      CHECK(same_bits(own, expected));
      for (int r = 0; r < comm.size(); ++r) {
        CHECK(same_bits(gathered.narrow(0, n * r, n), integers(n, r, type, device)));
      }
    }
  }
}

inline void check_empty(Communicator& comm, at::Device device) {
  at::Tensor nothing = at::zeros({0}, at::TensorOptions(at::kFloat).device(device));
  at::Tensor other = nothing.clone();
  comm.all_reduce(nothing, ReduceOp::sum);
  comm.reduce_scatter(nothing, other, ReduceOp::sum);
  comm.all_gather(nothing, other);
  comm.start_reduce_scatter(nothing, other, ReduceOp::sum)->wait();
  comm.start_all_gather(nothing, other)->wait();
  comm.broadcast(nothing, 0);
  comm.all_to_all(nothing, other, std::vector<int64_t>(comm.size() * comm.size(), 0));
  CHECK(nothing.numel() == 0);
}

inline void check_counters(Communicator& comm, at::Device device) {
  const comm::CommCounters before = comm.counters();
  at::Tensor piece = at::zeros({10}, at::TensorOptions(at::kFloat).device(device));
  at::Tensor whole = at::zeros({10 * comm.size()}, piece.options());
  comm.all_reduce(piece, ReduceOp::sum);
  comm.all_reduce(piece, ReduceOp::sum);
  comm.reduce_scatter(piece, whole, ReduceOp::sum);
  comm.all_gather(whole, piece);
  comm.start_reduce_scatter(piece, whole, ReduceOp::sum)->wait();
  comm.start_all_gather(whole, piece)->wait();
  comm.broadcast(piece, 0);
  at::Tensor received = at::zeros_like(whole);
  comm.all_to_all(received, whole, std::vector<int64_t>(comm.size() * comm.size(), 10));
  const comm::CommCounters after = comm.counters();
  CHECK(after.all_reduces - before.all_reduces == 2);
  CHECK(after.reduce_scatters - before.reduce_scatters == 2);
  CHECK(after.all_gathers - before.all_gathers == 2);
  CHECK(after.broadcasts - before.broadcasts == 1);
  CHECK(after.all_to_alls - before.all_to_alls == 1);
  CHECK(after.bytes - before.bytes == 40 * (2 + 4 * comm.size() + 1 + comm.size() * comm.size()));
}

/// The message of the CommError that `call` throws; "" where it throws none.
template <typename Call>
std::string comm_error_of(const Call& call) {
  try {
    call();
  } catch (const CommError& error) {
    return error.what();
  }
  return {};
}

/// Every complaint names the axis, the call, what was received and what it must be; nothing is
/// sent, so ranks may complain alone.
inline void check_argument_errors(Communicator& comm, at::Device device) {
  const at::TensorOptions fp32 = at::TensorOptions(at::kFloat).device(device);
  const std::string place = "communication error: " + comm.name() + ": ";
  at::Tensor good = at::zeros({10}, fp32);
  at::Tensor undefined;
  at::Tensor doubles = at::zeros({10}, fp32.dtype(at::kDouble));
  at::Tensor strided = at::zeros({4, 6}, fp32).t();
  const auto refused = [&](const auto& call) { return comm_error_of(call); };

  CHECK(refused([&] { comm.all_reduce(undefined, ReduceOp::sum); }) ==
        place + "all_reduce: tensor is undefined: it must be a tensor.");
  CHECK(refused([&] { comm.all_reduce(doubles, ReduceOp::sum); }) ==
        place + "all_reduce: tensor has dtype Double: it must be Float, BFloat16 or Long (int64).");
  CHECK(refused([&] { comm.broadcast(doubles, 0); }) ==
        place +
            "broadcast: tensor has dtype Double: it must be Float, BFloat16, Long (int64) or of "
            "one byte.");
  at::Tensor bytes = at::zeros({10}, fp32.dtype(at::kFloat8_e4m3fn));
  CHECK(refused([&] { comm.all_reduce(bytes, ReduceOp::sum); }) ==
        place +
            "all_reduce: tensor has dtype Float8_e4m3fn: it must be Float, BFloat16 or Long "
            "(int64).");
  CHECK(refused([&] { comm.broadcast(strided, 0); })
            .rfind(place + "broadcast: tensor has shape [6, 4] and strides [1, 6]: it must be "
                           "contiguous.",
                   0) == 0);
  CHECK(refused([&] { comm.broadcast(good, comm.size()); }) ==
        place + "broadcast: root is " + std::to_string(comm.size()) +
            ": it must be a rank of this axis, 0 to " + std::to_string(comm.size() - 1) + ".");
  CHECK(refused([&] { comm.broadcast(good, -1); }) != "");

  at::Tensor other = good.clone();
  const std::vector<int64_t> no_counts;
  CHECK(refused([&] {
          comm.all_to_all(good, other, no_counts);
        }).rfind(place + "all_to_all: counts are : it must be ", 0) == 0);
  const std::vector<int64_t> threes(comm.size() * comm.size(), 3);
  const std::string three = std::to_string(3 * comm.size());
  at::Tensor too_many = at::zeros({3 * comm.size() + 1}, fp32);
  CHECK(refused([&] { comm.all_to_all(too_many, too_many.clone(), threes); }) ==
        place + "all_to_all: input has " + std::to_string(too_many.numel()) + " elements, output " +
            std::to_string(too_many.numel()) + ": it must have " + three + " and " + three +
            ", by counts.");

  const int64_t whole_size = 10 * comm.size();
  const std::string sizes = "has " + std::to_string(whole_size + 1) + " elements: it must have " +
                            std::to_string(whole_size) + ": " + std::to_string(comm.size()) +
                            " ranks times the 10 of ";
  at::Tensor too_long = at::zeros({whole_size + 1}, fp32);
  CHECK(refused([&] { comm.reduce_scatter(good, too_long, ReduceOp::sum); }) ==
        place + "reduce_scatter: input " + sizes + "output.");
  CHECK(refused([&] { comm.all_gather(too_long, good); }) ==
        place + "all_gather: output " + sizes + "input.");
  CHECK(refused([&] { comm.start_reduce_scatter(good, too_long, ReduceOp::sum); }) ==
        place + "reduce_scatter: input " + sizes + "output.");
  CHECK(refused([&] { comm.start_all_gather(too_long, good); }) ==
        place + "all_gather: output " + sizes + "input.");

  at::Tensor whole_bf16 = at::zeros({whole_size}, fp32.dtype(at::kBFloat16));
  CHECK(refused([&] { comm.all_gather(whole_bf16, good); }) ==
        place + "all_gather: input has dtype Float: it must have the dtype of output, BFloat16.");

  const at::Tensor memory = at::zeros({whole_size + 10}, fp32);
  const at::Tensor whole = memory.narrow(0, 5, whole_size);
  at::Tensor askew = memory.narrow(0, 2, 10);
  CHECK(refused([&] { comm.reduce_scatter(askew, whole, ReduceOp::sum); }) ==
        place +
            "reduce_scatter: output overlaps input -12 bytes from its start: it must be memory "
            "of its own or exactly piece " +
            std::to_string(comm.rank()) + " of input, " + std::to_string(40 * comm.rank()) +
            " bytes from its start.");
}

inline void check_everything(Communicator& comm, at::Device device) {
  check_all_reduce(comm, device);
  check_reduce_scatter(comm, device);
  check_all_gather(comm, device);
  check_broadcast(comm, device);
  check_all_to_all(comm, device);
  check_bytes(comm, device);
  check_reproducible(comm, device);
  check_sequence(comm, device);
  check_started(comm, device);
  check_empty(comm, device);
  check_counters(comm, device);
  check_argument_errors(comm, device);
  comm.barrier();
}

}  // namespace tptrain::testing
