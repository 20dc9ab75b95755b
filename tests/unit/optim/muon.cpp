// Muon against the formula in plain Python, and against itself in whatever slices a matrix comes
// to whoever works on it. What its passes over elements share with AdamW is in adamw.cpp.
#include <ATen/ATen.h>

#include "optim/adamw_reference.h"

using namespace tptrain::optim;
using namespace tptrain::testing;
namespace config = tptrain::config;

namespace {

constexpr double kMomentum = 0.95;

/// As scripts/golden/update_rules.py has it.
at::Tensor gradient_of(int64_t step, int64_t rows, int64_t columns) {
  const at::Tensor i = at::arange(rows * columns, at::kDouble);
  return (i * 0.7 + i * i * 0.11 + 0.3 * static_cast<double>(step)).sin();
}

/// Of matrices that all lie here, whole or in the slices that they are given in.
class Here final : public MatrixExchange {
 public:
  explicit Here(MatrixBatch batch) : batches_{std::move(batch)} {
    const MatrixBatch& first = batches_[0];
    largest_.add(static_cast<int64_t>(first.size()), first[0].rows, first[0].columns);
  }
  int parts() const override { return 1; }
  NewtonSchulzSize largest() const override { return largest_; }
  void prepare() override {}
  void gather(int) override {}
  const std::vector<MatrixBatch>& batches(int) const override { return batches_; }
  void scatter(int) override {}

 private:
  std::vector<MatrixBatch> batches_;
  NewtonSchulzSize largest_;
};

/// A range that is a whole matrix.
UpdateRange fresh_matrix(int64_t rows, int64_t columns, const RuleOptions& options) {
  UpdateRange range = fresh(at::arange(rows * columns, at::kDouble).cos(), options);
  range.slots.resize(1);
  range.matrix = {rows, columns};
  range.work = at::zeros_like(range.gradient);
  return range;
}

WholeMatrix whole(const UpdateRange& range) {
  return {.rows = range.matrix[0],
          .columns = range.matrix[1],
          .slices = {{.values = range.work.view(range.matrix)}}};
}

struct Golden {
  int64_t rows, columns;
  bool nesterov;
  std::vector<double> master;
};

const std::vector<Golden>& golden() {
  static const std::vector<Golden> all = {
      {4, 6, true, {0.964855577,  0.520615301,  -0.399024283, -0.954569842, -0.643049337,
                    0.266937269,  0.947051939,  0.744785871,  -0.159835883, -0.874924342,
                    -0.836527913, 0.0204954356, 0.814413718,  0.907388458,  0.120456658,
                    -0.733361446, -0.931225088, -0.283892168, 0.649902462,  0.982064431,
                    0.398454302,  -0.553594553, -0.998546729, -0.538326418}},
      {6, 4, true, {0.967816397,  0.527036863,  -0.396614456, -0.958588091, -0.645850361,
                    0.258078451,  0.946359335,  0.743524465,  -0.15800406,  -0.878017259,
                    -0.836932207, 0.0173036682, 0.812881983,  0.904873897,  0.114754235,
                    -0.738370788, -0.928538591, -0.288095154, 0.649512499,  0.992227152,
                    0.400934823,  -0.550707918, -1.00111567,  -0.539160829}},
      {4, 6, false, {0.962583824,  0.517157909,  -0.397783106, -0.950754866, -0.644598192,
                     0.263553676,  0.946862808,  0.748026382,  -0.162618692, -0.871360308,
                     -0.839226224, 0.0213903189, 0.813557873,  0.909693225,  0.115539541,
                     -0.730915085, -0.930553078, -0.286582538, 0.652178788,  0.984442952,
                     0.398035232,  -0.556655121, -1.00274473,  -0.540174208}}};
  return all;
}

const std::vector<double> kMomentumBuffer = {
    -0.111460832,  -0.086316145, 0.0170484351,  0.110638673,  0.0298350563,   -0.11096592,
    0.0211195067,  0.0822260487, -0.112120066,  0.0916835544, -0.0637864912,  0.0511195846,
    -0.0597407939, 0.0857590309, -0.110556169,  0.0941298917, -0.00298562047, -0.102967945,
    0.0606905575,  0.0977355337, -0.0262575307, -0.108410396, -0.0931429798,  -0.0380460765};

/// Products of bf16 leave two to three digits of an update; 20 of 0.01 lie behind the master.
double tolerance() { return device().is_cuda() ? 1e-3 : 2e-6; }

}  // namespace

