// What an update rule is: which state it keeps of a parameter, in what it must see the parameter
// (an element, or the whole matrix), and the update itself of any flat shards. ZeRO allocates the
// slots and brings matrices together, checkpoints name the slots, the planner counts them: none of
// the three knows a rule. Not here: which options a tensor gets (parameter_groups.h), and the rules
// that look at one element at a time (element_rules.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_config.h"
#include "optim/newton_schulz.h"
#include "optim/rule_options.h"
#include "optim/slot.h"
#include "optim/unit.h"
#include "parameters/parameter.h"
#include "sharding/shard_spec.h"

namespace tptrain::optim {

/// Where the elements of a bf16 master lie in their global tensor: stochastic rounding draws by
/// (seed, update, tensor name, global element), so that it is the same on every layout.
struct RoundingSite {
  sharding::ShardSpec spec;
  int64_t begin = 0;  // of the range's first element, in row-major order of the slice
};

/// One contiguous range that is updated alike; all 1-D of equal size on one device.
struct UpdateRange {
  at::Tensor master = {};              // fp32; or bf16, then `rounding` is given
  std::vector<at::Tensor> slots = {};  // the rule's, in its order and types (computed in fp32, bf16
                                       // stored rounded to nearest)
  at::Tensor gradient = {};            // fp32 (of a rule by elements: or bf16), reduced, unclipped
  at::Tensor weights = {};  // undefined, or bf16: receives the new master, rounded to nearest
  RuleOptions options = {};
  std::optional<RoundingSite> rounding = {};
  int part = 0;  // what apply() updates together
  /// int32 [1], which ranges of one part may share: in begin() 0, and by the time that those are
  /// updated the bits, as fp32, of the largest magnitude of their new masters, rounded to bf16
  /// where they are fp32. Undefined: nobody asks.
  at::Tensor amax = {};
  /// Of a parameter whose unit is a matrix: the global tensor's shape, and fp32 memory of the
  /// range's size through which `MatrixExchange` brings together what is to be seen as a whole.
  std::vector<int64_t> matrix = {};
  at::Tensor work = {};
  /// Of the gradient of a table's look-ups, from the first row on: uint8 [rows], 0 where a row
  /// holds zeros alone, which CUDA then does not read; undefined: not known.
  at::Tensor written_rows = {};
};

/// Brings the matrices of a part together, each on one rank of those that hold pieces of it, and
/// what becomes of them back. Collective over these ranks; the order of calls is the same on all.
class MatrixExchange {
 public:
  virtual ~MatrixExchange() = default;
  virtual int parts() const = 0;
  /// Of any part, on any rank.
  virtual NewtonSchulzSize largest() const = 0;
  /// Before the first gather(); may come again.
  virtual void prepare() = 0;
  /// From the ranges' `work` into batches(part).
  virtual void gather(int part) = 0;
  /// The matrices that are this rank's to work on, in batches: their values are changed in place.
  virtual const std::vector<MatrixBatch>& batches(int part) const = 0;
  /// And back into `work`, of all ranks.
  virtual void scatter(int part) = 0;
};

/// The numbers of one update, 0-dimensional tensors on the device of the ranges: the host need not
/// know them, and a captured update finds new values in the same place.
struct UpdateStep {
  at::Tensor learning_rate = {};   // fp64
  at::Tensor gradient_scale = {};  // fp32: the clip factor
  at::Tensor finite = {};          // bool; false leaves everything as it is, bitwise
  at::Tensor updates = {};         // fp32: t-1 before and t after (unchanged where not finite)
};

/// A rule's update of given ranges. On CUDA: no host synchronisation, no allocation, launches that
/// are the same every time.
class Update {
 public:
  virtual ~Update() = default;

  /// begin(), and every part.
  void run(const UpdateStep& step);

  // An update in pieces, to the same bits: begin(), then apply() of each part once, in any order
  // and on any stream behind begin().

  /// Takes learning_rate and gradient_scale, and counts the update.
  virtual void begin(const UpdateStep& step) = 0;
  /// `step` as begin() found it, its counter as begin() left it. A part may have no ranges.
  virtual void apply(int part, const UpdateStep& step) = 0;
  /// Parts are 0 .. parts() - 1.
  virtual int parts() const = 0;
};

struct UpdateSettings {
  at::Device device = at::kCPU;
  uint64_t seed = 0;  // of stochastic rounding
  /// Where ranges are of matrices; outlives the update.
  MatrixExchange* exchange = nullptr;
  int64_t newton_schulz_steps = 5;
};

class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  /// As optimizer.type says it: "adamw".
  virtual std::string_view name() const = 0;
  virtual Unit unit(const parameters::Parameter& parameter) const = 0;
  virtual bool takes_bf16_gradients() const = 0;
  /// What is kept beside the master of a parameter of this unit, each of its size. In which type is
  /// the rule's to say: moments as optimizer.moments_dtype wants them, what must be more exact in
  /// fp32 whatever that says. Names do not depend on the options.
  virtual std::vector<Slot> slots(Unit unit, const config::OptimizerConfig& options) const = 0;
  /// The names of all units' slots, in the order in which files and messages have them.
  virtual const std::vector<std::string>& all_slots() const = 0;
  /// The ranges, in the order of their parts; their tensors keep their memory as long as the
  /// update lives. With matrices among them apply() is collective (MatrixExchange). Gradients are
  /// only read. Throws InternalError where they do not fit together or are not on
  /// `settings.device`.
  virtual std::unique_ptr<Update> update_of(std::vector<UpdateRange> ranges,
                                            const UpdateSettings& settings) const = 0;
};

/// The name of the rule that keeps these slots, in any order; of one that treats parameters in
/// several ways, all of them or those of one way alone; "" where none does.
std::string rule_keeping(const std::vector<std::string>& slots);

const UpdateRule& update_rule(config::OptimizerType type);

}  // namespace tptrain::optim
