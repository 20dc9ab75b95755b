// Counted along model/decoder_layer.cpp (over tp) and zero's reduction and gathering (over dp).
#include "planner/communication.h"

#include <algorithm>
#include <string>

#include "kernels/fp8.h"
#include "model/freeze.h"
#include "model/loss_head.h"
#include "optim/newton_schulz.h"
#include "planner/plan.h"
#include "planner/zero_layout.h"
#include "zero/bucket_state.h"
#include "zero/layout.h"
#include "zero/matrix_shares.h"

namespace tptrain::planner {

namespace {

constexpr int64_t kBytesOfFp32 = 4;

/// How far backward goes, and what its lowest layer does without, where all before it is frozen
/// (DecoderLayer::backward).
struct BackwardExtent {
  int64_t layers = 0;
  bool embedding = true;
  int64_t fewer_gathers = 0;
  int64_t fewer_reductions = 0;
};

BackwardExtent backward_extent(const Layout& layout,
                               const std::vector<parameters::ParameterBlock>& blocks) {
  const int head = static_cast<int>(blocks.size()) - 1;
  const int first = model::first_training_block(blocks);
  BackwardExtent extent{.layers = head - std::min(std::max(first, 1), head),
                        .embedding = first == 0};
  if (first == 0 || first >= head || layout.training.fp8.takes(first - 1, head - 1)) return extent;
  const auto trains = [&](const char* part) {
    return std::ranges::any_of(
        blocks[static_cast<size_t>(first)].parameters, [&](const parameters::Parameter* parameter) {
          return parameter->trains && parameter->name.find(part) != std::string::npos;
        });
  };
  if (trains(".input_layernorm.")) return extent;
  extent.fewer_reductions = 1;
  if (trains(".self_attn.")) return extent;
  extent.fewer_gathers = 2;
  if (!trains(".post_attention_layernorm.")) extent.fewer_reductions = 2;
  return extent;
}

/// A layer's linears in FP8, by what of them a rank holds whole.
struct Fp8Linears {
  int64_t columns = 0, rows = 0;
  bool unread_last = false;  // of the rows, which does not train
};

Fp8Linears fp8_linears(const parameters::ParameterBlock& block) {
  Fp8Linears result;
  for (const parameters::Parameter* parameter : block.parameters) {
    if (!parameter->wants_amax) continue;
    const bool row = parameter->role == parameters::Role::row_parallel;
    ++(row ? result.rows : result.columns);
    if (row)
      result.unread_last =
          !parameter->trains && parameter->name.find(".down_proj.") != std::string::npos;
  }
  return result;
}

bool shares_scales_over_tp(const Layout& layout) {
  return layout.tp_size > 1 && layout.training.fp8.on && layout.training.fp8.all_gather;
}

/// What changes in a micro-batch where ranks share scales: words are exchanged before casts
/// (tensor_parallel/fp8_linear.h), and gathers of `bytes` in bf16 are of half of them.
void exchange_scales(const Layout& layout, const std::vector<parameters::ParameterBlock>& blocks,
                     int64_t backward_layers, int64_t bytes, TpCommunication& tp) {
  if (!shares_scales_over_tp(layout)) return;
  const bool sliced = layout.training.sequence_parallel == tensor_parallel::SequenceParallel::on;
  const auto layers = static_cast<int64_t>(blocks.size()) - 2;
  int64_t scales = 0, gathers = 0;
  for (int64_t i = 0; i < layers; ++i) {
    const Fp8Linears fp8 = fp8_linears(blocks[static_cast<size_t>(i + 1)]);
    const bool backward = i >= layers - backward_layers;
    const bool again = backward && layout.training.recompute == model::Recompute::full;
    // Forward: inputs of rows, and of columns where they are slices; again, of the last without its
    // product, for its weight's gradient. Backward: gradients of columns, and of rows likewise;
    // inputs of columns again.
    scales += (again ? 2 : 1) * fp8.rows - (again && fp8.unread_last ? 1 : 0) +
              (backward ? fp8.columns : 0);
    if (!sliced) continue;
    scales += (again ? 2 : 1) * fp8.columns + (backward ? fp8.rows : 0);
    gathers += (again ? 2 : 1) * fp8.columns + (backward ? fp8.rows + fp8.columns : 0);
  }
  tp.all_reduce.calls += scales;
  tp.all_reduce.bytes += scales * kernels::kFp8AmaxWords * kBytesOfFp32;
  tp.all_gather.bytes -= gathers * (bytes / 2);
}

TpCommunication over_tp(const model::DecoderConfig& config, const Layout& layout,
                        const std::vector<parameters::ParameterBlock>& blocks) {
  TpCommunication tp;
  if (layout.tp_size == 1) return tp;
  const int64_t layers = config.num_hidden_layers;
  const BackwardExtent backward = backward_extent(layout, blocks);
  // Full recompute runs a layer's forward again, but for its last reduction.
  const int64_t again = layout.training.recompute == model::Recompute::full ? backward.layers : 0;
  const auto element = static_cast<int64_t>(c10::elementSize(layout.dtype));
  const int64_t tokens = layout.seq_length * layout.micro_batch_size;
  const int64_t chosen = layout.training.head_chunk_tokens;
  const int64_t chunk = std::min(tokens, chosen > 0 ? chosen : model::head_chunk_of(tokens));
  const Collective of_cross_entropy = {.calls = 2 * ((tokens + chunk - 1) / chunk),
                                       .bytes = kBytesOfFp32 * 3 * tokens};
  tp.all_reduce = of_cross_entropy;
  if (layout.training.sequence_parallel == tensor_parallel::SequenceParallel::off) {
    // And behind the embedding, before the head.
    const int64_t calls = 2 * layers + 2 * backward.layers + again + 2 - backward.fewer_reductions;
    tp.all_reduce.calls += calls;
    tp.all_reduce.bytes += calls * tokens * config.hidden_size * element;
    exchange_scales(layout, blocks, backward.layers, 0, tp);
    return tp;
  }
  // Slices of each sequence; of documents with a mask, of the micro-batch as one sequence.
  const int64_t positions = layout.document_mask ? tokens : layout.seq_length;
  const int64_t rows = (positions + layout.tp_size - 1) / layout.tp_size * layout.tp_size;
  const int64_t bytes = rows * (tokens / positions) * config.hidden_size * element;
  // A layer: 2 + 4 gathers, 2 + 2 reductions. The ends: each one either way.
  tp.all_gather.calls = 2 * layers + 4 * backward.layers + 2 * again + 1 +
                        (backward.embedding ? 1 : 0) - backward.fewer_gathers;
  tp.reduce_scatter.calls =
      2 * layers + 2 * backward.layers + again + 2 - backward.fewer_reductions;
  tp.all_gather.bytes = tp.all_gather.calls * bytes;
  tp.reduce_scatter.bytes = tp.reduce_scatter.calls * bytes;
  exchange_scales(layout, blocks, backward.layers, bytes, tp);
  return tp;
}

/// One sum a block over what zero::TpRegion is: partial gradients and the staging of copies.
Collective tp_gradient_sums(const std::vector<parameters::ParameterBlock>& blocks,
                            const std::vector<zero::Bucket>& buckets) {
  std::vector<int64_t> summed;
  for (const parameters::ParameterBlock& block : blocks)
    summed.push_back(zero::staging_numel(block));
  for (const zero::Bucket& bucket : buckets) {
    if (bucket.placement != parameters::Placement::tp_replicated || !bucket.trains) continue;
    int64_t& numel = summed[bucket.block];
    // A region is contiguous, and the staging stands behind the whole bucket.
    numel += bucket.numel - bucket.partial_begin;
  }
  Collective sums;
  for (const int64_t numel : summed) {
    if (numel == 0) continue;
    ++sums.calls;
    sums.bytes += numel * kBytesOfFp32;
  }
  return sums;
}

/// Of one collective a bucket that trains, of elements of `dtype`.
Collective on_all_buckets(const std::vector<zero::Bucket>& buckets, at::ScalarType dtype) {
  Collective all;
  for (const zero::Bucket& bucket : buckets) {
    if (!bucket.trains) continue;
    ++all.calls;
    all.bytes += bucket.numel * static_cast<int64_t>(c10::elementSize(dtype));
  }
  return all;
}

/// Of gradients; those that are bf16 travel so.
Collective gradients_of(const std::vector<zero::Bucket>& buckets, at::ScalarType dtype) {
  Collective all = on_all_buckets(buckets, dtype);
  const auto width = static_cast<int64_t>(c10::elementSize(dtype));
  for (const zero::Bucket& bucket : buckets) {
    if (bucket.trains && bucket.gradient_dtype == at::kBFloat16)
      all.bytes -= bucket.numel * (width - 2);
  }
  return all;
}

void add(Collective& sum, int64_t calls, int64_t bytes) {
  sum.calls += calls;
  sum.bytes += calls * bytes;
}

/// What changes where a look-up goes as rows (zero/table_rows.h): the first forward after an
/// update sums rows up (stages 1 and 2, whose table is still on its way), every micro-batch that is
/// reduced gathers their gradients, each with the ids once, and the table's gradient goes only
/// where something else is in it.
void send_rows(const zero::StateLayout& state, const Layout& layout,
               const std::vector<parameters::ParameterBlock>& blocks, const zero::Bucket& table,
               int64_t reductions, StageCommunication& dp) {
  const int64_t tokens = layout.seq_length * layout.micro_batch_size;
  if (!table.trains || table.block != 0 || !zero::is_table(table) ||
      !zero::lookup_goes_as_rows(table, layout.dp_size, tokens, layout.dtype))
    return;
  const int64_t all_tokens = layout.dp_size * tokens;
  const int64_t row_bytes =
      table.parameters[0]->shape[1] * static_cast<int64_t>(c10::elementSize(layout.dtype));
  const bool is_tied = blocks.back().also_uses == 0;
  const bool adds_up = reductions < layout.micro_batches;  // rows of earlier micro-batches
  // Stages 1 and 2.
  const bool looks_up = !state.holds_all && state.parameter_buffers == zero::Buffers::own;
  add(dp.dp_reduce_scatter, looks_up ? 1 : 0, all_tokens * row_bytes);
  add(dp.dp_all_gather, reductions + (looks_up && adds_up ? 1 : 0),
      all_tokens * static_cast<int64_t>(sizeof(int64_t)));
  add(dp.dp_all_gather, reductions, all_tokens * row_bytes);
  if (is_tied || adds_up) return;
  add(dp.dp_reduce_scatter, -reductions,
      table.numel * static_cast<int64_t>(c10::elementSize(layout.reduce_dtype)));
}

/// Of the words of largest magnitudes, once a block and step, where ranks hold parts of it
/// (zero/gatherer.h).
void gather_amax(const zero::StateLayout& state, int64_t dp_size,
                 const std::vector<zero::Bucket>& buckets, StageCommunication& dp) {
  for (const zero::Bucket& bucket : buckets) {
    const auto gathered =
        zero::bucket_allocations(bucket, state, static_cast<int>(dp_size)).gathered_amax;
    if (gathered) add(dp.dp_all_gather, 1, gathered->bytes());
  }
}

Collective times(const Collective& one, int64_t count) {
  return {.calls = one.calls * count, .bytes = one.bytes * count};
}

/// Stage 3: the blocks of a step in order of use, each gathered unless its slot holds it still.
class Gathers {
 public:
  Gathers(const std::vector<parameters::ParameterBlock>& blocks,
          const std::vector<zero::Bucket>& buckets, at::ScalarType dtype)
      : blocks_(blocks), of_block_(blocks.size()), held_(zero::kSlots, -1) {
    const auto element = static_cast<int64_t>(c10::elementSize(dtype));
    for (const zero::Bucket& bucket : buckets) {
      ++of_block_[bucket.block].calls;
      of_block_[bucket.block].bytes += bucket.numel * (bucket.fp8 ? 1 : element);
    }
  }
  void micro_batch() {
    const int last = static_cast<int>(blocks_.size()) - 1;
    for (int block = 0; block <= last; ++block) use(block);
    for (int block = last; block >= model::first_training_block(blocks_); --block) {
      if (blocks_[block].backward_reads_data) use(block);
    }
  }
  const Collective& total() const { return total_; }