TEST_CASE("muon: twenty updates are those of plain Python", "[optim]") {
  // scripts/golden/update_rules.py
  for (const Golden& expected : golden()) {
    CAPTURE(expected.rows, expected.nesterov);
    UpdateRange range =
        fresh_matrix(expected.rows, expected.columns,
                     {.weight_decay = 0.1, .momentum = kMomentum, .nesterov = expected.nesterov});
    Here exchange(MatrixBatch{whole(range)});
    const auto muon = update_rule(config::OptimizerType::muon)
                          .update_of({range}, {.device = device(), .exchange = &exchange});
    const at::Tensor updates = scalar(0.0);
    for (int64_t step = 1; step <= 20; ++step) {
      range.gradient.copy_(gradient_of(step, expected.rows, expected.columns) * 2.0);
      muon->run(step_of(updates, {.learning_rate = 1e-2, .gradient_scale = 0.5}));
    }
    CHECK_CLOSE(range.master, at::tensor(expected.master, at::kDouble), tolerance());
    CHECK_CLOSE(range.slots[0], at::tensor(kMomentumBuffer, at::kDouble), 1e-6);
    CHECK(updates.item<float>() == 20.0f);
  }
}

TEST_CASE("newton_schulz: singular values come near one, vectors stay, zeros stay", "[optim]") {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{24, 64}, {64, 24}, {1, 7}}) {
    CAPTURE(rows, columns);
    const at::Tensor before = normal({rows, columns}, 3).to(at::kDouble);
    const at::Tensor values = before.to(device(), at::kFloat).clone();
    NewtonSchulzSize size;
    size.add(1, 64, 64);
    NewtonSchulz newton_schulz(size, device());
    newton_schulz({{.rows = rows, .columns = columns, .slices = {{.values = values}}}}, 5);
    const auto [u, s, v] = at::linalg_svd(before, /*full_matrices=*/false);
    // In the singular vectors of what it was made of it is diagonal.
    const at::Tensor diagonal = u.t().matmul(values.cpu().to(at::kDouble)).matmul(v.t());
    const at::Tensor sizes = diagonal.diagonal();
    CHECK(sizes.min().item<double>() > 0.6);
    CHECK(sizes.max().item<double>() < 1.3);
    const double rest = device().is_cuda() ? 0.05 : 1e-4;
    CHECK((diagonal - at::diag(sizes)).abs().max().item<double>() < rest);
    values.zero_();
    newton_schulz({{.rows = rows, .columns = columns, .slices = {{.values = values}}}}, 5);
    CHECK(values.count_nonzero().item<int64_t>() == 0);
  }
  // 5 x (2 products of [m, m] by [m, n], one of [m, m] by [m, m]), 2 operations each
  CHECK(newton_schulz_flops(10, 100, 5) == 5 * 2.0 * (2 * 10 * 10 * 100 + 10 * 10 * 10));
  CHECK(newton_schulz_flops(100, 10, 5) == newton_schulz_flops(10, 100, 5));
}

