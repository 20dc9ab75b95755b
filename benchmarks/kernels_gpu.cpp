// bench_kernels_gpu: what the CUDA kernels reach of the memory's speed. Each line: an operation,
// its best time, the bytes it must move a second, and their share of what a device-to-device copy
// of 2 GiB moves on the same device in the same run.
//   build/cuda/benchmarks/bench_kernels_gpu [PART OF A NAME]
// An entry prepares its tensors and returns the work; they are freed before the next entry's.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "kernels/fp8.h"
#include "kernels/kernels.h"
#include "optim/update_rule.h"
#include "zero/gradient_norm.h"
#include "zero/nonfinite.h"

namespace {

struct Work {
  double bytes = 0;  // read and written, once each
  std::function<void()> run;
};
struct Entry {
  const char* name;
  Work (*prepare)();
};

at::TensorOptions cuda(at::ScalarType type) {
  return at::TensorOptions(at::Device("cuda")).dtype(type);
}

Work copy() {
  const at::Tensor from = at::zeros({int64_t{1} << 28}, cuda(at::kFloat)),
                   to = at::empty_like(from);
  return {.bytes = 2.0 * static_cast<double>(from.nbytes()), .run = [from, to] { to.copy_(from); }};
}

// 2^28 elements in 300 ranges, as the tensors of a model: 896 elements of a norm, up to 3 * 10^6 of
// a matrix, every one beginning at a multiple of eight.
constexpr int64_t kElements = int64_t{1} << 28;
std::vector<int64_t> range_sizes() {
  std::vector<int64_t> sizes;
  int64_t left = kElements;
  for (int64_t i = 0; i < 299; ++i) {
    sizes.push_back(i % 3 == 0 ? 896 : (left / (300 - i) + i % 7 * 100'000) / 8 * 8);
    left -= sizes.back();
  }
  sizes.push_back(left);
  return sizes;
}
std::vector<at::Tensor> views_of(const at::Tensor& whole) {
  return whole.split_with_sizes(range_sizes());
}

Work adamw(at::ScalarType master, at::ScalarType moments, bool weights) {
  const std::vector<at::Tensor> masters = views_of(at::ones({kElements}, cuda(master))),
                                exp_avgs = views_of(at::zeros({kElements}, cuda(moments))),
                                exp_avg_sqs = views_of(at::zeros({kElements}, cuda(moments))),
                                gradients = views_of(at::ones({kElements}, cuda(at::kFloat)));
  std::vector<at::Tensor> copies;
  if (weights) copies = views_of(at::zeros({kElements}, cuda(at::kBFloat16)));
  std::vector<tptrain::optim::UpdateRange> ranges;
  for (size_t i = 0; i < masters.size(); ++i) {
    tptrain::optim::UpdateRange range{.master = masters[i],
                                      .slots = {exp_avgs[i], exp_avg_sqs[i]},
                                      .gradient = gradients[i],
                                      .weights = weights ? copies[i] : at::Tensor()};
    range.options.weight_decay = i % 3 == 0 ? 0.0 : 0.1;
    if (master == at::kBFloat16) {
      range.rounding = {tptrain::sharding::whole_tensor("w", {masters[i].numel()}), 0};
    }
    ranges.push_back(std::move(range));
  }
  const double an_element = 2.0 * static_cast<double>(at::elementSize(master)) +
                            4.0 * static_cast<double>(at::elementSize(moments)) + 4.0 +
                            (weights ? 2.0 : 0.0);
  const std::shared_ptr<tptrain::optim::Update> optimizer =
      tptrain::optim::update_rule(tptrain::config::OptimizerType::adamw)
          .update_of(std::move(ranges), {.device = at::Device("cuda")});
  const tptrain::optim::UpdateStep step{
      .learning_rate = at::full({}, 1e-4, cuda(at::kDouble)),
      .gradient_scale = at::ones({}, cuda(at::kFloat)),
      .finite = at::ones({}, cuda(at::kBool)),
      .updates = at::zeros({}, cuda(at::kFloat)),
  };
  return {.bytes = an_element * static_cast<double>(kElements),
          .run = [optimizer, step] { optimizer->run(step); }};
}

Work sums() {
  const tptrain::zero::SumsOfSquares sums({views_of(at::ones({kElements}, cuda(at::kFloat)))},
                                          at::Device("cuda"));
  return {.bytes = 4.0 * static_cast<double>(kElements), .run = [sums] { sums(); }};
}

Work marks() {
  const std::vector<at::Tensor> views = views_of(at::ones({kElements}, cuda(at::kFloat)));
  tptrain::zero::NonfiniteFlags search(
      views, at::zeros({static_cast<int64_t>(views.size())}, cuda(at::kFloat)));
  return {.bytes = 4.0 * static_cast<double>(kElements),
          .run = [search]() mutable { search.update(); }};
}

// --- Activations, at the shapes of three runs: Llama-3-8B at tp 2 (8,192 tokens), Qwen2.5-0.5B
// (16,384) and GPT-2 (65,536).
namespace kernels = tptrain::kernels;

double bytes_of(std::initializer_list<at::Tensor> tensors) {
  double sum = 0;
  for (const at::Tensor& tensor : tensors) sum += static_cast<double>(tensor.nbytes());
  return sum;
}
at::Tensor activation(at::IntArrayRef sizes) { return at::randn(sizes, cuda(at::kBFloat16)); }
at::Tensor gradient_of(int64_t size) { return at::zeros({size}, cuda(at::kFloat)); }

template <int64_t tokens, int64_t hidden>
Work rms_norm_forward() {
  const at::Tensor x = activation({tokens, hidden}), delta = at::ones_like(x),
                   weight = activation({hidden});
  return {.bytes = 4 * bytes_of({x}),
          .run = [=] { kernels::add_rms_norm(x, delta, weight, 1e-6); }};
}
template <int64_t tokens, int64_t hidden>
Work rms_norm_again() {
  const at::Tensor x = activation({tokens, hidden}), weight = activation({hidden}),
                   inverse = gradient_of(tokens);
  return {.bytes = 2 * bytes_of({x}), .run = [=] { kernels::rms_norm_again(x, weight, inverse); }};
}
template <int64_t tokens, int64_t hidden>
Work rms_norm_backward() {
  const at::Tensor x = activation({tokens, hidden}), grad = at::ones_like(x),
                   grad_sum = at::ones_like(x), weight = activation({hidden}),
                   inverse = gradient_of(tokens);
  return {.bytes = 4 * bytes_of({x}), .run = [=, weight_grad = gradient_of(hidden)]() mutable {
            kernels::add_rms_norm_backward(grad_sum, grad, x, weight, inverse, weight_grad);
          }};
}
template <int64_t tokens, int64_t hidden>
Work layer_norm_forward() {
  const at::Tensor x = activation({tokens, hidden}), delta = at::ones_like(x),
                   weight = activation({hidden});
  return {.bytes = 4 * bytes_of({x}),
          .run = [=] { kernels::add_layer_norm(x, delta, weight, weight, 1e-5); }};
}
template <int64_t tokens, int64_t hidden>
Work layer_norm_backward() {
  const at::Tensor x = activation({tokens, hidden}), grad = at::ones_like(x),
                   grad_sum = at::ones_like(x), weight = activation({hidden}),
                   statistics = at::ones({2, tokens}, cuda(at::kFloat));
  return {.bytes = 4 * bytes_of({x}),
          .run = [=, weight_grad = gradient_of(hidden), bias_grad = gradient_of(hidden)]() mutable {
            kernels::add_layer_norm_backward(grad_sum, grad, x, weight, statistics, weight_grad,
                                             bias_grad);
          }};
}

template <int64_t tokens, int64_t ffn>
Work swiglu() {
  const at::Tensor gate_up = activation({tokens, 2 * ffn});
  return {.bytes = 1.5 * bytes_of({gate_up}), .run = [=] { kernels::swiglu(gate_up); }};
}
template <int64_t tokens, int64_t ffn>
Work swiglu_backward() {
  const at::Tensor gate_up = activation({tokens, 2 * ffn}), grad = activation({tokens, ffn});
  return {.bytes = 2.5 * bytes_of({gate_up}),
          .run = [=] { kernels::swiglu_backward(grad, gate_up); }};
}
template <int64_t tokens, int64_t ffn>
Work gelu() {
  const at::Tensor x = activation({tokens, ffn});
  return {.bytes = 2 * bytes_of({x}), .run = [=] { kernels::gelu_tanh(x); }};
}
template <int64_t tokens, int64_t ffn>
Work gelu_backward() {
  const at::Tensor x = activation({tokens, ffn}), grad = at::ones_like(x);
  return {.bytes = 3 * bytes_of({x}), .run = [=] { kernels::gelu_tanh_backward(grad, x); }};
}

template <int64_t positions, int64_t batch, int64_t heads, int64_t kv_heads, int64_t head_dim>
Work rotation() {
  const kernels::RotaryTable table =
      kernels::rotary_table(0, positions, head_dim, 10000.0, at::Device("cuda"));
  const int64_t rotated = heads + kv_heads;
  const at::Tensor qkv = activation({positions, batch, (rotated + kv_heads) * head_dim});
  return {.bytes = 2 * bytes_of({qkv}) * static_cast<double>(rotated) /
                   static_cast<double>(rotated + kv_heads),
          .run = [table, packed = qkv]() mutable {
            kernels::rotate_(packed, table, rotated, head_dim, kernels::Rotation::forward);
          }};
}
// cuDNN's or FlashAttention's share of it as well: the difference between the two is the packing's.
template <int64_t positions, int64_t batch, int64_t heads, int64_t kv_heads, int64_t head_dim,
          bool rotated>
Work attention_backward() {
  const kernels::AttentionShape shape = {
      .heads = heads, .kv_heads = kv_heads, .head_dim = head_dim};
  const kernels::RotaryTable table =
      kernels::rotary_table(0, positions, head_dim, 10000.0, at::Device("cuda"));
  const at::Tensor qkv = activation({positions, batch, (heads + 2 * kv_heads) * head_dim}),
                   grad = activation({positions, batch, heads * head_dim});
  const kernels::AttentionResult forward = kernels::causal_attention(qkv, shape);
  return {.bytes = 2 * bytes_of({qkv}) + 2 * bytes_of({grad}), .run = [=] {
            kernels::causal_attention_backward(grad, qkv, forward, shape,
                                               rotated ? &table : nullptr);
          }};
}
enum class Packed { no, one_document, documents };
/// Where documents of 512 to 2048 tokens end, or sequences that are a document each; the last end
/// repeated to a power of two of entries, as in training.
kernels::Documents documents_of(Packed packed, int64_t tokens, int64_t longest) {
  const std::vector<int64_t> lengths =
      packed == Packed::documents
          ? std::vector<int64_t>{2048, 1024, 1024, 512, 1536, 512, 512, 512, 512}
          : std::vector<int64_t>{longest};
  std::vector<int32_t> ends = {0};
  for (size_t i = 0; ends.back() < tokens; ++i)
    ends.push_back(ends.back() + static_cast<int32_t>(lengths[i % lengths.size()]));
  ends.resize(std::max<size_t>(16, std::bit_ceil(ends.size() - 1)) + 1, ends.back());
  return {.ends = at::tensor(ends, at::kInt).to(at::Device("cuda")), .longest = longest};
}
// Forward and backward: what masked batches take against what others take. A document mask leaves
// less to compute; one_document leaves as much, so it compares the backends.
template <int64_t positions, int64_t batch, int64_t heads, int64_t kv_heads, int64_t head_dim,
          Packed packed>
Work attention() {
  const kernels::AttentionShape shape = {
      .heads = heads, .kv_heads = kv_heads, .head_dim = head_dim};
  constexpr bool masked = packed != Packed::no;
  constexpr int64_t rows = masked ? positions * batch : positions;
  constexpr int64_t columns = masked ? 1 : batch;
  const at::Tensor qkv = activation({rows, columns, (heads + 2 * kv_heads) * head_dim}),
                   grad = activation({rows, columns, heads * head_dim});
  kernels::Documents documents;
  if (masked) documents = documents_of(packed, rows, positions);
  return {.bytes = 3 * bytes_of({qkv}) + 3 * bytes_of({grad}), .run = [=] {
            const kernels::Documents* mask = masked ? &documents : nullptr;
            const kernels::AttentionResult forward = kernels::causal_attention(qkv, shape, mask);
            kernels::causal_attention_backward(grad, qkv, forward, shape, nullptr, mask);
          }};
}
template <int64_t tokens, int64_t heads, int64_t kv_heads, int64_t head_dim>
Work head_norm_backward() {
  const kernels::AttentionShape shape = {
      .heads = heads, .kv_heads = kv_heads, .head_dim = head_dim};
  const at::Tensor weight = activation({head_dim}),
                   grad = activation({tokens, 1, (heads + 2 * kv_heads) * head_dim}),
                   input = activation({tokens, 1, (heads + kv_heads) * head_dim});
  const kernels::HeadNorm norm = {.q_weight = weight, .k_weight = weight, .eps = 1e-6};
  return {
      .bytes = 3 * bytes_of({input}),
      .run = [=, in_place = grad, q = gradient_of(head_dim), k = gradient_of(head_dim)]() mutable {
        kernels::head_rms_norm_backward_(in_place, input, norm, shape, q, k);
      }};
}

template <int64_t tokens, int64_t vocab>
struct Logits {
  at::Tensor rows = activation({tokens, (vocab + 63) / 64 * 64}).narrow(1, 0, vocab);
  at::Tensor targets = at::randint(vocab, {tokens}, cuda(at::kLong));
  double bytes = 2.0 * tokens * vocab;
};
template <int64_t tokens, int64_t vocab>
Work cross_entropy_forward() {
  Logits<tokens, vocab> logits;
  return {.bytes = logits.bytes, .run = [logits]() mutable {
            const auto found = kernels::vocab_statistics_(logits.rows, logits.targets, 0);
            kernels::cross_entropy_sums(found.sums, found.row_max, logits.targets);
          }};
}
template <int64_t tokens, int64_t vocab>
Work cross_entropy_backward() {
  Logits<tokens, vocab> logits;
  const auto found = kernels::vocab_statistics_(logits.rows, logits.targets, 0);
  const at::Tensor scale = at::ones({}, cuda(at::kFloat));
  return {.bytes = 2 * logits.bytes, .run = [=]() mutable {
            kernels::vocab_softmax_backward_(logits.rows, found.sums, found.row_max, logits.targets,
                                             0, scale, 0.0);
          }};
}

/// Both at once.
template <int64_t tokens, int64_t vocab>
Work cross_entropy_gradient() {
  Logits<tokens, vocab> logits;
  const at::Tensor scale = at::ones({}, cuda(at::kFloat));
  return {.bytes = 2 * logits.bytes, .run = [=]() mutable {
            const auto found =
                kernels::vocab_softmax_gradient_(logits.rows, logits.targets, 0, scale, 0.0);
            kernels::cross_entropy_sums(found.sums, found.row_max, logits.targets);
          }};
}

template <int64_t tokens, int64_t hidden>
Work embedding_gradient() {
  // A tenth of the tokens are one id.
  at::Tensor ids = at::randint(50000, {tokens}, cuda(at::kLong));
  ids.masked_fill_(at::rand({tokens}, cuda(at::kFloat)) < 0.1, 7);
  const at::Tensor grad = activation({tokens, hidden});
  return {.bytes = bytes_of({grad}),
          .run = [=, table = at::zeros({50000, hidden}, cuda(at::kFloat))]() mutable {
            kernels::accumulate_embedding_gradient(table, grad, ids, {.begin = 0, .vocab = 50000});
          }};
}
template <int64_t tokens, int64_t columns>
Work bias_gradient() {
  const at::Tensor grad = activation({tokens, columns});
  return {.bytes = bytes_of({grad}), .run = [=, sums = gradient_of(columns)]() mutable {
            kernels::accumulate_bias_gradient(sums, grad);
          }};
}

// The head's three products at GPT-2's odd vocabulary: what the distance between rows costs, and,
// of one column less, the odd size itself. Bytes of the logits alone.
enum class Product { logits, input_gradient, weight_gradient };
template <Product product, int64_t vocab, int64_t stride>
Work gpt2_head() {
  constexpr int64_t tokens = 16384, hidden = 768;
  const at::Tensor x = activation({tokens, hidden}), weight = activation({vocab, hidden}),
                   rows = activation({tokens, stride}).narrow(1, 0, vocab);
  return {.bytes = 2.0 * tokens * vocab,
          .run = [=, logits = rows, grad_x = at::empty_like(x),
                  grad = at::zeros({vocab, hidden}, cuda(at::kFloat))]() mutable {
            if (product == Product::logits) at::mm_out(logits, x, weight.t());
            if (product == Product::input_gradient) at::mm_out(grad_x, rows, weight);
            if (product == Product::weight_gradient)
              kernels::accumulate_weight_gradient(grad, rows, x);
          }};
}

// A linear layer's products by cuBLAS' first choice and by the measured one; bytes of the two
// operands and the result.
enum class By { aten, choice };
template <By by, int64_t tokens, int64_t in, int64_t out>
Work forward_product() {
  const at::Tensor x = activation({tokens, in}), weight = activation({out, in}),
                   y = at::empty({tokens, out}, x.options());
  return {.bytes = bytes_of({x, weight, y}), .run = [=, to = y]() mutable {
            if (by == By::aten) at::mm_out(to, x, weight.t());
            if (by == By::choice) kernels::product_out(to, x, weight.t());
          }};
}
template <By by, int64_t tokens, int64_t in, int64_t out>
Work input_gradient() {
  const at::Tensor grad = activation({tokens, out}), weight = activation({out, in}),
                   grad_x = at::empty({tokens, in}, grad.options());
  return {.bytes = bytes_of({grad, weight, grad_x}), .run = [=, to = grad_x]() mutable {
            if (by == By::aten) at::mm_out(to, grad, weight);
            if (by == By::choice) kernels::product_out(to, grad, weight);
          }};
}
template <By by, int64_t tokens, int64_t in, int64_t out>
Work weight_gradient() {
  const at::Tensor grad = activation({tokens, out}), x = activation({tokens, in}),
                   sum = at::zeros({out, in}, cuda(at::kFloat));
  return {.bytes = bytes_of({grad, x, sum, sum}), .run = [=, to = sum]() mutable {
            if (by == By::aten) at::addmm_out(to, to, grad.t(), x, at::kFloat);
            if (by == By::choice) kernels::accumulate_weight_gradient(to, grad, x);
          }};
}
// The base's product beside an adapter: added to what stands there, in the product itself.
template <By by, int64_t tokens, int64_t in, int64_t out>
Work sum_product() {
  const at::Tensor x = activation({tokens, in}), weight = activation({out, in}),
                   y = activation({tokens, out});
  return {.bytes = bytes_of({x, weight, y, y}), .run = [=, to = y]() mutable {
            if (by == By::aten) at::addmm_out(to, to, x, weight.t());
            if (by == By::choice)
              kernels::scaled_product_out(to, x, weight.t(), 1.0, kernels::Accumulate::add);
          }};
}

/// What a rank makes of FP8 rows that it gathered.
template <By by, int64_t height, int64_t width>
Work fp8_columns() {
  const at::Tensor rows = at::zeros({height, width}, cuda(at::kFloat8_e4m3fn));
  return {.bytes = 2.0 * static_cast<double>(rows.nbytes()), .run = [rows] {
            if constexpr (by == By::aten)
              rows.view(at::kByte).t().contiguous();
            else
              kernels::fp8_columns(rows);
          }};
}

#define PRODUCT(name, work, ...)                              \
  {"product, " name ", ATen", work<By::aten, __VA_ARGS__>}, { \
    "product, " name, work<By::choice, __VA_ARGS__>           \
  }

const Entry kEntries[] = {
    PRODUCT("0.5B qkv", forward_product, 16384, 896, 1152),
    PRODUCT("0.5B qkv dgrad", input_gradient, 16384, 896, 1152),
    PRODUCT("0.5B qkv wgrad", weight_gradient, 16384, 896, 1152),
    PRODUCT("0.5B o", forward_product, 16384, 896, 896),
    PRODUCT("0.5B o dgrad", input_gradient, 16384, 896, 896),
    PRODUCT("0.5B o wgrad", weight_gradient, 16384, 896, 896),
    PRODUCT("0.5B gate_up", forward_product, 16384, 896, 9728),
    PRODUCT("0.5B gate_up dgrad", input_gradient, 16384, 896, 9728),
    PRODUCT("0.5B gate_up wgrad", weight_gradient, 16384, 896, 9728),
    PRODUCT("0.5B down", forward_product, 16384, 4864, 896),
    PRODUCT("0.5B down dgrad", input_gradient, 16384, 4864, 896),
    PRODUCT("0.5B down wgrad", weight_gradient, 16384, 4864, 896),
    PRODUCT("8B/2 qkv", forward_product, 8192, 4096, 3072),
    PRODUCT("8B/2 qkv dgrad", input_gradient, 8192, 4096, 3072),
    PRODUCT("8B/2 qkv wgrad", weight_gradient, 8192, 4096, 3072),
    PRODUCT("8B/2 o", forward_product, 8192, 2048, 4096),
    PRODUCT("8B/2 o dgrad", input_gradient, 8192, 2048, 4096),
    PRODUCT("8B/2 o wgrad", weight_gradient, 8192, 2048, 4096),
    PRODUCT("8B/2 gate_up", forward_product, 8192, 4096, 14336),
    PRODUCT("8B/2 gate_up dgrad", input_gradient, 8192, 4096, 14336),
    PRODUCT("8B/2 gate_up wgrad", weight_gradient, 8192, 4096, 14336),
    PRODUCT("8B/2 down", forward_product, 8192, 7168, 4096),
    PRODUCT("8B/2 down dgrad", input_gradient, 8192, 7168, 4096),
    PRODUCT("8B/2 down wgrad", weight_gradient, 8192, 7168, 4096),
    PRODUCT("8B/2 half gate_up", forward_product, 4096, 4096, 14336),
    PRODUCT("8B/2 half gate_up dgrad", input_gradient, 4096, 4096, 14336),
    PRODUCT("8B/2 half gate_up wgrad", weight_gradient, 4096, 4096, 14336),
    // Llama-3-8B, 4096 x 4, with adapters of rank 16: x A^T, down B^T, dy B, grad_down A, dA, dB.
    PRODUCT("LoRA qkv down", forward_product, 16384, 4096, 48),
    PRODUCT("LoRA gate_up down", forward_product, 16384, 4096, 32),
    PRODUCT("LoRA o down", forward_product, 16384, 4096, 16),
    PRODUCT("LoRA down down", forward_product, 16384, 14336, 16),
    PRODUCT("LoRA q up", forward_product, 16384, 16, 4096),
    PRODUCT("LoRA gate up", forward_product, 16384, 16, 14336),
    PRODUCT("LoRA q up dgrad", input_gradient, 16384, 16, 4096),
    PRODUCT("LoRA gate up dgrad", input_gradient, 16384, 16, 14336),
    PRODUCT("LoRA qkv down dgrad", input_gradient, 16384, 4096, 48),
    PRODUCT("LoRA down down dgrad", input_gradient, 16384, 14336, 16),
    PRODUCT("LoRA qkv down wgrad", weight_gradient, 16384, 4096, 48),
    PRODUCT("LoRA gate_up down wgrad", weight_gradient, 16384, 4096, 32),
    PRODUCT("LoRA down down wgrad", weight_gradient, 16384, 14336, 16),
    PRODUCT("LoRA q up wgrad", weight_gradient, 16384, 16, 4096),
    PRODUCT("LoRA gate up wgrad", weight_gradient, 16384, 16, 14336),
    PRODUCT("8B qkv", forward_product, 16384, 4096, 6144),
    PRODUCT("8B qkv, sum", sum_product, 16384, 4096, 6144),
    PRODUCT("8B gate_up", forward_product, 16384, 4096, 28672),
    PRODUCT("8B gate_up, sum", sum_product, 16384, 4096, 28672),
    PRODUCT("8B down", forward_product, 16384, 14336, 4096),
    PRODUCT("8B down, sum", sum_product, 16384, 14336, 4096),
    {"add_rms_norm 8192 x 4096", rms_norm_forward<8192, 4096>},
    {"add_rms_norm 16384 x 896", rms_norm_forward<16384, 896>},
    {"rms_norm_again 8192 x 4096", rms_norm_again<8192, 4096>},
    {"add_rms_norm_backward 8192 x 4096", rms_norm_backward<8192, 4096>},
    {"add_rms_norm_backward 16384 x 896", rms_norm_backward<16384, 896>},
    {"add_layer_norm 65536 x 768", layer_norm_forward<65536, 768>},
    {"add_layer_norm_backward 65536 x 768", layer_norm_backward<65536, 768>},
    {"swiglu 8192 x 7168", swiglu<8192, 7168>},
    {"swiglu 16384 x 4864", swiglu<16384, 4864>},
    {"swiglu_backward 8192 x 7168", swiglu_backward<8192, 7168>},
    {"swiglu_backward 16384 x 4864", swiglu_backward<16384, 4864>},
    {"gelu 65536 x 3072", gelu<65536, 3072>},
    {"gelu_backward 65536 x 3072", gelu_backward<65536, 3072>},
    {"rotate 8192 x 20 heads of 128", rotation<8192, 1, 16, 4, 128>},
    {"rotate 16384 x 16 heads of 64", rotation<2048, 8, 14, 2, 64>},
    {"attention backward, 8B", attention_backward<8192, 1, 16, 4, 128, false>},
    {"attention backward rotated, 8B", attention_backward<8192, 1, 16, 4, 128, true>},
    {"attention backward, 0.5B", attention_backward<2048, 8, 14, 2, 64, false>},
    {"attention backward rotated, 0.5B", attention_backward<2048, 8, 14, 2, 64, true>},
    {"attention, 8192, D 128", attention<8192, 1, 32, 8, 128, Packed::no>},
    {"attention, 8192, D 128, one document", attention<8192, 1, 32, 8, 128, Packed::one_document>},
    {"attention, 8192, D 128, documents", attention<8192, 1, 32, 8, 128, Packed::documents>},
    {"attention, 8 x 2048, D 64", attention<2048, 8, 14, 2, 64, Packed::no>},
    {"attention, 8 x 2048, D 64, one each", attention<2048, 8, 14, 2, 64, Packed::one_document>},
    {"attention, 8 x 2048, D 64, documents", attention<2048, 8, 14, 2, 64, Packed::documents>},
    {"head norm backward 16384 x 24", head_norm_backward<16384, 16, 8, 128>},
    {"cross entropy 8192 x 64128", cross_entropy_forward<8192, 64128>},
    {"cross entropy 16384 x 75968", cross_entropy_forward<16384, 75968>},
    {"cross entropy 65536 x 50257", cross_entropy_forward<65536, 50257>},
    {"cross entropy backward 8192 x 64128", cross_entropy_backward<8192, 64128>},
    {"cross entropy backward 16384 x 75968", cross_entropy_backward<16384, 75968>},
    {"cross entropy backward 65536 x 50257", cross_entropy_backward<65536, 50257>},
    {"cross entropy, gradient 8192 x 128256", cross_entropy_gradient<8192, 128256>},
    {"cross entropy, gradient 8192 x 151936", cross_entropy_gradient<8192, 151936>},
    {"cross entropy, gradient 16384 x 50257", cross_entropy_gradient<16384, 50257>},
    {"cross entropy, gradient 8192 x 32000", cross_entropy_gradient<8192, 32000>},
    {"fp8 columns 8192 x 4096, ATen", fp8_columns<By::aten, 8192, 4096>},
    {"fp8 columns 8192 x 4096", fp8_columns<By::choice, 8192, 4096>},
    {"fp8 columns 8192 x 14336, ATen", fp8_columns<By::aten, 8192, 14336>},
    {"fp8 columns 8192 x 14336", fp8_columns<By::choice, 8192, 14336>},
    {"fp8 columns 28672 x 4096, ATen", fp8_columns<By::aten, 28672, 4096>},
    {"fp8 columns 28672 x 4096", fp8_columns<By::choice, 28672, 4096>},
    {"embedding gradient 8192 x 4096", embedding_gradient<8192, 4096>},
    {"embedding gradient 65536 x 768", embedding_gradient<65536, 768>},
    {"bias gradient 65536 x 2304", bias_gradient<65536, 2304>},
    {"bias gradient 65536 x 768", bias_gradient<65536, 768>},
    {"bias gradient 16384 x 1152", bias_gradient<16384, 1152>},
    {"GPT-2 logits, 50257 of 50257", gpt2_head<Product::logits, 50257, 50257>},
    {"GPT-2 logits, 50257 of 50304", gpt2_head<Product::logits, 50257, 50304>},
    {"GPT-2 logits, 50256 of 50304", gpt2_head<Product::logits, 50256, 50304>},
    {"GPT-2 logits' dgrad, 50257 of 50257", gpt2_head<Product::input_gradient, 50257, 50257>},
    {"GPT-2 logits' dgrad, 50257 of 50304", gpt2_head<Product::input_gradient, 50257, 50304>},
    {"GPT-2 logits' dgrad, 50256 of 50304", gpt2_head<Product::input_gradient, 50256, 50304>},
    {"GPT-2 logits' wgrad, 50257 of 50257", gpt2_head<Product::weight_gradient, 50257, 50257>},
    {"GPT-2 logits' wgrad, 50257 of 50304", gpt2_head<Product::weight_gradient, 50257, 50304>},
    {"GPT-2 logits' wgrad, 50256 of 50304", gpt2_head<Product::weight_gradient, 50256, 50304>},
    {"adamw, fp32", [] { return adamw(at::kFloat, at::kFloat, false); }},
    {"adamw, fp32 and bf16 weights", [] { return adamw(at::kFloat, at::kFloat, true); }},
    {"adamw, bf16 moments", [] { return adamw(at::kFloat, at::kBFloat16, true); }},
    {"adamw, bf16 master", [] { return adamw(at::kBFloat16, at::kBFloat16, false); }},
    {"sum of squares", sums},
    {"marks of inf and nan", marks},
};

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  throw tptrain::InternalError(tptrain::problem(tptrain::cat("CUDA: ", cudaGetErrorString(error))));
}

/// The fastest of many runs, each between two events.
double best_ms(const Work& work) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  for (int i = 0; i < 3; ++i) work.run();
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 20; ++i) {
    check(cudaEventRecord(begin));
    work.run();
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    best = std::min(best, static_cast<double>(ms));
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return best;
}

double rate_of(const char* name, const Work& work, double limit) {
  const double ms = best_ms(work);
  const double rate = work.bytes / ms * 1e-6;
  std::printf("%-38s %9.3f %9.1f %8.1f %%\n", name, ms, rate,
              100.0 * rate / (limit > 0 ? limit : rate));
  std::fflush(stdout);
  return rate;
}

}  // namespace

int main(int argc, char** argv) {
  at::NoGradGuard no_grad;
  const std::string_view wanted = argc > 1 ? argv[1] : "";
  std::printf("%-38s %9s %9s %10s\n", "operation", "ms", "GB/s", "of a copy");
  const double limit = rate_of("copy, device to device", copy(), 0);
  for (const Entry& entry : kEntries) {
    if (std::string_view(entry.name).find(wanted) == std::string_view::npos) continue;
    rate_of(entry.name, entry.prepare(), limit);
  }
  return 0;
}
