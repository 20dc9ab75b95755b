// State of ZeRO over layouts: initial values, parameters from a source, and a training that goes on
// with another stage on another layout.
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using sharding::StateKind;

constexpr StateKind kKinds[] = {sharding::kMaster, "exp_avg", "exp_avg_sq"};

// Global tensors in memory.
class MemorySource final : public sharding::TensorSource {
 public:
  explicit MemorySource(std::vector<at::Tensor> values, Head head = Head::own_table) {
    const std::vector<GlobalTensor> tensors = global_tensors(head);
    for (size_t i = 0; i < tensors.size(); ++i) values_[tensors[i].name] = values[i];
  }
  std::vector<sharding::TensorInfo> tensors() const override { return {}; }
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override {
    for (const sharding::Run& run : runs_of(spec, begin, end)) {
      out.narrow(0, run.local_begin - begin, run.count)
          .copy_(values_.at(spec.name).narrow(0, run.global_begin, run.count));
    }
    elements_read += end - begin;
  }
  mutable int64_t elements_read = 0;

 private:
  std::map<std::string, at::Tensor> values_;
};

std::vector<std::vector<at::Tensor>> whole_state(GridRun& grid) {
  std::vector<std::string> complaints;
  std::vector<std::vector<at::Tensor>> state;
  for (const StateKind& kind : kKinds) state.push_back(grid.assembled(kind, complaints));
  CHECK(complaints.empty());
  return state;
}

// As a checkpoint does: every piece that the rank holds, saved by it or not.
void load(GridRun& grid, const std::vector<std::vector<at::Tensor>>& state, int64_t updates_done) {
  sharding::StateDict dict = grid.zero.state().state_dict();
  for (size_t kind = 0; kind < state.size(); ++kind) {
    const MemorySource source(state[kind], grid.setup.head);
    for (sharding::StatePiece& piece : dict.pieces) {
      if (piece.kind == kKinds[kind])
        source.read_slice(piece.spec, piece.begin, piece.end, piece.data);
    }
  }
  grid.zero.state().state_loaded(updates_done);
}

}  // namespace

TEST_CASE("initial values are the same bits on every layout and stage", "[zero]") {
  const WholeRun whole;
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1, 2, 3}) {
      const Setup setup{.layout = layout, .stage = stage};
      INFO(setup.text());
      GridRun grid(setup);
      const auto state = whole_state(grid);
      for (size_t i = 0; i < whole.master.size(); ++i)
        CHECK(at::equal(state[0][i], whole.master[i]));
      CHECK(grid.stale_parameters(state[0]).empty());
    }
  }
}

TEST_CASE("parameters from a source: each rank reads its shard, all hold everything", "[zero]") {
  std::vector<at::Tensor> values;
  for (const GlobalTensor& tensor : global_tensors()) {
    values.push_back(at::arange(tensor.numel()).to(at::kFloat).add_(values.size() * 1000.0));
  }
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1, 2, 3}) {
      const Setup setup{.layout = layout, .stage = stage};
      INFO(setup.text());
      GridRun grid(setup);
      grid.step(0);
      const MemorySource source(values);
      grid.zero.state().load_parameters(source);
      CHECK(grid.stale_parameters(values).empty());
      CHECK(grid.zero.state().updates_done() == 0);
      const auto state = whole_state(grid);
      for (size_t i = 0; i < values.size(); ++i) {
        CHECK(at::equal(state[0][i], values[i]));
        CHECK(at::equal(state[1][i], at::zeros_like(values[i])));
        CHECK(at::equal(state[2][i], at::zeros_like(values[i])));
      }
      int64_t shards = 0;
      for (const zero::Bucket& bucket : grid.buckets.buckets()) shards += bucket.numel / layout.dp;
      CHECK(source.elements_read <= shards);
    }
  }
}

TEST_CASE("training goes on from any layout and stage on any other", "[zero]") {
  WholeRun straight;
  for (int step = 0; step < 5; ++step) straight.step(step);
  for (const Layout& from : layouts()) {
    for (const int from_stage : {0, 1, 2, 3}) {
      GridRun first(Setup{.layout = from, .stage = from_stage});
      for (int step = 0; step < 3; ++step) first.step(step);
      const auto saved = whole_state(first);
      for (const Layout& to : layouts()) {
        const int to_stage = 3 - from_stage;
        GridRun second(Setup{.layout = to, .stage = to_stage});
        INFO(first.setup.text() << " -> " << second.setup.text());
        load(second, saved, 3);
        CHECK(second.zero.state().updates_done() == 3);
        CHECK(second.stale_parameters(saved[0]).empty());
        for (int step = 3; step < 5; ++step) second.step(step);
        const auto state = whole_state(second);
        const double tolerance = from.dp == 1 && to.dp == 1 ? 0.0 : 1e-6;
        for (size_t i = 0; i < straight.master.size(); ++i) {
          CHECK(relative_difference(state[0][i], straight.master[i]) <= tolerance);
          CHECK(relative_difference(state[1][i], straight.exp_avg[i]) <= tolerance);
          CHECK(relative_difference(state[2][i], straight.exp_avg_sq[i]) <= tolerance);
        }
      }
    }
  }
}

TEST_CASE("state kept in bf16 passes through fp32 pieces bit by bit, to any stage", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const int from_stage : {0, 1, 2, 3}) {
      for (const config::Dtype masters : {config::Dtype::fp32, config::Dtype::bf16}) {
        Setup setup{.layout = layout,
                    .stage = from_stage,
                    .per_micro_batch = true,
                    .head = Head::tied,
                    .dtype = at::kBFloat16,
                    .moments = config::Dtype::bf16,
                    .masters = masters};
        GridRun straight(setup);
        for (int step = 0; step < 3; ++step) straight.step(step);
        const auto saved = whole_state(straight);
        for (int step = 3; step < 5; ++step) straight.step(step);
        setup.stage = (from_stage + 2) % 4;
        INFO(straight.setup.text() << " -> stage " << setup.stage);
        GridRun second(setup);
        load(second, saved, 3);
        CHECK(second.stale_parameters(saved[0]).empty());
        for (int step = 3; step < 5; ++step) second.step(step);
        const auto expected = whole_state(straight), state = whole_state(second);
        for (size_t kind = 0; kind < state.size(); ++kind) {
          CHECK(same_bits(state[kind], expected[kind]));
        }
      }
    }
  }
}

TEST_CASE("hashes: the same in every stage, and a copy that differs in one bit is told", "[zero]") {
  for (const Layout& layout : layouts()) {
    std::vector<uint64_t> first;
    for (const int stage : {0, 1, 2, 3}) {
      const Setup setup{.layout = layout, .stage = stage, .per_micro_batch = true};
      INFO(setup.text());
      GridRun grid(setup);
      grid.step(0);
      CHECK(grid.drifted_copies().empty());
      std::vector<uint64_t> hashes;
      for (const auto& slice : grid.zero.state().hash_parameters()) hashes.push_back(slice.hash);
      if (first.empty()) first = hashes;
      CHECK(hashes == first);
      if (stage == 3 || session().size() == 1) continue;  // stage 3 hashes what it gathers anew
      if (session().rank() == 0) {
        grid.model.parameter("norm").data.view(at::kInt)[3].bitwise_xor_(1);
      }
      CHECK_FALSE(grid.drifted_copies().empty());
    }
  }
}

}  // namespace tptrain::testing