TEST_CASE("newton_schulz: a batch is its matrices one by one, standing and lying", "[optim]") {
  std::vector<at::Tensor> together, alone;
  MatrixBatch batch;
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{24, 40}, {40, 24}, {24, 40}}) {
    together.push_back(normal({rows, columns}, 10 + together.size()).to(device(), at::kFloat));
    alone.push_back(together.back().clone());
    batch.push_back({.rows = rows, .columns = columns, .slices = {{.values = together.back()}}});
  }
  NewtonSchulzSize size;
  size.add(3, 24, 40);
  CHECK(size.total() == 2 * 3 * (24 * 40 + 24 * 24));
  NewtonSchulz newton_schulz(size, device());
  newton_schulz(batch, 5);
  for (size_t i = 0; i < alone.size(); ++i) {
    newton_schulz(
        {{.rows = batch[i].rows, .columns = batch[i].columns, .slices = {{.values = alone[i]}}}},
        5);
    CHECK_CLOSE(together[i], alone[i], device().is_cuda() ? 0.05 : 1e-4);
  }
}

TEST_CASE("muon: the bits do not depend on the slices that a matrix comes in", "[optim]") {
  const int64_t rows = 12, columns = 20;
  const at::Tensor gradient = normal({rows * columns}, 4);
  const auto trained = [&](int64_t dim, const std::vector<std::pair<int64_t, int64_t>>& extents) {
    UpdateRange range = fresh_matrix(rows, columns, {});
    range.gradient.copy_(gradient);
    // Memory of its own a slice, as if it came from another rank.
    std::vector<UpdateRange> ranges;
    WholeMatrix matrix{.rows = rows, .columns = columns, .slices = {}};
    for (const auto& [begin, end] : extents) {
      const auto part = [&](const at::Tensor& whole_tensor) {
        return whole_tensor.view({rows, columns}).narrow(dim, begin, end - begin).clone();
      };
      UpdateRange slice = range;
      const at::Tensor work = at::zeros_like(part(range.master));
      slice.master = part(range.master).view({-1});
      slice.slots = {part(range.slots[0]).view({-1})};
      slice.gradient = part(range.gradient).view({-1});
      slice.work = work.view({-1});
      matrix.slices.push_back({.values = work, .dim = dim, .begin = begin});
      ranges.push_back(std::move(slice));
    }
    Here exchange(MatrixBatch{matrix});
    const auto muon = update_rule(config::OptimizerType::muon)
                          .update_of(ranges, {.device = device(), .exchange = &exchange});
    const at::Tensor updates = scalar(0.0);
    for (int step = 0; step < 3; ++step) muon->run(step_of(updates, {.learning_rate = 1e-2}));
    for (size_t i = 0; i < extents.size(); ++i) {
      const auto [begin, end] = extents[i];
      range.master.view({rows, columns})
          .narrow(dim, begin, end - begin)
          .copy_(ranges[i].master.view_as(matrix.slices[i].values));
    }
    return range.master;
  };
  const at::Tensor once = trained(0, {{0, rows}});
  CHECK(same_bits(trained(0, {{5, 12}, {0, 5}}), once));
  CHECK(same_bits(trained(1, {{0, 3}, {3, 20}}), once));
  CHECK(same_bits(trained(0, {{0, 6}, {6, 12}, {6, 12}}), once));  // a copy
}

