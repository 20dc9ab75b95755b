// A parameter as one rank holds it: which slices of which global tensors its rows are, whether it
// trains, and views of memory that others own: of its values (parameter_store.h) and of its
// gradient (whoever collects it). Never an autograd leaf: a layer's backward reads `data` of that
// moment and adds the weight gradient to `main_grad` itself.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sharding/initial_values.h"
#include "sharding/shard_spec.h"

namespace tptrain::parameters {

/// What a linear or table is in the tensor-parallel sense; printed by `tptrain plan`.
enum class Role { vocab_parallel, column_parallel, row_parallel, replicated };
std::string_view role_name(Role role);  // "column-parallel"

/// A slice that several tp ranks hold alike while the rest of its parameter is sharded: a kv head
/// where tp exceeds the kv heads. `parts` different slices of equal size exist; this rank holds
/// number `part`, and so does every rank with the same number. Each rank's gradient is its own
/// share: the copies' gradients are summed, and the copies stay bitwise equal.
struct TpCopies {
  int part = 0;
  int parts = 0;  // 0: this rank alone holds its slice
};

/// A part of a packed parameter: one slice of one global tensor, contiguous in the parameter's
/// row-major storage.
struct NamedSlice {
  sharding::ShardSpec spec;
  int64_t offset = 0;  // first element within the parameter's storage
  bool owned = true;   // exactly one tp rank owns each global element: it counts it in the gradient
                       // norm and saves it
  sharding::Init init = {};
  TpCopies copies = {};
};

/// Which of its block's two buckets a parameter lives in. Replicated: the same values on every tp
/// rank.
enum class Placement { tp_sharded, tp_replicated };

/// What backward leaves in main_grad of a tp_replicated parameter.
enum class TpGradient {
  whole,    // the same whole gradient on every tp rank
  partial,  // this rank's share (of its slice of the sequence, or of its heads): sum over tp
};

struct Parameter;

/// Whoever gave parameters their main_grad, and so knows what is in it. What backward adds counts
/// from zero on: a product that writes the whole of a gradient spares the pass of zeros before it.
class GradientOwner {
 public:
  /// What main_grad holds counts as zero: its next writer overwrites all of it, and says so.
  virtual bool is_first_write(const Parameter& parameter) const = 0;
  virtual void written(const Parameter& parameter) = 0;

 protected:
  ~GradientOwner() = default;
};

/// Sums of squares of pieces of main_grad, which the product that writes it can find in passing.
struct GradientSquares {
  /// fp64 [kernels::weight_gradient_squares()]; undefined: nobody asks for them.
  at::Tensor of_pieces;
  /// They are of what main_grad holds: false again as soon as something else is added to it.
  bool current = false;
};

/// Values that are kept in fewer bits than they have in `data`.
class PackedValues {
 public:
  /// [shape] in the compute dtype, in memory that the next call takes.
  virtual at::Tensor values(const Parameter& parameter) const = 0;

 protected:
  ~PackedValues() = default;
};

/// A matrix as FP8, where whoever gathers it leaves it so.
struct Fp8Values {
  at::Tensor rows;   // `shape`, e4m3
  at::Tensor scale;  // fp32 [1]: a value is what is stored times this
};

struct Parameter {
  std::string name;  // "model.layers.0.self_attn.qkv_proj.weight": for messages; global names are
                     // in the slices
  std::vector<int64_t> shape;  // local, e.g. [(heads + 2 * kv_heads) / tp * D, H]
  Role role = Role::replicated;
  Placement placement = Placement::tp_replicated;
  TpGradient tp_gradient = TpGradient::whole;  // of a tp_replicated one
  std::vector<NamedSlice> slices;              // cover [0, numel) without gaps, in rising offset
  /// Rows of zeros behind the last, in data and in main_grad: products may take them along to be of
  /// a size that GPUs like; never trained, counted or saved.
  int64_t padding_rows = 0;
  /// It has a gradient, state of the update rule and a place in the norm. Else it has data and
  /// nothing else.
  bool trains = true;
  /// Of an adapter beside a linear, and no part of the model's own tensors.
  bool adapter = false;

  at::Tensor data;  // `shape`, compute dtype: a view, bound by a ParameterStore
  /// Whoever uses it casts it to FP8 by its largest magnitude, and reads nothing else of it: who
  /// changes values can keep that in `amax`, who gathers them can leave them in `fp8`.
  bool wants_amax = false;
  /// int32 [1], the bits of an fp32: the largest magnitude of `data`, on this rank; undefined: not
  /// kept.
  at::Tensor amax;
  const PackedValues* packed = nullptr;  // where it is packed: then `data` is undefined
  /// Bound where it is gathered as FP8: `data` then is the memory of that, and no values.
  Fp8Values fp8 = {};
  at::Tensor
      main_grad;  // `shape`, of one that trains (or undefined); fp32, or train.gradient_dtype
  GradientOwner* gradient_owner = nullptr;  // null: main_grad is always added to
  GradientSquares squares = {};

  /// `data`, or what is packed, for one product. Throws InternalError where `fp8` is bound.
  at::Tensor values() const;

  int64_t numel() const;
  /// With the padding.
  int64_t storage_numel() const;
  /// `data` or `main_grad` with the rows of padding: [rows + padding_rows, ..].
  at::Tensor with_padding(const at::Tensor& of) const;
  Parameter() = default;
  Parameter(const Parameter&) = delete;  // Functions keep its address
  Parameter& operator=(const Parameter&) = delete;
};

/// The parameters that are gathered, used and reduced together, in order of use.
struct ParameterBlock {
  std::string name;  // "embedding", "layer 3", "head"
  std::vector<Parameter*> parameters = {};
  /// An earlier block whose parameters this one reads and adds gradients to as well (a tied head
  /// works with the embedding's table); -1: none. Their gradient is complete when the earlier
  /// block's backward is.
  int also_uses = -1;
  /// Backward reads the parameters' values (a look-up's does not).
  bool backward_reads_data = true;
};

}  // namespace tptrain::parameters
