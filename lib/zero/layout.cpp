// Checks of what layers declare, and the sums of sizes.
#include "zero/layout.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "optim/update_rule.h"

namespace tptrain::zero {
namespace {

using optim::Unit;
using parameters::NamedSlice;
using parameters::Parameter;
using parameters::ParameterBlock;
using parameters::Placement;
using parameters::TpGradient;

std::string_view placement_name(Placement placement) {
  return placement == Placement::tp_sharded ? "tp_sharded" : "tp_replicated";
}

// The contract of Parameter::slices. A gap would be memory that is trained but never saved.
void check_slices(const Parameter& parameter) {
  int64_t next = 0;
  for (const NamedSlice& slice : parameter.slices) {
    if (slice.offset != next) {
      throw InternalError(problem(cat("slice '", slice.spec.name, "' of parameter '",
                                      parameter.name, "' begins at element ", slice.offset))
                              .must(cat("begin at ", next, ", where the slice before it ends")));
    }
    next += slice.spec.local_numel();
  }
  if (next != parameter.numel()) {
    throw InternalError(
        problem(cat("the slices of parameter '", parameter.name, "' cover ", next, " elements"))
            .must(cat("cover all its ", parameter.numel())));
  }
}

void check_copies(const Parameter& parameter) {
  for (const NamedSlice& slice : parameter.slices) {
    const parameters::TpCopies& copies = slice.copies;
    if (copies.parts == 0) continue;
    const auto refuse = [&](const char* constraint) {
      throw InternalError(
          problem(cat("slice '", slice.spec.name, "' of parameter '", parameter.name, "' is copy ",
                      copies.part, " of ", copies.parts))
              .must(constraint));
    };
    if (copies.part < 0 || copies.part >= copies.parts) refuse("be one of them, counted from 0");
    if (parameter.placement != Placement::tp_sharded) refuse("belong to a tp_sharded parameter");
  }
}

void check_blocks(const std::vector<ParameterBlock>& blocks) {
  std::set<const Parameter*> seen;
  const int last = static_cast<int>(blocks.size()) - 1;
  for (int b = 0; b <= last; ++b) {
    const ParameterBlock& block = blocks[b];
    if (block.also_uses >= 0 && (block.also_uses != 0 || b != last || b == 0)) {
      // The slots are laid out for a tied head and nothing else.
      throw InternalError(problem(cat("block '", block.name, "', number ", b, ", also uses block ",
                                      block.also_uses))
                              .must("be the last block and use block 0, or none"));
    }
    for (const Parameter* parameter : block.parameters) {
      if (!seen.insert(parameter).second) {
        // Two buffers for one value would be two gradients of which one is lost.
        throw InternalError(
            problem(cat("parameter '", parameter->name, "' stands a second time, in block '",
                        block.name, "'"))
                .must("stand in one block only (a tied table in the first that uses it)"));
      }
      check_slices(*parameter);
      check_copies(*parameter);
    }
  }
}

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool is_partial(const Parameter* parameter) {
  return parameter->placement == Placement::tp_replicated &&
         parameter->tp_gradient == TpGradient::partial;
}

/// What the parameters of a bucket have in common.
struct Kind {
  bool trains = true;
  Placement placement = Placement::tp_sharded;
  Unit unit = Unit::element;
  at::ScalarType gradient = at::kFloat;
  bool fp8 = false;
  bool operator==(const Kind&) const = default;
};
// Those of FP8 first: their memory begins at a multiple of 16 bytes.
constexpr Kind kKinds[] = {{true, Placement::tp_sharded, Unit::element, at::kBFloat16, true},
                           {true, Placement::tp_sharded, Unit::element, at::kFloat, true},
                           {true, Placement::tp_sharded, Unit::matrix},
                           {true, Placement::tp_sharded, Unit::element, at::kBFloat16},
                           {true, Placement::tp_sharded, Unit::element},
                           {true, Placement::tp_replicated, Unit::element},
                           {false, Placement::tp_sharded, Unit::element},
                           {false, Placement::tp_replicated, Unit::element}};

// A product writes its whole gradient, once a micro-batch. (Of a table the head does so too, but in
// pieces of the tokens.)
bool is_layer_matrix(const Parameter& parameter) {
  return parameter.shape.size() == 2 && (parameter.role == parameters::Role::column_parallel ||
                                         parameter.role == parameters::Role::row_parallel);
}

/// What decides how buckets are cut, beside the parameters.
struct Cut {
  const optim::UpdateRule* rule;
  at::ScalarType gradient_dtype;
  Fp8Matrices fp8;
};

Kind kind_of(const Parameter& parameter, const Cut& cut) {
  Kind kind{
      .trains = parameter.trains,
      .placement = parameter.placement,
      .unit = parameter.trains && cut.rule != nullptr ? cut.rule->unit(parameter) : Unit::element};
  if (kind.trains && is_layer_matrix(parameter)) kind.gradient = cut.gradient_dtype;
  kind.fp8 = cut.fp8 == Fp8Matrices::apart && parameter.wants_amax && kind.trains &&
             kind.placement == Placement::tp_sharded && kind.unit == Unit::element;
  if (std::ranges::find(kKinds, kind) == std::end(kKinds)) {
    throw InternalError(problem(cat("parameter '", parameter.name, "' is ",
                                    placement_name(kind.placement), " and updated as a matrix"))
                            .must("be tp_sharded"));
  }
  return kind;
}

Bucket lay_out_bucket(const ParameterBlock& block, int block_index, const Kind& kind, int dp_size,
                      const Cut& cut) {
  Bucket bucket;
  bucket.name = cat(block.name, ", ", placement_name(kind.placement),
                    kind.unit == Unit::matrix ? ", matrices" : "",
                    kind.gradient == at::kBFloat16 ? ", bf16 gradients" : "",
                    kind.fp8 ? ", FP8" : "", kind.trains ? "" : ", frozen");
  bucket.block = block_index;
  bucket.placement = kind.placement;
  bucket.trains = kind.trains;
  bucket.unit = kind.unit;
  bucket.gradient_dtype = kind.gradient;
  bucket.fp8 = kind.fp8;
  for (Parameter* parameter : block.parameters) {
    if (kind_of(*parameter, cut) == kind) bucket.parameters.push_back(parameter);
  }
  const auto first_partial =
      std::stable_partition(bucket.parameters.begin(), bucket.parameters.end(),
                            [](const Parameter* parameter) { return !is_partial(parameter); });
  const auto whole_ones = static_cast<size_t>(first_partial - bucket.parameters.begin());
  int64_t next = 0;
  int64_t partial_begin = 0;
  for (size_t i = 0; i < bucket.parameters.size(); ++i) {
    if (i == whole_ones) partial_begin = next;
    bucket.offsets.push_back(next);
    next += bucket.parameters[i]->storage_numel();
  }
  // A look-up's gradients reach a table's shards as rows (table_rows.h).
  const int64_t unit = is_table(bucket) ? bucket.parameters[0]->shape[1]
                       : bucket.fp8     ? kFp8Shard
                                        : 1;
  bucket.numel = round_up(next, dp_size * unit);
  bucket.partial_begin = whole_ones < bucket.parameters.size() ? partial_begin : bucket.numel;
  return bucket;
}

}  // namespace

std::vector<Bucket> lay_out(const std::vector<ParameterBlock>& blocks, int dp_size,
                            const optim::UpdateRule* rule, at::ScalarType gradient_dtype,
                            Fp8Matrices fp8_matrices) {
  check_blocks(blocks);
  const Cut cut{.rule = rule, .gradient_dtype = gradient_dtype, .fp8 = fp8_matrices};
  std::vector<Bucket> buckets;
  for (size_t i = 0; i < blocks.size(); ++i) {
    int64_t sharded = 0, sharded_fp32 = 0, sharded_bf16 = 0;  // that train, so far
    for (const Kind& kind : kKinds) {
      Bucket bucket = lay_out_bucket(blocks[i], static_cast<int>(i), kind, dp_size, cut);
      if (kind.trains && kind.placement == Placement::tp_sharded) {
        bucket.memory_begin = std::exchange(sharded, sharded + bucket.numel);
        int64_t& gradients = kind.gradient == at::kFloat ? sharded_fp32 : sharded_bf16;
        bucket.gradient_begin = std::exchange(gradients, gradients + bucket.numel);
      }
      if (bucket.numel > 0) buckets.push_back(std::move(bucket));  // none of nothing
    }
  }
  return buckets;
}

bool is_table(const Bucket& bucket) {
  return bucket.parameters.size() == 1 &&
         bucket.parameters[0]->role == parameters::Role::vocab_parallel;
}

bool lookup_goes_as_rows(const Bucket& table, int dp_size, int64_t tokens, at::ScalarType dtype) {
  if (dp_size == 1) return false;
  const int64_t row_bytes =
      table.parameters[0]->shape[1] * static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t table_bytes = table.numel * static_cast<int64_t>(sizeof(float));
  return 2 * dp_size * tokens * row_bytes <= table_bytes;
}

std::vector<CopiedSlice> copied_slices(const ParameterBlock& block) {
  std::vector<CopiedSlice> copied;
  int64_t next = 0;
  for (Parameter* parameter : block.parameters) {
    if (!parameter->trains) continue;
    for (const NamedSlice& slice : parameter->slices) {
      if (slice.copies.parts == 0) continue;
      copied.push_back({.parameter = parameter, .slice = &slice, .staging_begin = next});
      next += slice.copies.parts * slice.spec.local_numel();
    }
  }
  return copied;
}

int64_t staging_numel(const ParameterBlock& block) {
  const std::vector<CopiedSlice> copied = copied_slices(block);
  if (copied.empty()) return 0;
  const CopiedSlice& last = copied.back();
  return last.staging_begin + last.slice->copies.parts * last.slice->spec.local_numel();
}

int slot_of(const std::vector<ParameterBlock>& blocks, int block) {
  const int last = static_cast<int>(blocks.size()) - 1;
  if (block < 0 || block > last) {
    throw InternalError(problem(cat("slot of block ", block)).must(cat("be one of ", last + 1)));
  }
  if (block == 0) return 0;
  if (block == last) return blocks[block].also_uses < 0 ? 0 : 3;
  return 1 + (block - 1) % 2;
}

int buffer_count(const std::vector<ParameterBlock>& blocks, Buffers buffers) {
  return buffers == Buffers::own ? static_cast<int>(blocks.size()) : kSlots;
}

int buffer_of(const std::vector<ParameterBlock>& blocks, int block, Buffers buffers) {
  return buffers == Buffers::own ? block : slot_of(blocks, block);
}

parameters::StoreLayout store_layout(const std::vector<ParameterBlock>& blocks,
                                     const std::vector<Bucket>& buckets, Buffers buffers) {
  constexpr int kBuffers = 4;  // of one block
  parameters::StoreLayout layout;
  layout.buffers.assign(static_cast<size_t>(kBuffers * buffer_count(blocks, buffers)), 0);
  for (const Bucket& bucket : buckets) {
    const int kind = (bucket.trains ? 0 : 2) + (bucket.placement == Placement::tp_sharded ? 0 : 1);
    const int buffer = kBuffers * buffer_of(blocks, bucket.block, buffers) + kind;
    int64_t& size = layout.buffers[static_cast<size_t>(buffer)];
    size = std::max(size, bucket.memory_begin + bucket.numel);
    layout.ranges.push_back({.parameters = bucket.parameters,
                             .offsets = bucket.offsets,
                             .numel = bucket.numel,
                             .buffer = buffer,
                             .begin = bucket.memory_begin});
  }
  return layout;
}

std::vector<GradientBuffer> gradient_buffers(const std::vector<ParameterBlock>& blocks,
                                             const std::vector<Bucket>& buckets, Buffers buffers) {
  std::vector<int64_t> behind;  // elements of each block behind its sharded bucket
  for (const ParameterBlock& block : blocks) behind.push_back(staging_numel(block));
  std::vector<GradientBuffer> sizes(buffer_count(blocks, buffers));
  for (const Bucket& bucket : buckets) {
    if (!bucket.trains) continue;
    GradientBuffer& buffer = sizes[buffer_of(blocks, bucket.block, buffers)];
    if (bucket.placement == Placement::tp_sharded) {
      int64_t& size = bucket.gradient_dtype == at::kBFloat16 ? buffer.sharded_bf16 : buffer.sharded;
      size = std::max(size, bucket.gradient_begin + bucket.numel);
    } else {
      buffer.replicated = std::max(buffer.replicated, bucket.numel);
      behind[bucket.block] += bucket.numel;
    }
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    int64_t& size = sizes[buffer_of(blocks, static_cast<int>(i), buffers)].replicated_and_staging;
    size = std::max(size, behind[i]);
  }
  return sizes;
}

}  // namespace tptrain::zero
