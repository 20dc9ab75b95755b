// Pushes between GPUs against NCCL: the same bits, whoever is late, replayed from a graph, beside
// another communicator's collectives.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/cuda/Sleep.h>
#include <c10/cuda/CUDAStream.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/cuda_backend.h"
#include "comm/device_mesh.h"
#include "support/catch.h"
#include "support/mpi.h"

namespace tptrain::testing {
namespace {

using comm::Communicator;
using comm::DeviceMesh;
using comm::DeviceType;
using comm::PeerCopies;

DeviceMesh mesh_over_tp(PeerCopies copies) {
  return DeviceMesh(session(), {.dp_size = 1, .tp_size = session().size()}, DeviceType::cuda, {},
                    {.tp = copies, .dp = copies});
}
DeviceMesh mesh_over_dp(PeerCopies copies) {
  return DeviceMesh(session(), {.dp_size = session().size(), .tp_size = 1}, DeviceType::cuda, {},
                    {.tp = copies, .dp = copies});
}

at::TensorOptions bf16(at::Device device) {
  return at::TensorOptions().dtype(at::kBFloat16).device(device);
}

c10::cuda::CUDAStream stream_of(const DeviceMesh& mesh) {
  return c10::cuda::getCurrentCUDAStream(mesh.device().index());
}

// Another rank's values differ, and so do another round's.
at::Tensor values(at::IntArrayRef sizes, int rank, int64_t round,
                  const at::TensorOptions& options) {
  int64_t numel = 1;
  for (const int64_t size : sizes) numel *= size;
  return at::arange(numel, options.dtype(at::kFloat))
      .add_(static_cast<double>(1000 * rank + 77 * round))
      .mul_(0.013)
      .sin_()
      .view(sizes)
      .to(options.dtype());
}

// A delay of its own on each rank, before the host goes on and on the device.
class Delays {
 public:
  explicit Delays(int rank) : random_(static_cast<unsigned>(rank) + 1) {}
  void operator()() {
    if (draw(4) == 0) std::this_thread::sleep_for(std::chrono::microseconds(draw(400)));
    if (draw(4) == 0) at::cuda::sleep(static_cast<int64_t>(draw(400'000)));
  }

 private:
  unsigned draw(unsigned below) { return random_() % below; }
  std::minstd_rand random_;
};

// Captures the step and replays it 1,000 times, each rank late when it likes; the step also comes
// by itself, before and in between, where it shares the slots. Returns how often it was done.
int replay_often(const DeviceMesh& mesh, const std::function<void()>& step) {
  step();
  int done = 1;
  stream_of(mesh).synchronize();
  session().barrier();
  at::cuda::CUDAGraph graph;
  graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
  step();
  graph.capture_end();
  Delays delay(session().rank());
  for (int replay = 0; replay < 1000; ++replay) {
    delay();
    graph.replay();
    ++done;
    if (replay % 250 != 100) continue;
    step();
    ++done;
  }
  stream_of(mesh).synchronize();
  return done;
}

struct Moved {
  at::Tensor gathered;
  at::Tensor reduced;
};
// One gather and one reduction, used piece by piece where they come so, read once each.
Moved move(Communicator& tp, const at::Tensor& slice, const at::Tensor& terms) {
  Moved moved;
  const auto gather = tp.gather_in_pieces(slice);
  moved.gathered = at::empty_like(gather->whole());
  const int64_t rows = slice.size(0);
  for (int i = 0; i < tp.size(); ++i) {
    const int rank = (tp.rank() + i) % tp.size();
    gather->wait(rank);
    moved.gathered.narrow(0, rank * rows, rows).copy_(gather->whole().narrow(0, rank * rows, rows));
  }
  const int64_t piece = terms.size(0) / tp.size();
  const auto reduce = tp.reduce_in_pieces({piece, terms.size(1)}, terms.options());
  for (int i = 1; i <= tp.size(); ++i) {
    const int rank = (tp.rank() + i) % tp.size();
    reduce->whole().narrow(0, rank * piece, piece).copy_(terms.narrow(0, rank * piece, piece));
    reduce->send(rank);
  }
  moved.reduced = reduce->finish();
  return moved;
}

// This rank's piece of the sum over the ranks, as pushes add: in the order of ranks, in fp32,
// rounded once. Of two ranks it has NCCL's bits; of more, NCCL adds in another order.
at::Tensor sum_in_rank_order(Communicator& nccl, const at::Tensor& terms) {
  at::Tensor all = at::empty({nccl.size() * terms.numel()}, terms.options());
  nccl.all_gather(all, terms.view({-1}));
  const at::Tensor pieces = all.view({nccl.size(), nccl.size(), -1}).select(1, nccl.rank());
  at::Tensor total = pieces[0].to(at::kFloat);
  for (int rank = 1; rank < nccl.size(); ++rank) total = total + pieces[rank].to(at::kFloat);
  std::vector<int64_t> sizes = terms.sizes().vec();
  sizes[0] /= nccl.size();
  return total.to(terms.scalar_type()).view(sizes);
}

struct Expected {
  at::Tensor gathered;
  at::Tensor reduced_by_nccl;  // as sizes are that are not pushed
  at::Tensor reduced_in_order;
};
Expected expected(Communicator& nccl, const at::Tensor& slice, const at::Tensor& terms) {
  std::vector<int64_t> whole = slice.sizes().vec();
  whole[0] *= nccl.size();
  Expected moved{at::empty(whole, slice.options()),
                 at::empty({terms.size(0) / nccl.size(), terms.size(1)}, terms.options()),
                 sum_in_rank_order(nccl, terms)};
  nccl.all_gather(moved.gathered, slice);
  nccl.reduce_scatter(moved.reduced_by_nccl, terms, comm::ReduceOp::sum);
  return moved;
}

bool is(const Moved& moved, const Expected& expected) {
  return at::equal(moved.gathered, expected.gathered) &&
         (at::equal(moved.reduced, expected.reduced_by_nccl) ||
          at::equal(moved.reduced, expected.reduced_in_order));
}

}  // namespace

TEST_CASE("GPUs of one host push to each other") {
  const DeviceMesh mesh = mesh_over_tp(PeerCopies::automatic);
  CHECK(mesh.transport() == "NCCL; direct copies over tp");
  CHECK(mesh_over_tp(PeerCopies::off).transport() == "NCCL");
  CHECK(mesh_over_dp(PeerCopies::automatic).transport() == "NCCL; direct copies over dp");
}

namespace {

// An engine that changes one word of what rank 1 writes to rank 0.
class FaultyProbe final : public comm::PeerProbe {
 public:
  FaultyProbe(std::unique_ptr<comm::PeerProbe> sound, comm::PeerEngine faulty)
      : sound_(std::move(sound)), faulty_(faulty) {}
  comm::PeerWords exchange(comm::PeerEngine engine, const comm::PeerWords& sent) override {
    comm::PeerWords came = sound_->exchange(engine, sent);
    if (engine == faulty_ && session().rank() == 0) came.of(40, 1)[17] ^= 1u;
    return came;
  }

 private:
  std::unique_ptr<comm::PeerProbe> sound_;
  comm::PeerEngine faulty_;
};

}  // namespace

TEST_CASE("GPUs whose writes do not arrive get no direct copies, and the pair is named") {
  const DeviceMesh mesh = mesh_over_tp(PeerCopies::off);
  const comm::PeerEngine faulty = GENERATE(comm::PeerEngine::copies, comm::PeerEngine::stores);
  const comm::PeerExchangeResult result = comm::peer_exchange(
      session(), "tp", mesh.device(), comm::PeerLinks::any,
      [&](auto sound) { return std::make_unique<FaultyProbe>(std::move(sound), faulty); });
  CHECK(result.exchange == nullptr);
  CHECK(result.faulty);
  const std::string pair = "what GPU " + mesh.host_gpus()[1] +
                           " (tp rank 1) wrote into the memory of GPU " + mesh.host_gpus()[0] +
                           " (tp rank 0) by ";
  INFO(result.why_not);
  CHECK(result.why_not.rfind(pair, 0) == 0);
  CHECK(result.why_not.find("(round 41 of 64: 1 of ") != std::string::npos);
}

namespace {

// Counts what a trial has a rank write: what it takes besides depends on what else runs there.
class CountingProbe final : public comm::PeerProbe {
 public:
  CountingProbe(std::unique_ptr<comm::PeerProbe> sound, int64_t& bytes)
      : sound_(std::move(sound)), bytes_(bytes) {}
  comm::PeerWords exchange(comm::PeerEngine engine, const comm::PeerWords& sent) override {
    bytes_ += sent.rounds * (sent.ranks - 1) * sent.words * int64_t{sizeof(uint32_t)};
    return sound_->exchange(engine, sent);
  }

 private:
  std::unique_ptr<comm::PeerProbe> sound_;
  int64_t& bytes_;
};

}  // namespace

// 0.04 s on two H200 with idle cores, three times that beside a build on all of them: the time is
// printed, what is written is held.
TEST_CASE("the trial of two GPUs writes 5 MiB from each to the other") {
  const DeviceMesh mesh = mesh_over_tp(PeerCopies::off);
  for (int i = 0; i < 2; ++i) {  // the first one also loads the kernels
    int64_t bytes = 0;
    session().barrier();
    const auto begin = std::chrono::steady_clock::now();
    const comm::PeerExchangeResult result = comm::peer_exchange(
        session(), "tp", mesh.device(), comm::PeerLinks::nvlink,
        [&](auto sound) { return std::make_unique<CountingProbe>(std::move(sound), bytes); });
    session().barrier();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    INFO(result.why_not);
    CHECK(result.exchange != nullptr);
    if (session().rank() == 0) std::printf("trial and opening of direct copies: %.3f s\n", seconds);
    CHECK(bytes == (session().size() - 1) * int64_t{5 << 20});
  }
}

// In one chunk, in many, in place and not, of a size that 16 bytes do not divide.
TEST_CASE("started collectives by copy engines are the bits of NCCL's") {
  DeviceMesh mesh = mesh_over_dp(PeerCopies::automatic);
  DeviceMesh plain = mesh_over_dp(PeerCopies::off);
  const int ranks = session().size();
  const int own = session().rank();
  Delays delay(own);
  int64_t round = 0;
  for (const int64_t piece : {64, 9, 3'000'000, 9'000'001, 50'000'000, 2'500'000, 7}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      for (const bool in_place : {false, true}) {
        CAPTURE(piece, type, in_place);
        const auto options = at::TensorOptions().dtype(type).device(mesh.device());
        const at::Tensor terms = values({piece * ranks}, own, ++round, options);
        at::Tensor by_nccl = at::empty({piece}, options);
        plain.dp().reduce_scatter(by_nccl, terms, comm::ReduceOp::sum);
        const at::Tensor expected_sum = sum_in_rank_order(plain.dp(), terms);
        if (ranks == 2) CHECK(at::equal(expected_sum, by_nccl));
        at::Tensor expected_whole = at::empty({piece * ranks}, options);
        plain.dp().all_gather(expected_whole, expected_sum);
        for (int repeat = 0; repeat < 3; ++repeat) {
          at::Tensor buffer = terms.clone();
          at::Tensor sum =
              in_place ? buffer.narrow(0, own * piece, piece) : at::empty({piece}, options);
          at::Tensor whole = in_place ? buffer : at::empty({piece * ranks}, options);
          delay();
          const auto scattering = mesh.dp().start_reduce_scatter(sum, buffer, comm::ReduceOp::sum);
          delay();
          scattering->wait();
          CHECK(at::equal(sum, expected_sum));
          delay();
          mesh.dp().start_all_gather(whole, sum)->wait();
          CHECK(at::equal(whole, expected_whole));
        }
      }
    }
  }
  at::Tensor ids = at::arange(6'000'000, at::TensorOptions(at::kLong).device(mesh.device()));
  at::Tensor of_all = at::empty({6'000'000 * ranks}, ids.options());
  ids.add_(own);
  mesh.dp().start_all_gather(of_all, ids)->wait();
  for (int rank = 0; rank < ranks; ++rank) {
    CHECK(at::equal(of_all.narrow(0, rank * 6'000'000, 6'000'000), ids + (rank - own)));
  }
}

TEST_CASE("1,000 replays of gradients and parameters on their way beside products") {
  DeviceMesh mesh = mesh_over_dp(PeerCopies::automatic);
  Communicator& dp = mesh.dp();
  const int ranks = session().size();
  const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(mesh.device());
  const int64_t piece = 3'000'000;  // one chunk a call: calls take the lanes in turn
  const int64_t long_piece = 20'000'000;
  std::vector<at::Tensor> gradients, sums, wholes;
  for (const int64_t size : {piece, long_piece, piece, piece}) {
    gradients.push_back(at::zeros({size * ranks}, fp32));
    sums.push_back(at::zeros({size}, fp32));
    wholes.push_back(at::zeros({size * ranks}, fp32));
  }
  const at::Tensor count = at::zeros({}, fp32);
  const at::Tensor wrong = at::zeros({}, fp32.dtype(at::kLong));
  const at::Tensor matrix = values({2048, 2048}, 0, 4, bf16(mesh.device()));
  const auto step = [&] {
    count.add_(1);
    std::vector<std::unique_ptr<comm::Work>> works;
    for (size_t i = 0; i < gradients.size(); ++i) {
      gradients[i].copy_((count * (session().rank() + 1)).expand_as(gradients[i]));
      works.push_back(dp.start_reduce_scatter(sums[i], gradients[i], comm::ReduceOp::sum));
      at::mm(matrix, matrix);
    }
    for (size_t i = 0; i < sums.size(); ++i) {
      works[i]->wait();
      wrong.add_(sums[i].ne(count * (ranks * (ranks + 1) / 2)).sum());
      sums[i].add_(session().rank());
      works[i] = dp.start_all_gather(wholes[i], sums[i]);
      at::mm(matrix, matrix);
    }
    for (size_t i = 0; i < wholes.size(); ++i) {
      works[i]->wait();
      for (int rank = 0; rank < ranks; ++rank) {
        const at::Tensor part = wholes[i].narrow(0, rank * sums[i].numel(), sums[i].numel());
        wrong.add_(part.ne(count * (ranks * (ranks + 1) / 2) + rank).sum());
      }
    }
  };
  CHECK(count.item<float>() == replay_often(mesh, step));
  CHECK(wrong.item<int64_t>() == 0);
}

TEST_CASE("pushed pieces are the bits of NCCL's collectives, in sizes that come and go") {
  DeviceMesh mesh = mesh_over_tp(PeerCopies::automatic);
  DeviceMesh plain = mesh_over_tp(PeerCopies::off);
  Delays delay(session().rank());
  int64_t round = 0;
  // Up to 4 MiB in one kernel, beyond by the copy engines; odd sizes through NCCL.
  for (const int64_t rows : {1, 7, 640, 33, 40000, 4096, 16000, 5}) {
    for (const int64_t width : {8, 129, 136}) {
      const auto options = bf16(mesh.device());
      const at::Tensor slice = values({rows, width}, session().rank(), ++round, options);
      const at::Tensor terms =
          values({rows * session().size(), width}, session().rank(), round + 500, options);
      const Expected by_nccl = expected(plain.tp(), slice, terms);
      if (session().size() == 2)
        CHECK(at::equal(by_nccl.reduced_by_nccl, by_nccl.reduced_in_order));
      for (int repeat = 0; repeat < 7; ++repeat) {  // more often than there are slots
        delay();
        CAPTURE(rows, width, repeat);
        CHECK(is(move(mesh.tp(), slice, terms), by_nccl));
      }
    }
  }
}

TEST_CASE("1,000 replays with ranks that are late give NCCL's bits each time") {
  const int64_t rows = GENERATE(int64_t{512}, int64_t{16384});  // in one kernel; by copy engines
  DeviceMesh mesh = mesh_over_tp(PeerCopies::automatic);
  DeviceMesh plain = mesh_over_tp(PeerCopies::off);
  const auto options = bf16(mesh.device());
  const int64_t width = 256;
  const int ranks = session().size();
  constexpr int kRounds = 5;  // of moves in a graph: no multiple of the slots
  const at::Tensor slice = at::zeros({rows, width}, options);
  const at::Tensor terms = at::zeros({rows * ranks, width}, options);
  const at::Tensor count = at::zeros({}, options.dtype(at::kFloat));
  const at::Tensor wrong = at::zeros({}, options.dtype(at::kLong));
  // Inputs change with every round; each round's results are compared on the device.
  const auto rounds = [&] {
    for (int i = 0; i < kRounds; ++i) {
      count.add_(1);
      slice.copy_((count * 0.37 + session().rank()).sin().expand({rows, width}));
      terms.copy_((count * 0.11 + 3 * session().rank()).cos().expand({rows * ranks, width}));
      const Moved pushed = move(mesh.tp(), slice, terms);
      const Expected by_nccl = expected(plain.tp(), slice, terms);
      wrong.add_(pushed.gathered.ne(by_nccl.gathered).sum());
      wrong.add_(pushed.reduced.ne(by_nccl.reduced_by_nccl)
                     .logical_and_(pushed.reduced.ne(by_nccl.reduced_in_order))
                     .sum());
    }
  };
  CHECK(count.item<float>() == replay_often(mesh, rounds) * kRounds);
  CHECK(wrong.item<int64_t>() == 0);
}

TEST_CASE("two axes over the same ranks carry traffic at once, 1,000 replays of a graph") {
  const int64_t rows = GENERATE(int64_t{512}, int64_t{16384});
  const PeerCopies over_dp = GENERATE(PeerCopies::off, PeerCopies::automatic);
  // As with tp 2 x dp 2, where a rank is in a tp and in a dp group: here both are the same ranks.
  DeviceMesh tp_mesh = mesh_over_tp(PeerCopies::automatic);
  DeviceMesh dp_mesh = mesh_over_dp(over_dp);
  Communicator& tp = tp_mesh.tp();
  Communicator& dp = dp_mesh.dp();
  const auto options = bf16(tp_mesh.device());
  const int ranks = session().size();
  const at::Tensor slice = values({rows, 256}, session().rank(), 1, options);
  const at::Tensor terms = values({rows * ranks, 256}, session().rank(), 2, options);
  at::Tensor small = at::ones({1000}, options.dtype(at::kFloat));
  constexpr int64_t kNumel = 1 << 22;  // 16 and 8 MiB
  at::Tensor gradient = at::zeros({kNumel}, options.dtype(at::kFloat));
  at::Tensor shard = at::zeros({kNumel / ranks}, gradient.options());
  at::Tensor parameters = at::zeros({kNumel}, options);
  at::Tensor own = values({kNumel / ranks}, session().rank(), 3, options);
  const at::Tensor matrix = values({1024, 1024}, 0, 4, options);
  const at::Tensor wrong = at::zeros({}, options.dtype(at::kLong));
  const Moved first = move(tp, slice, terms);
  dp.all_gather(parameters, own);
  const at::Tensor all_parameters = parameters.clone();
  const auto step = [&] {
    gradient.fill_(session().rank() + 1);
    const auto scattering = dp.start_reduce_scatter(shard, gradient, comm::ReduceOp::sum);
    const auto gathering = dp.start_all_gather(parameters, own);
    at::Tensor product = at::mm(matrix, matrix);
    const Moved moved = move(tp, slice, terms);
    small.fill_(1);
    tp.all_reduce(small, comm::ReduceOp::sum);
    product = at::mm(product, matrix);
    scattering->wait();
    gathering->wait();
    wrong.add_(moved.gathered.ne(first.gathered).sum());
    wrong.add_(moved.reduced.ne(first.reduced).sum());
    wrong.add_(small.ne(ranks).sum());
    wrong.add_(shard.ne(ranks * (ranks + 1) / 2).sum());
    wrong.add_(parameters.ne(all_parameters).sum());
  };
  replay_often(tp_mesh, step);
  CHECK(wrong.item<int64_t>() == 0);
}

TEST_CASE("a size that was never pushed is refused in a capture, naming what to do") {
  DeviceMesh tp_mesh = mesh_over_tp(PeerCopies::automatic);
  DeviceMesh dp_mesh = mesh_over_dp(PeerCopies::automatic);
  const at::Tensor slice = at::zeros({1 << 20, 8}, bf16(tp_mesh.device()));
  at::Tensor whole = at::empty({slice.size(0) * session().size(), 8}, slice.options());
  const auto refusal_of = [](const std::function<void()>& push) {
    std::string message;
    at::cuda::CUDAGraph graph;
    graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      push();
    } catch (const Error& error) {
      message = error.what();
    }
    graph.capture_end();
    return message;
  };
  const std::string in_pieces = refusal_of([&] { tp_mesh.tp().gather_in_pieces(slice); });
  CHECK(in_pieces.find("in a captured graph") != std::string::npos);
  const std::string started = refusal_of([&] { dp_mesh.dp().start_all_gather(whole, slice); });
  CHECK(started.find("in a captured graph") != std::string::npos);
}

}  // namespace tptrain::testing