TEST_CASE("muon: what is no matrix goes by AdamW, and a step that is not finite changes nothing",
          "[optim]") {
  UpdateRange matrix = fresh_matrix(4, 6, {.weight_decay = 0.1});
  UpdateRange vector = fresh(normal({11}, 6), {.weight_decay = 0.1});
  UpdateRange twin = fresh(normal({11}, 6), {.weight_decay = 0.1});
  Here exchange(MatrixBatch{whole(matrix)});
  const auto muon = update_rule(config::OptimizerType::muon)
                        .update_of({matrix, vector}, {.device = device(), .exchange = &exchange});
  AdamWUpdate adamw({twin}, {.device = device()});
  const at::Tensor updates = scalar(0.0), twin_updates = scalar(0.0);
  for (int64_t step = 1; step <= 3; ++step) {
    matrix.gradient.copy_(gradient_of(step, 4, 6));
    for (UpdateRange* range : {&vector, &twin}) range->gradient.copy_(normal({11}, 7));
    const Numbers numbers{.gradient_scale = 0.5};
    muon->run(step_of(updates, numbers));
    adamw.update(step_of(twin_updates, numbers));
    CHECK(same_bits(vector.master, twin.master));
    CHECK(same_bits(vector.slots[1], twin.slots[1]));
  }
  const at::Tensor before = matrix.master.clone(), buffer = matrix.slots[0].clone();
  muon->run(step_of(updates, {.finite = false}));
  CHECK(same_bits(matrix.master, before));
  CHECK(same_bits(matrix.slots[0], buffer));
  CHECK(updates.item<float>() == 3.0f);
  std::vector<UpdateRange> ranges = {matrix};
  CHECK(contains(message_of([&] {
                   update_rule(config::OptimizerType::muon).update_of(ranges, {.device = device()});
                 }),
                 "an update of matrices: it must have an exchange of them"));
}

TEST_CASE("muon: a bf16 master is rounded, and its copy for the products with it", "[optim]") {
  UpdateRange exact = fresh_matrix(16, 24, {});
  UpdateRange rounded = fresh_matrix(16, 24, {});
  rounded.master = rounded.master.to(at::kBFloat16);
  exact.master.copy_(rounded.master);
  rounded.slots[0] = rounded.slots[0].to(at::kBFloat16);
  rounded.weights = at::zeros_like(rounded.master);
  rounded.rounding = RoundingSite{tptrain::sharding::whole_tensor("w", {16, 24}), 0};
  for (UpdateRange* range : {&exact, &rounded}) {
    range->gradient.copy_(normal({16 * 24}, 8));
    Here exchange(MatrixBatch{whole(*range)});
    const auto muon =
        update_rule(config::OptimizerType::muon)
            .update_of({*range}, {.device = device(), .seed = 3, .exchange = &exchange});
    const at::Tensor updates = scalar(0.0);
    muon->run(step_of(updates, {.learning_rate = 1e-2}));
  }
  CHECK(same_bits(rounded.weights, rounded.master));
  CHECK_CLOSE(rounded.master.to(at::kFloat), exact.master, 8e-3);
}

TEST_CASE("muon's units and slots", "[optim]") {
  using tptrain::parameters::Parameter;
  using tptrain::parameters::Role;
  const UpdateRule& muon = update_rule(config::OptimizerType::muon);
  const auto unit = [&](Role role, std::vector<int64_t> shape) {
    Parameter parameter;
    parameter.role = role;
    parameter.shape = std::move(shape);
    return muon.unit(parameter);
  };
  CHECK(unit(Role::column_parallel, {8, 4}) == Unit::matrix);
  CHECK(unit(Role::row_parallel, {8, 4}) == Unit::matrix);
  CHECK(unit(Role::column_parallel, {8}) == Unit::element);    // a bias
  CHECK(unit(Role::vocab_parallel, {8, 4}) == Unit::element);  // embedding, head
  CHECK(unit(Role::replicated, {8, 4}) == Unit::element);      // positions
  CHECK(names_of(muon.slots(Unit::matrix, {})) == std::vector<std::string>{"momentum_buffer"});
  CHECK(names_of(muon.slots(Unit::element, {})) ==
        update_rule(config::OptimizerType::adamw).all_slots());
  for (const config::Dtype moments : {config::Dtype::fp32, config::Dtype::bf16}) {
    for (const Slot& slot : muon.slots(Unit::matrix, {.moments_dtype = moments}))
      CHECK(slot.dtype == scalar_type(moments));
  }
  CHECK(rule_keeping({"exp_avg", "momentum_buffer", "exp_avg_sq"}) == "muon");
  CHECK(rule_keeping({"momentum_buffer"}) == "muon");  // of a run that trains matrices alone
  CHECK(rule_keeping({"exp_avg_sq", "exp_avg"}) == "adamw");
}