 private:
  void use(int block) {
    gather(block);
    if (blocks_[block].also_uses >= 0) gather(blocks_[block].also_uses);
  }
  void gather(int block) {
    int& held = held_[zero::slot_of(blocks_, block)];
    if (held == block) return;
    held = block;
    total_.calls += of_block_[block].calls;
    total_.bytes += of_block_[block].bytes;
  }

  const std::vector<parameters::ParameterBlock>& blocks_;
  std::vector<Collective> of_block_;
  std::vector<int> held_;  // by slot
  Collective total_;
};

void bring_matrices_together(const ZeroLayout& of_zero, const Layout& layout,
                             const std::vector<zero::Bucket>& buckets, StageCommunication& result) {
  const zero::MatrixTraffic traffic = zero::matrix_traffic(
      buckets, zero::matrix_grid(of_zero.state, static_cast<int>(layout.tp_size),
                                 static_cast<int>(layout.dp_size)));
  const auto width =
      static_cast<int64_t>(c10::elementSize(optim::NewtonSchulz::dtype_on(of_zero.buckets.device)));
  result.dp_all_to_all = {.calls = traffic.dp_calls, .bytes = width * traffic.dp_elements};
  result.tp_all_to_all = {.calls = traffic.tp_calls, .bytes = width * traffic.tp_elements};
}

/// Of weights, once an update: a layer's together; those that travel as FP8 by their bucket.
void exchange_scales_of_weights(const Layout& layout, bool gathered_in_fp8,
                                const std::vector<parameters::ParameterBlock>& blocks,
                                const std::vector<zero::Bucket>& buckets,
                                StageCommunication& result) {
  std::vector<int64_t> linears(blocks.size(), 0);  // that are cast where they are used
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Fp8Linears fp8 = fp8_linears(blocks[i]);
    linears[i] = fp8.columns + fp8.rows;
  }
  const auto of_bucket = [&](const zero::Bucket& bucket, Collective& scales) {
    add(scales, 1, static_cast<int64_t>(bucket.parameters.size()) * kBytesOfFp32);
  };
  for (const zero::Bucket& bucket : buckets) {
    if (!bucket.fp8 || !gathered_in_fp8) continue;
    of_bucket(bucket, result.dp_fp8_scales);
    if (shares_scales_over_tp(layout)) of_bucket(bucket, result.tp_fp8_scales);
    linears[bucket.block] -= static_cast<int64_t>(bucket.parameters.size());
  }
  if (!shares_scales_over_tp(layout)) return;
  for (const int64_t count : linears) {
    if (count > 0) add(result.tp_fp8_scales, 1, count * kBytesOfFp32);
  }
}

StageCommunication of_stage(int stage, const Layout& layout,
                            const std::vector<parameters::ParameterBlock>& blocks,
                            const std::vector<zero::Bucket>& buckets) {
  StageCommunication result;
  const ZeroLayout of_zero = zero_layout(layout, stage);
  const zero::StateLayout& state = of_zero.state;
  const int64_t reductions = state.accumulates ? layout.micro_batches : 1;
  if (layout.tp_size > 1)
    result.tp_gradients = times(tp_gradient_sums(blocks, buckets), reductions);
  bring_matrices_together(of_zero, layout, buckets, result);
  exchange_scales_of_weights(layout, state.parameter_buffers == zero::Buffers::shared, blocks,
                             buckets, result);
  if (layout.dp_size == 1) return result;
  result.dp_reduce_scatter = times(gradients_of(buckets, layout.reduce_dtype), reductions);
  if (state.holds_all) {
    result.dp_all_gather = gradients_of(buckets, at::kFloat);
  } else if (state.parameter_buffers == zero::Buffers::own) {
    result.dp_all_gather = on_all_buckets(buckets, state.parameter_dtype);
  } else {
    Gathers gathers(blocks, buckets, state.parameter_dtype);
    for (int64_t i = 0; i < layout.micro_batches; ++i) gathers.micro_batch();
    result.dp_all_gather = gathers.total();
  }
  gather_amax(state, layout.dp_size, buckets, result);
  send_rows(state, layout, blocks, buckets.front(), reductions, result);
  return result;
}

}  // namespace

Communication communication_of(const model::DecoderConfig& config, const Layout& layout,
                               const std::vector<parameters::ParameterBlock>& blocks,
                               const std::vector<zero::Bucket>& buckets) {
  Communication result;
  result.tp = over_tp(config, layout, blocks);
  for (size_t stage = 0; stage < result.stages.size(); ++stage)
    result.stages[stage] = of_stage(static_cast<int>(stage), layout, blocks, buckets);
  return result;
}

}  // namespace tptrain::planner
