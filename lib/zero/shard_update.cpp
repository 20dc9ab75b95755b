#include "zero/shard_update.h"

#include <algorithm>
#include <utility>

#include "optim/parameter_groups.h"
#include "zero/matrix_shares.h"

namespace tptrain::zero {
namespace {

struct SettingsRange {
  int64_t begin = 0;  // element of the bucket
  int64_t end = 0;
  const parameters::Parameter* parameter = nullptr;  // the first
  optim::GroupSettings settings;
  std::optional<optim::RoundingSite> rounding;
  std::vector<int64_t> matrix;
};

// Neighbours with equal settings become one range: few ranges are few rows. A bf16 master is
// rounded by the place of each element in its tensor, so there a range ends where its slice does; a
// matrix is scaled by its size, and ends there too; one with a largest magnitude of its own ends
// with its parameter. Padding is in none of them.
std::vector<SettingsRange> settings_ranges(const BucketState& state,
                                           const config::OptimizerConfig& optimizer) {
  const bool rounds = state.master.scalar_type() == at::kBFloat16;
  const bool of_matrices = state.bucket->unit == optim::Unit::matrix;
  const auto keeps_amax = [&](const parameters::Parameter* parameter) {
    return held_amax_of(state, *parameter).defined();
  };
  std::vector<SettingsRange> found;
  for (const BucketPiece& piece : pieces_of(*state.bucket, state.held_begin, state.held_end)) {
    const sharding::ShardSpec& spec = piece.slice->spec;
    const optim::GroupSettings settings = optim::group_settings(optimizer, spec);
    const int64_t end = piece.bucket_begin + piece.count;
    const bool goes_on = !found.empty() && found.back().end == piece.bucket_begin &&
                         found.back().settings == settings &&
                         (found.back().parameter == piece.parameter ||
                          !(keeps_amax(found.back().parameter) || keeps_amax(piece.parameter)));
    if (!rounds && !of_matrices && goes_on) {
      found.back().end = end;
      continue;
    }
    SettingsRange next{.begin = piece.bucket_begin,
                       .end = end,
                       .parameter = piece.parameter,
                       .settings = settings,
                       .rounding = {},
                       .matrix = {}};
    if (rounds) next.rounding = {.spec = spec, .begin = piece.slice_begin};
    if (of_matrices) next.matrix = spec.global_shape;
    found.push_back(std::move(next));
  }
  return found;
}

optim::RuleOptions rule_options(const config::OptimizerConfig& optimizer,
                                const optim::GroupSettings& settings) {
  return {.beta1 = optimizer.betas[0],
          .beta2 = optimizer.betas[1],
          .eps = optimizer.eps,
          .weight_decay = settings.weight_decay,
          .learning_rate_scale = settings.learning_rate_scale,
          .momentum = optimizer.muon.momentum,
          .nesterov = optimizer.muon.nesterov};
}

}  // namespace

ShardUpdate::ShardUpdate(const ParamBuckets& buckets, std::vector<BucketState>& states,
                         const StateLayout& layout, const Options& options, comm::Communicator& tp,
                         comm::Communicator& dp)
    : states_(states), layout_(layout), options_(options) {
  const at::Device device = buckets.options().device;
  const StepTensors tensors = step_tensors(parameter_count(buckets.blocks()));
  numbers_ = {.learning_rate = tensors.learning_rate.zeros(device),
              .gradient_scale = tensors.gradient_scale.zeros(device),
              .finite = tensors.finite.zeros(device),
              .updates = tensors.updates.zeros(device)};
  const MatrixGrid grid = matrix_grid(layout, tp.size(), dp.size());
  const int blocks = blocks_per_part(buckets.buckets(), grid);
  if (!share_matrices(buckets.buckets(), grid).empty())
    matrices_.emplace(buckets, states, grid, tp, dp);
  std::vector<optim::UpdateRange> ranges;
  for (const BucketState& state : states) {
    if (state.bucket->trains) append_ranges(state, state.bucket->block / blocks, ranges);
  }
  deferred_.emplace(layout.rule->update_of(std::move(ranges),
                                           {.device = device,
                                            .seed = options.seed,
                                            .exchange = matrices_ ? &*matrices_ : nullptr,
                                            .newton_schulz_steps = options.optimizer.muon.steps}),
                    // A rank alone waits for nobody meanwhile, and on a GPU at its power limit what
                    // runs beside products makes them longer by as much: Llama-3-8B and
                    // Qwen2.5-0.5B take 0.3 and 0.4 % less without, GPT-2 as long.
                    DeferredUpdate::Blocks{.count = static_cast<int>(buckets.blocks().size()),
                                           .of_part = blocks,
                                           .beside_others = tp.size() * dp.size() > 1},
                    device, numbers_);
}

void ShardUpdate::append_ranges(const BucketState& state, int part,
                                std::vector<optim::UpdateRange>& ranges) {
  const bool of_matrices = state.bucket->unit == optim::Unit::matrix;
  const bool separate_weights = layout_.own_masters && layout_.parameter_buffers == Buffers::own;
  for (SettingsRange& range : settings_ranges(state, options_.optimizer)) {
    const int64_t numel = range.end - range.begin;
    const int64_t held = range.begin - state.held_begin;
    std::vector<at::Tensor> slots;
    for (const at::Tensor& slot : state.slots) slots.push_back(slot.narrow(0, held, numel));
    optim::UpdateRange& update = ranges.emplace_back();
    update.master = state.master.narrow(0, held, numel);
    update.slots = std::move(slots);
    update.gradient = state.gradient.narrow(0, held, numel);
    if (separate_weights) update.weights = state.bucket->data.narrow(0, range.begin, numel);
    update.options = rule_options(options_.optimizer, range.settings);
    update.rounding = std::move(range.rounding);
    update.part = part;
    update.matrix = std::move(range.matrix);
    update.amax = held_amax_of(state, *range.parameter);
    update.written_rows = state.written_rows;  // of a bucket with one range
    if (of_matrices) update.work = matrices_->work_of(state).narrow(0, held, numel);
  }
}

void ShardUpdate::set_learning_rate(double learning_rate) {
  numbers_.learning_rate.fill_(learning_rate);
}

void ShardUpdate::set_gradient(const at::Tensor& finite, const at::Tensor& gradient_scale) {
  numbers_.finite.copy_(finite);
  numbers_.gradient_scale.copy_(gradient_scale);
  state_ = State::has_gradient;
}

void ShardUpdate::drop_gradient() {
  if (state_ == State::has_gradient) state_ = State::begun;
}

void ShardUpdate::begin() {
  deferred_->begin();
  state_ = State::begun;
}

void ShardUpdate::assume_begun() {
  deferred_->assume_begun();
  state_ = State::begun;
}

void ShardUpdate::run_ahead(int block) { deferred_->run_ahead(block); }
void ShardUpdate::wait_for(int block) { deferred_->wait_for(block); }
void ShardUpdate::wait_for_all() { deferred_->wait_for_all(); }

void ShardUpdate::finish() {
  if (state_ == State::has_gradient) return;
  announce();
  deferred_->wait_for_all();
  if (std::exchange(state_, State::done) != State::done) numbers_.finite.fill_(false);
}

void ShardUpdate::call_before(std::function<void()> call) { before_writing_ = std::move(call); }

void ShardUpdate::announce() {
  if (state_ != State::done && before_writing_) std::exchange(before_writing_, {})();
}

// A counter of updates with other moments would be a wrong bias correction.
void ShardUpdate::restart() {
  for (BucketState& state : states_) {
    for (at::Tensor& slot : state.slots) slot.zero_();
  }
  numbers_.updates.zero_();
}

int64_t ShardUpdate::updates_done() const {
  return static_cast<int64_t>(numbers_.updates.item<float>());
}

void ShardUpdate::set_updates_done(int64_t updates_done) {
  numbers_.updates.fill_(static_cast<double>(updates_done));
}

}  // namespace tptrain::zero
