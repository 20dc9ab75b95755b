// The state of ZeRO: initial values, loading, and what a rank of a larger grid saves (planned,
// without that grid).
#include <map>
#include <utility>

#include "base/error.h"
#include "base/stop.h"
#include "checkpoint/checkpoint_store.h"
#include "comm/control.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "unit/zero/mixed_slots_rule.h"
#include "unit/zero/one_rank.h"
#include "zero/state_snapshot.h"

namespace tptrain::zero {
namespace {

class MemorySource final : public sharding::TensorSource {
 public:
  std::vector<sharding::TensorInfo> tensors() const override { return {}; }
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override {
    int64_t at = 0;
    for (const sharding::Run& run : runs_of(spec, begin, end)) {
      out.slice(0, at, at + run.count)
          .copy_(at::arange(run.global_begin, run.global_begin + run.count));
      at += run.count;
    }
  }
};

}  // namespace

TEST_CASE("bf16 masters and moments are handed out as they are and written back", "[zero]") {
  config::OptimizerConfig optimizer = optimizer_config();
  optimizer.moments_dtype = config::Dtype::bf16;
  optimizer.master_dtype = config::Dtype::bf16;
  for (const int stage : {0, 1, 2, 3}) {
    OneRank straight({.zero_stage = stage, .optimizer = optimizer, .seed = 5}, at::kBFloat16);
    for (int step = 0; step < 5; ++step) straight.step(step, optimizer);
    OneRank first({.zero_stage = stage, .optimizer = optimizer, .seed = 5}, at::kBFloat16);
    for (int step = 0; step < 3; ++step) first.step(step, optimizer);
    OneRank second({.zero_stage = stage, .optimizer = optimizer, .seed = 5}, at::kBFloat16);
    const sharding::StateDict from = first.zero.state().state_dict();
    sharding::StateDict to = second.zero.state().state_dict();
    for (size_t i = 0; i < from.pieces.size(); ++i) {
      REQUIRE(from.pieces[i].data.scalar_type() == at::kBFloat16);
      to.pieces[i].data.copy_(from.pieces[i].data);
    }
    second.zero.state().state_loaded(first.zero.state().updates_done());
    for (int step = 3; step < 5; ++step) second.step(step, optimizer);
    const auto expected = snapshot(straight.zero), actual = snapshot(second.zero);
    for (size_t i = 0; i < expected.size(); ++i) CHECK(at::equal(expected[i], actual[i]));
    // Rounded at random, but around the fp32 training: Adam moves each step by about the rate.
    testing::Reference reference(kSeed);
    for (int step = 0; step < 5; ++step) reference.step(step, optimizer);
    const auto masters = assembled(straight.zero, sharding::kMaster);
    for (size_t i = 0; i < masters.size(); ++i) {
      CHECK(testing::relative_difference(masters[i], reference.master[i]) < 0.05);
    }
  }
}

TEST_CASE("each slot of a rule has the type that the rule says, also after a save and a resume",
          "[zero]") {
  const testing::MixedSlotsRule rule;
  config::OptimizerConfig optimizer = optimizer_config();
  optimizer.moments_dtype = config::Dtype::bf16;
  optimizer.max_grad_norm = 0.0;  // does not clip
  const auto begun = [&](int stage) {
    return std::make_unique<OneRank>(
        ZeroOptimizer::Options{.zero_stage = stage, .optimizer = optimizer, .seed = 5},
        at::kBFloat16, &rule);
  };
  for (const int stage : {0, 1, 2, 3}) {
    INFO("stage " << stage);
    const auto straight = begun(stage), first = begun(stage), second = begun((stage + 1) % 4);
    straight->step(0, optimizer);
    const auto squares = assembled(straight->zero, "squares");
    const auto gradient = testing::reference_gradient(0);
    bool more_exact = false;
    for (size_t i = 0; i < squares.size(); ++i) {
      CHECK(at::equal(squares[i], gradient[i] * gradient[i]));
      more_exact |= !at::equal(squares[i], squares[i].to(at::kBFloat16).to(at::kFloat));
    }
    CHECK(more_exact);
    for (int step = 1; step < 5; ++step) straight->step(step, optimizer);
    for (int step = 0; step < 3; ++step) first->step(step, optimizer);

    const testing::TempDir dir;
    comm::SingleRank rank;
    checkpoint::CheckpointStore store(rank, {.directory = dir.path()});
    const checkpoint::CheckpointInfo saved = store.save(
        first->zero.state().state_dict(),
        {.step = 3, .updates_done = first->zero.state().updates_done(), .zero_stage = stage});
    CHECK(saved.kinds == std::vector<StateKind>{sharding::kMaster, "mean", "squares"});
    sharding::StateDict state = second->zero.state().state_dict();
    for (const StatePiece& piece : state.pieces)
      REQUIRE(piece.data.scalar_type() == (piece.kind == "mean" ? at::kBFloat16 : at::kFloat));
    store.load_into(state, *store.newest().info);
    second->zero.state().state_loaded(saved.state.updates_done);
    for (int step = 3; step < 5; ++step) second->step(step, optimizer);
    for (const StateKind kind : {sharding::kMaster, "mean", "squares"}) {
      const auto expected = assembled(straight->zero, kind), actual = assembled(second->zero, kind);
      for (size_t i = 0; i < expected.size(); ++i) CHECK(at::equal(expected[i], actual[i]));
    }
  }
}

TEST_CASE("a slot that would not reach a checkpoint, or of another type, is refused", "[zero]") {
  class Wrong final : public optim::UpdateRule {
   public:
    explicit Wrong(optim::Slot slot) : slot_(std::move(slot)) {}
    std::string_view name() const override { return "wrong"; }
    optim::Unit unit(const parameters::Parameter&) const override { return optim::Unit::element; }
    bool takes_bf16_gradients() const override { return false; }
    std::vector<optim::Slot> slots(optim::Unit, const config::OptimizerConfig&) const override {
      return {slot_};
    }
    const std::vector<std::string>& all_slots() const override {
      static const std::vector<std::string> names = {"mean"};
      return names;
    }
    std::unique_ptr<optim::Update> update_of(std::vector<optim::UpdateRange> ranges,
                                             const optim::UpdateSettings&) const override {
      return std::make_unique<testing::MixedSlotsUpdate>(std::move(ranges));
    }

   private:
    optim::Slot slot_;
  };
  const Wrong unnamed({.name = "hidden"}), half({.name = "mean", .dtype = at::kHalf});
  CHECK(message_of([&] { OneRank({}, at::kFloat, &unnamed); }).find("'hidden'") !=
        std::string::npos);
  CHECK(message_of([&] { OneRank({}, at::kFloat, &half); }).find("Half") != std::string::npos);
}

TEST_CASE(
    "a snapshot is the state when it was begun; an update waits for it, a step without does not",
    "[zero]") {
  config::OptimizerConfig optimizer = optimizer_config();
  for (const config::Dtype moments : {config::Dtype::fp32, config::Dtype::bf16}) {
    optimizer.moments_dtype = moments;
    OneRank one({.optimizer = optimizer, .seed = 5});
    for (int step = 0; step < 2; ++step) one.step(step, optimizer);
    const sharding::StateDict live = one.zero.state().state_dict();
    StateSnapshot copy(live, at::kCPU);
    CHECK(StateSnapshot::bytes_of(live) > 0);
    const auto expected = snapshot(one.zero);
    int waits = 0;
    copy.begin(live);
    one.zero.state().call_before_update([&] {
      ++waits;
      copy.let_state_change();
    });
    one.zero.prepare_step(optimizer.learning_rate);
    CHECK(waits == 0);  // its forward and backward write no state
    one.step(2, optimizer);
    CHECK(waits == 0);
    one.zero.prepare_step(optimizer.learning_rate);
    CHECK(waits == 1);  // its forward is where the update is applied
    CHECK(copy.is_complete());
    one.step(3, optimizer);
    one.zero.prepare_step(optimizer.learning_rate);
    CHECK(waits == 1);
    one.zero.state().state_dict();
    REQUIRE(copy.copy().pieces.size() == expected.size());
    bool changed = false;
    const auto now = snapshot(one.zero);
    for (size_t i = 0; i < expected.size(); ++i) {
      CHECK(at::equal(copy.copy().pieces[i].data, expected[i]));
      changed |= !at::equal(now[i], expected[i]);
    }
    CHECK(changed);

    // Again into the same memory; asked for outside of a step, the state waits as well.
    one.step(4, optimizer);
    copy.begin(one.zero.state().state_dict());
    one.zero.state().call_before_update([&] { ++waits; });
    one.step(5, optimizer);
    one.zero.state().state_dict();
    CHECK(waits == 2);
    copy.wait();
  }
}

TEST_CASE("initial values and loaded parameters clear moments and the counter", "[zero]") {
  OneRank one({.optimizer = optimizer_config()});
  one.step(0, optimizer_config());
  SECTION("initialise") {
    one.zero.state().initialise(kSeed);
    const testing::Reference reference(kSeed);
    const auto master = assembled(one.zero, sharding::kMaster);
    for (size_t i = 0; i < master.size(); ++i) {
      CHECK(at::equal(master[i].to(at::kDouble), reference.master[i]));
    }
  }
  SECTION("load_parameters") {
    one.zero.state().load_parameters(MemorySource());
    for (const at::Tensor& tensor : assembled(one.zero, sharding::kMaster)) {
      CHECK(at::equal(tensor, at::arange(tensor.numel()).to(at::kFloat)));
    }
  }
  CHECK(one.zero.state().updates_done() == 0);
  for (const StateKind kind : {"exp_avg", "exp_avg_sq"}) {
    for (const at::Tensor& tensor : assembled(one.zero, kind)) {
      CHECK(at::equal(tensor, at::zeros_like(tensor)));
    }
  }
}

TEST_CASE("a stop gives up the loading of parameters at the next chunk, on every rank", "[zero]") {
  OneRank one({.optimizer = optimizer_config()});
  comm::SingleRank rank;
  bool stopped = false;
  // The first of many tensors is being read when the stop comes.
  class Stopping final : public sharding::TensorSource {
   public:
    std::vector<sharding::TensorInfo> tensors() const override { return {}; }
    void read_slice(const sharding::ShardSpec&, int64_t, int64_t, at::Tensor& out) const override {
      out.zero_();
      ++reads;
      request_stop();
    }
    mutable int reads = 0;
  } source;
  try {
    one.zero.state().load_parameters(source, [&](const std::function<void()>& work) {
      comm::agree(rank, work, OnStop::give_up);
    });
  } catch (const Error& error) {
    stopped = error.code() == ExitCode::stopped && error.agreed();
  }
  CHECK(stopped);
  CHECK(source.reads == 1);
}

TEST_CASE("a state dict written back continues bit by bit", "[zero]") {
  OneRank straight({.optimizer = optimizer_config()});
  for (int step = 0; step < 5; ++step) straight.step(step, optimizer_config());

  OneRank first({.optimizer = optimizer_config()});
  for (int step = 0; step < 3; ++step) first.step(step, optimizer_config());
  OneRank second({.zero_stage = 0, .optimizer = optimizer_config()});
  const sharding::StateDict from = first.zero.state().state_dict();
  sharding::StateDict to = second.zero.state().state_dict();
  REQUIRE(from.pieces.size() == to.pieces.size());
  for (size_t i = 0; i < from.pieces.size(); ++i) to.pieces[i].data.copy_(from.pieces[i].data);
  second.zero.state().state_loaded(first.zero.state().updates_done());
  for (int step = 3; step < 5; ++step) second.step(step, optimizer_config());

  const auto expected = snapshot(straight.zero), actual = snapshot(second.zero);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(at::equal(expected[i], actual[i]));
}

TEST_CASE("over all ranks of a grid every element of every kind is saved once", "[zero]") {
  for (const int stage : {0, 1, 2, 3}) {
    for (const int tp_size : {1, 2, 4}) {
      for (const int dp_size : {1, 2, 3, 8}) {
        std::map<std::pair<StateKind, std::string>, at::Tensor> saved;
        for (const StateKind kind : {sharding::kMaster, "exp_avg", "exp_avg_sq"}) {
          for (const auto& tensor : testing::global_tensors()) {
            saved[{kind, tensor.name}] = at::zeros({tensor.numel()});
          }
        }
        for (int rank = 0; rank < tp_size * dp_size; ++rank) {
          SyntheticModel model = synthetic_model(rank % tp_size, tp_size);
          const DpPosition position = {.rank = rank / tp_size, .size = dp_size};
          ParamBuckets buckets(model.blocks, position, {.zero_stage = stage});
          const auto tp = comm::planning_communicator("tp", rank % tp_size, tp_size);
          const auto dp = comm::planning_communicator("dp", position.rank, dp_size);
          ZeroOptimizer zero(buckets, *tp, *dp,
                             {.zero_stage = stage, .optimizer = optimizer_config()});
          int64_t held = 0;
          for (const StatePiece& piece : zero.state().state_dict().pieces) {
            REQUIRE(piece.data.dim() == 1);
            REQUIRE(piece.data.numel() == piece.end - piece.begin);
            held += piece.kind == sharding::kMaster ? piece.data.numel() : 0;
            if (!piece.save) continue;
            for (const sharding::Run& run : runs_of(piece.spec, piece.begin, piece.end)) {
              saved.at({piece.kind, piece.spec.name})
                  .slice(0, run.global_begin, run.global_begin + run.count)
                  .add_(1);
            }
          }
          // Every holder loads all it holds: in stage 0 all parameters of the rank.
          int64_t local = 0;
          for (const auto& parameter : model.parameters) local += parameter->numel();
          if (stage == 0) REQUIRE(held == local);
        }
        for (const auto& [key, counts] : saved) {
          INFO(key.second << " tp " << tp_size << " dp " << dp_size << " stage " << stage);
          REQUIRE(at::equal(counts, at::ones_like(counts)));
        }
      }
    }
  }
}

TEST_CASE("gradient pieces are the global gradient", "[zero]") {
  OneRank one({.optimizer = optimizer_config()});
  one.step(2, optimizer_config());
  const auto expected = testing::reference_gradient(2);
  const auto pieces = one.zero.state().gradient_pieces().pieces;
  const auto tensors = testing::global_tensors();
  REQUIRE(pieces.size() == tensors.size());
  for (const StatePiece& piece : pieces) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name == piece.spec.name) CHECK(at::equal(piece.data, expected[i]));
    }
  }
}

TEST_CASE("an update takes the learning rate that was set last", "[zero]") {
  OneRank given({}), set({});
  for (OneRank* one : {&given, &set}) {
    one->zero.begin_step();
    testing::run_samples_of(one->model, one->zero, 0, {.rank = 0, .size = 1}, {});
    one->zero.finish_reduction();
    one->zero.clip(1.0, no_losses());
  }
  given.zero.prepare_step(0.1);
  given.zero.update();
  set.zero.prepare_step(0.3);
  set.zero.prepare_step(0.1);
  set.zero.update();
  const auto expected = assembled(given.zero, sharding::kMaster);
  const auto received = assembled(set.zero, sharding::kMaster);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(at::equal(received[i], expected[i]));
}

}  // namespace tptrain::zero
