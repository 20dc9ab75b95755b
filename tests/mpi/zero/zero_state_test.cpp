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

constexpr StateKind kKinds[] = {StateKind::master, StateKind::exp_avg, StateKind::exp_avg_sq};

// Global tensors in memory.
class MemorySource final : public sharding::TensorSource {
 public:
  explicit MemorySource(std::vector<at::Tensor> values) {
    const std::vector<GlobalTensor> tensors = global_tensors();
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
  for (const StateKind kind : kKinds) state.push_back(grid.assembled(kind, complaints));
  CHECK(complaints.empty());
  return state;
}

// As a checkpoint does: every piece that the rank holds, saved by it or not.
void load(GridRun& grid, const std::vector<std::vector<at::Tensor>>& state, int64_t updates_done) {
  sharding::StateDict dict = grid.zero.state_dict();
  for (size_t kind = 0; kind < state.size(); ++kind) {
    const MemorySource source(state[kind]);
    for (sharding::StatePiece& piece : dict.pieces) {
      if (piece.kind == kKinds[kind])
        source.read_slice(piece.spec, piece.begin, piece.end, piece.data);
    }
  }
  grid.zero.state_loaded(updates_done);
}

}  // namespace

TEST_CASE("initial values are the same bits on every layout and stage", "[zero]") {
  const WholeRun whole;
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1}) {
      INFO(layout.text() << ", stage " << stage);
      GridRun grid(layout, stage);
      const auto state = whole_state(grid);
      for (size_t i = 0; i < whole.master.size(); ++i)
        CHECK(at::equal(state[0][i], whole.master[i]));
      CHECK(grid.stale_parameters(state[0]).empty());
      CHECK(grid.dirty_padding().empty());
    }
  }
}

TEST_CASE("parameters from a source: each rank reads its shard, all hold everything", "[zero]") {
  std::vector<at::Tensor> values;
  for (const GlobalTensor& tensor : global_tensors()) {
    values.push_back(at::arange(tensor.numel()).to(at::kFloat).add_(values.size() * 1000.0));
  }
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1}) {
      INFO(layout.text() << ", stage " << stage);
      GridRun grid(layout, stage);
      grid.step(0);
      const MemorySource source(values);
      grid.zero.load_parameters(source);
      CHECK(grid.stale_parameters(values).empty());
      CHECK(grid.dirty_padding().empty());
      CHECK(grid.zero.updates_done() == 0);
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
    for (const int from_stage : {0, 1}) {
      GridRun first(from, from_stage);
      for (int step = 0; step < 3; ++step) first.step(step);
      const auto saved = whole_state(first);
      for (const Layout& to : layouts()) {
        for (const int to_stage : {0, 1}) {
          INFO(from.text() << " stage " << from_stage << " -> " << to.text() << " stage "
                           << to_stage);
          GridRun second(to, to_stage);
          load(second, saved, 3);
          CHECK(second.zero.updates_done() == 3);
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
}

}  // namespace tptrain::testing
