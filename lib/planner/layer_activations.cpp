// Every function here has the name of the one it mirrors.
#include "planner/layer_activations.h"

#include <utility>

namespace tptrain::planner {

using model::LayerTensor;

// --- kernels/gemm.cpp: on the CPU bf16 is widened; the bias's sum reads a widened copy too
void LayerActivations::accumulate_weight_gradient(bool fp8, int64_t out, int64_t in) {
  if (fp8) return fp8_product(out, in, s_.tokens);
  if (options_.bf16 && !s_.on_gpu) t_.touch(s_.tokens * out * kFp32, s_.tokens * in * kFp32);
}

// --- tensor_parallel/low_rank_adapter.cpp
Buffer LayerActivations::adapter_down(LayerTensor tensor, int64_t in) {
  Buffer down = make_.kept(tensor);
  if (*down > 0 && s_.adapters_drop) t_.touch(s_.tokens * in * s_.element);
  return down;
}

// The first site's term is made where the sum is.
Buffer LayerActivations::adapter_grad_down(int64_t columns, int64_t in) {
  Buffer grad_down = make_.columns(columns);
  if (columns > s_.adapter_rank && s_.adapters_drop) t_.touch(s_.tokens * in * s_.element);
  return grad_down;
}

// --- tensor_parallel/parallel_linear.cpp: a linear with or without an adapter; beside adapters the
// linears do not train
void LayerActivations::weight_gradient(bool fp8, int64_t out, int64_t in,
                                       const model::LayerSizes::Adapter& adapter) {
  if (s_.adapter_rank == 0) return accumulate_weight_gradient(fp8, out, in);
  if (adapter.columns == 0) return;
  const Buffer dropped = make_.columns(s_.adapters_drop ? in : 0);
  accumulate_weight_gradient(false, adapter.columns, in);
  accumulate_weight_gradient(false, adapter.out, s_.adapter_rank);
}

// --- kernels/fp8.cpp: on the CPU operands are widened, and the product is fp32
void LayerActivations::fp8_product(int64_t m, int64_t n, int64_t k) {
  if (!s_.on_gpu) t_.touch((m * k + n * k + m * n) * kFp32);
}

// --- tensor_parallel/fp8_linear.cpp
// Columns, as long as a multiple of 16 tokens.
Buffer LayerActivations::byte_matrix(bool made, int64_t width) {
  return t_.make(made ? (s_.tokens + 15) / 16 * 16 * width : 0);
}

Buffer LayerActivations::columns_of(bool fp8, LayerTensor tensor) {
  return fp8 ? make_.kept(tensor) : t_.make(0);
}

// Of a forward's input: its rows, as many bytes as its columns, which stay or are not made.
Cast LayerActivations::cast_for_forward(bool fp8, LayerTensor columns) {
  if (!fp8 || make_.gathers_bytes(fp8)) return {};
  Cast result = {.rows = make_.kept(columns), .columns = {}};
  if (stays(fp8, columns)) result.columns = make_.kept(columns);
  return result;
}

bool LayerActivations::stays(bool fp8, LayerTensor tensor) const {
  const model::TrainingOptions& training = options_.training;
  return model::stays(tensor,
                      {.recompute = training.recompute,
                       .fp8 = fp8,
                       .attention_dropout = training.attention_dropout > 0},
                      s_.sliced);
}

Cast LayerActivations::cast(bool fp8, int64_t width, bool rows, bool columns) {
  Cast result;
  if (fp8 && rows) result.rows = byte_matrix(true, width);
  if (fp8 && columns) result.columns = byte_matrix(true, width);
  return result;
}

// Of a gradient that was gathered in bytes, its columns are made of them behind the product.
Cast LayerActivations::cast_gathered_gradient(bool fp8) {
  return cast(fp8 && !make_.gathers_bytes(fp8), s_.hidden, true, true);
}
void LayerActivations::turn_gathered_gradient(bool fp8, Cast& cast) {
  cast.rows.reset();
  if (make_.gathers_bytes(fp8)) cast.columns = byte_matrix(true, s_.hidden);
}

// Of a forward's input: what backward gets of it, behind the product's output.
Buffer LayerActivations::cast_for_backward(Cast cast, Buffer& input) {
  if (cast.columns) input.reset();
  return std::move(cast.columns);
}

// --- model/decoder_layer.cpp
Kept LayerActivations::activations(Stream stream, bool fp8) {
  Kept kept;
  kept.fp8 = fp8;
  Norm normed = make_.norm(stream);
  stream = {};
  kept[attention_sum] = std::move(normed.sum);
  kept[attention_statistics] = std::move(normed.statistics);
  kept[attention_input] = std::move(normed.output);
  {
    auto [slice, whole] = make_.start_gather_for(fp8, kept[attention_input]);
    Cast input = cast_for_forward(fp8, qkv_columns);
    kept[qkv] = make_.kept(qkv);
    kept[unnormed] = make_.kept(unnormed);
    kept[qkv_down] = adapter_down(qkv_down, s_.hidden);
    if (fp8) fp8_product(s_.tokens, s_.qkv, s_.hidden);
    whole.reset();
    kept[qkv_columns] = cast_for_backward(std::move(input), kept[attention_input]);
  }
  Attended attention = attention_.attend();
  kept[context] = std::move(attention.context);
  kept[logsumexp] = std::move(attention.logsumexp);
  Buffer attended;
  {
    const Cast of_context = cast(fp8, s_.context, true, false);
    kept[o_down] = adapter_down(o_down, s_.context);
    attended = make_.start_reduce().result;
    if (fp8) fp8_product(s_.tokens, s_.hidden, s_.context);
  }

  normed = make_.norm({.residual = kept[attention_sum], .delta = attended});
  kept[mlp_sum] = std::move(normed.sum);
  kept[mlp_statistics] = std::move(normed.statistics);
  kept[mlp_input] = std::move(normed.output);
  {
    auto [slice, whole] = make_.start_gather_for(fp8, kept[mlp_input]);
    Cast input = cast_for_forward(fp8, up_columns);
    kept[up] = make_.kept(up);
    kept[up_down] = adapter_down(up_down, s_.hidden);
    if (fp8) fp8_product(s_.tokens, s_.up, s_.hidden);
    whole.reset();
    kept[up_columns] = cast_for_backward(std::move(input), kept[mlp_input]);
  }
  kept[activation] = make_.kept(activation);
  return kept;
}

Stream LayerActivations::forward(Stream stream, Kept& kept) {
  const Stream input = stays(kept.fp8, LayerTensor::input) ? stream : Stream{};
  Kept all = activations(std::move(stream), kept.fp8);
  Cast of_activation = cast_for_forward(kept.fp8, down_columns);
  all[down_down] = adapter_down(down_down, s_.ffn);
  Buffer fed_forward = make_.start_reduce().result;
  if (kept.fp8) fp8_product(s_.tokens, s_.hidden, s_.ffn);
  all[down_columns] = cast_for_backward(std::move(of_activation), all[activation]);
  Stream output = {.residual = all[mlp_sum], .delta = std::move(fed_forward)};
  for (const model::LayerTensorSize& size : model::layer_tensors(s_))
    if (!stays(kept.fp8, size.tensor)) all[size.tensor].reset();
  if (stays(kept.fp8, LayerTensor::input)) all.input = input;
  all.fp8 = kept.fp8;
  kept = std::move(all);
  return output;
}

Buffer LayerActivations::backward(Buffer grad, Kept kept) {
  if (kept.input.residual) {
    Stream input = std::exchange(kept.input, {});
    kept = activations(std::move(input), kept.fp8);
  }
  grad = mlp_backward(grad, kept);
  return attention_backward(grad, kept);
}

Buffer LayerActivations::mlp_backward(const Buffer& grad, Kept& kept) {
  const Buffer grad_sum = make_.dropout_backward(grad);
  auto [grad_slice, grad_output] = make_.start_gather_for(kept.fp8, grad_sum);
  Buffer being_gathered, input;
  if (!kept[up_columns]) {
    if (!kept[mlp_input]) kept[mlp_input] = make_.slice();
    being_gathered = std::exchange(kept[mlp_input], {});
    input = make_.start_last_gather(kept.fp8, being_gathered);
  }
  if (!kept[activation] && !kept[down_columns]) kept[activation] = make_.kept(activation);
  Cast grad_cast = cast_gathered_gradient(kept.fp8);
  Buffer grad_up, grad_down_down, grad_up_down;
  {
    // GELU's derivative works in the memory of the gradient behind it.
    const bool in_place = s_.up == s_.ffn && !kept.fp8 && s_.adapters.down.columns == 0;
    const Buffer grad_activation = in_place ? Buffer{} : make_.columns(s_.ffn);
    grad_slice.reset();
    if (kept.fp8) fp8_product(s_.tokens, s_.ffn, s_.hidden);
    turn_gathered_gradient(kept.fp8, grad_cast);
    grad_down_down = adapter_grad_down(s_.adapters.down.columns, s_.ffn);
    grad_up = make_.columns(s_.up);
  }
  kept[up].reset();
  Cast grad_up_cast = cast(kept.fp8, s_.up, true, true);
  ActivationTensors::Reducing grad_input = make_.start_reduce();
  grad_up_down = adapter_grad_down(s_.adapters.up.columns, s_.hidden);
  if (kept.fp8) fp8_product(s_.tokens, s_.hidden, s_.up);
  grad_up_cast.rows.reset();
  if (!kept[down_columns]) kept[down_columns] = columns_of(kept.fp8, down_columns);
  if (!kept[down_down]) kept[down_down] = adapter_down(down_down, s_.ffn);
  weight_gradient(kept.fp8, s_.hidden, s_.ffn, s_.adapters.down);
  kept[down_down].reset();
  grad_down_down.reset();
  kept[activation].reset();
  kept[down_columns].reset();
  grad_cast = {};
  grad_output.reset();
  being_gathered.reset();
  if (!kept[up_columns]) kept[up_columns] = columns_of(kept.fp8, up_columns);
  weight_gradient(kept.fp8, s_.up, s_.hidden, s_.adapters.up);
  kept[up_down].reset();
  grad_up_down.reset();
  kept[up_columns].reset();
  grad_up_cast = {};
  grad_up.reset();
  input.reset();
  grad_input.terms.reset();
  Buffer result = make_.slice();
  kept[mlp_sum].reset();
  return result;
}

Buffer LayerActivations::attention_backward(const Buffer& grad, Kept& kept) {
  const Buffer grad_sum = make_.dropout_backward(grad);
  auto [grad_slice, grad_output] = make_.start_gather_for(kept.fp8, grad_sum);
  Buffer being_gathered, input;
  if (!kept[qkv_columns]) {
    if (!kept[attention_input]) kept[attention_input] = make_.slice();
    being_gathered = std::exchange(kept[attention_input], {});
    input = make_.start_last_gather(kept.fp8, being_gathered);
  }
  Cast grad_cast = cast_gathered_gradient(kept.fp8);
  Buffer grad_context = make_.columns(s_.context);
  Buffer grad_o_down = adapter_grad_down(s_.adapters.o.columns, s_.context);
  grad_slice.reset();
  if (kept.fp8) fp8_product(s_.tokens, s_.context, s_.hidden);
  turn_gathered_gradient(kept.fp8, grad_cast);
  {
    const Cast of_context = cast(kept.fp8, s_.context, false, true);
    weight_gradient(kept.fp8, s_.hidden, s_.context, s_.adapters.o);
  }
  grad_o_down.reset();
  kept[o_down].reset();
  grad_cast = {};
  grad_output.reset();
  Buffer grad_qkv = attention_.attend_backward();
  for (const LayerTensor read : {qkv, unnormed, context, logsumexp}) kept[read].reset();
  grad_context.reset();
  Cast grad_qkv_cast = cast(kept.fp8, s_.qkv, true, true);
  ActivationTensors::Reducing grad_input = make_.start_reduce();
  Buffer grad_qkv_down = adapter_grad_down(s_.adapters.qkv.columns, s_.hidden);
  if (kept.fp8) fp8_product(s_.tokens, s_.hidden, s_.qkv);
  grad_qkv_cast.rows.reset();
  being_gathered.reset();
  if (!kept[qkv_columns]) kept[qkv_columns] = columns_of(kept.fp8, qkv_columns);
  weight_gradient(kept.fp8, s_.qkv, s_.hidden, s_.adapters.qkv);
  kept[qkv_down].reset();
  grad_qkv_down.reset();
  kept[qkv_columns].reset();
  grad_qkv_cast = {};
  grad_qkv.reset();
  input.reset();
  grad_input.terms.reset();
  Buffer result = make_.slice();
  kept[attention_sum].reset();
  return result;
}

}  // namespace tptrain::planner
