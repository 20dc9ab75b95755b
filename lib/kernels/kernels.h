// Fused operations on plain local tensors, forward and backward side by side: no autograd, no
// parameters, no communication. CPU tensors take the vectorised CPU code, CUDA tensors the
// kernels of cuda/ (both fp32 and bf16), and what has none the ATen composition; all give the same
// numbers within rounding. Activations and weights of one call have one type; whatever it is,
// arithmetic is fp32 and rounds where it is stored. T = S * B tokens, sequence-first: token t = s *
// B + b. All tensors contiguous. Weight gradients are *added* to fp32 buffers.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tptrain::kernels {

// --- RMSNorm: y = x * rsqrt(mean(x^2) + eps) * weight. Source: Zhang & Sennrich, "Root Mean Square
// Layer Normalization", NeurIPS 2019.
struct RmsNormResult {
  at::Tensor output;       // like x
  at::Tensor inverse_rms;  // [T] fp32, for backward
};
RmsNormResult rms_norm(const at::Tensor& x, const at::Tensor& weight,
                       double eps);  // x [.., H], weight [H]
/// Returns the gradient of x; adds that of weight to weight_grad [H] fp32.
at::Tensor rms_norm_backward(const at::Tensor& grad_output, const at::Tensor& x,
                             const at::Tensor& weight, const at::Tensor& inverse_rms,
                             at::Tensor& weight_grad);

/// residual + delta, then RMSNorm of the sum, in one pass.
struct AddRmsNormResult {
  at::Tensor sum;  // like residual
  RmsNormResult norm;
};
AddRmsNormResult add_rms_norm(const at::Tensor& residual, const at::Tensor& delta,
                              const at::Tensor& weight, double eps);
/// The output of rms_norm or add_rms_norm anew from what their backward needs anyway, bitwise the
/// same: x (or the sum) as stored, and inverse_rms.
at::Tensor rms_norm_again(const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& inverse_rms);
/// Gradient of the sum: rms_norm_backward(grad_output) + grad_sum, in one pass (it is the gradient
/// of residual and of delta alike).
at::Tensor add_rms_norm_backward(const at::Tensor& grad_sum, const at::Tensor& grad_output,
                                 const at::Tensor& sum, const at::Tensor& weight,
                                 const at::Tensor& inverse_rms, at::Tensor& weight_grad);

// --- LayerNorm: y = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias. Source: Ba, Kiros &
// Hinton, "Layer Normalization", 2016.
struct LayerNormResult {
  at::Tensor output;      // like x
  at::Tensor statistics;  // [2, T] fp32, for backward: means, inverse standard deviations
};
LayerNormResult layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           double eps);  // x [.., H], weight and bias [H]
/// Returns the gradient of x; adds those of weight and bias to weight_grad and bias_grad [H] fp32.
/// column_sums, where given: becomes the sums over the rows of what is returned, [H] fp32, where
/// the kernel makes them in passing (CUDA); else stays undefined.
at::Tensor layer_norm_backward(const at::Tensor& grad_output, const at::Tensor& x,
                               const at::Tensor& weight, const at::Tensor& statistics,
                               at::Tensor& weight_grad, at::Tensor& bias_grad,
                               at::Tensor* column_sums = nullptr);

/// residual + delta, then LayerNorm of the sum, in one pass.
struct AddLayerNormResult {
  at::Tensor sum;  // like residual
  LayerNormResult norm;
};
AddLayerNormResult add_layer_norm(const at::Tensor& residual, const at::Tensor& delta,
                                  const at::Tensor& weight, const at::Tensor& bias, double eps);
/// The output of layer_norm or add_layer_norm anew, bitwise the same.
at::Tensor layer_norm_again(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& statistics);
/// Gradient of the sum: layer_norm_backward(grad_output) + grad_sum, in one pass.
at::Tensor add_layer_norm_backward(const at::Tensor& grad_sum, const at::Tensor& grad_output,
                                   const at::Tensor& sum, const at::Tensor& weight,
                                   const at::Tensor& statistics, at::Tensor& weight_grad,
                                   at::Tensor& bias_grad, at::Tensor* column_sums = nullptr);

// --- GELU, tanh form: y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). Source: Hendrycks &
// Gimpel, "Gaussian Error Linear Units", 2016, section 2.
at::Tensor gelu_tanh(const at::Tensor& x);
at::Tensor gelu_tanh_backward(const at::Tensor& grad_output, const at::Tensor& x);

// --- SwiGLU: y = silu(gate) * up. gate_up [.., 2F]: the first F columns are the gate. Source:
// Shazeer, "GLU Variants Improve Transformer", 2020.
// `amax`: of fp8_amax() (fp8.h), which then holds the largest magnitude of what is returned; or
// undefined.
at::Tensor swiglu(const at::Tensor& gate_up, const at::Tensor& amax = {});  // -> [.., F]
at::Tensor swiglu_backward(const at::Tensor& grad_output, const at::Tensor& gate_up,
                           const at::Tensor& amax = {});  // -> [.., 2F]

// --- Rotary embedding, rotate-half form of Hugging Face (pairs d and d + D/2). Source: Su et al.,
// "RoFormer", 2021, section 3.2.
struct RotaryTable {
  at::Tensor cos;  // [S, D/2] fp32
  at::Tensor sin;  // [S, D/2] fp32
};
/// Angles position * theta^(-2i/D) in double, rounded once; positions first .. first + length - 1.
RotaryTable rotary_table(int64_t first_position, int64_t length, int64_t head_dim, double theta,
                         at::Device device);
/// The same with other angles a position: frequencies [D/2].
RotaryTable rotary_table(int64_t first_position, int64_t length,
                         const std::vector<double>& frequencies, at::Device device);
enum class Rotation { forward, inverse };  // inverse is the backward
/// In place on the first `rotated_heads` heads of qkv [S, B, heads * D] (q and k lie before v in
/// the packed layout).
void rotate_(at::Tensor& qkv, const RotaryTable& table, int64_t rotated_heads, int64_t head_dim,
             Rotation direction);

// --- RMSNorm of each head of q and k, on the packed buffer that attention takes (below). Source:
// Henry et al., "Query-Key Normalization for Transformers", 2020, in the form of Qwen3.
struct HeadNorm {
  at::Tensor q_weight;  // [D]
  at::Tensor k_weight;  // [D]
  double eps = 0.0;
};
struct AttentionShape;
/// In place on the q and k heads of qkv [S, B, (heads + 2 * kv_heads) * D].
void head_rms_norm_(at::Tensor& qkv, const HeadNorm& norm, const AttentionShape& shape);
/// In place on the gradient of qkv; `input` [S, B, (heads + kv_heads) * D] are q and k as they were
/// before. Adds the weights' gradients to q_grad and k_grad [D] fp32.
void head_rms_norm_backward_(at::Tensor& grad_qkv, const at::Tensor& input, const HeadNorm& norm,
                             const AttentionShape& shape, at::Tensor& q_grad, at::Tensor& k_grad);

// --- Causal attention with grouped query heads on a packed buffer [S, B, (heads + 2 * kv_heads) *
// D]: q heads, then k heads, then v heads.
struct AttentionShape {
  int64_t heads = 0;  // local
  int64_t kv_heads =
      0;  // local; heads % kv_heads == 0: query head h reads kv head h / (heads / kv_heads)
  int64_t head_dim = 0;
};
struct AttentionResult {
  at::Tensor context;    // [S, B, heads * D]
  at::Tensor logsumexp;  // what backward needs besides qkv and context; its shape is the backend's
};
/// Documents end to end in one sequence [T, 1, ..], each attending to itself alone.
struct Documents {
  /// int32 [n + 1] on the device of qkv: 0, then where each document ends, rising; the last is T.
  /// The same end may come again (an empty document), so that n can stay the same from batch to
  /// batch. On CUDA the host never reads it: a captured graph replays with what it holds then.
  at::Tensor ends;
  /// No document has more tokens: a bound, the same in every batch.
  int64_t longest = 0;
};
/// Scale 1/sqrt(D). With documents qkv is [T, 1, (heads + 2 * kv_heads) * D].
AttentionResult causal_attention(const at::Tensor& qkv, const AttentionShape& shape,
                                 const Documents* documents = nullptr);
/// Where the sums over a gradient's rows belong: the gradient of a bias. What makes the gradient
/// may add them in passing, and says so.
struct ColumnTotals {
  at::Tensor totals;  // [C] fp32; undefined: not wanted
  bool added = false;
};
/// Gradient of qkv, packed as qkv is; with `rotated_by`, of what qkv was before rotate_ turned q
/// and k by that table (on CUDA in the pass that packs, which without a rotation may serve
/// `totals`).
at::Tensor causal_attention_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                                     const AttentionResult& forward, const AttentionShape& shape,
                                     const RotaryTable* rotated_by = nullptr,
                                     const Documents* documents = nullptr,
                                     ColumnTotals* totals = nullptr);
enum class AttentionMask { causal, documents };
/// What causal_attention calls for such a tensor (of more than one position), for the log.
struct AttentionBackend {
  std::string name;         // "cuDNN"
  std::string slower_than;  // "cuDNN, which ... (the reason)"; empty: it is the fastest there is
};
AttentionBackend attention_backend(const at::Tensor& qkv, const AttentionShape& shape,
                                   AttentionMask mask = AttentionMask::causal);
/// Which random numbers an application of dropout draws: Philox4x32-10 under `key`, which stands
/// for (seed, step, layer, site), with the counter (index / 4, position, sample, head). An element
/// is dropped where word index % 4 is below probability * 2^32; what stays is scaled by 1 / (1 -
/// probability). No generator state, and the same on every layout.
struct Dropout {
  double probability = 0.0;
  std::array<uint32_t, 2> key = {};
  int64_t first_sample = 0;   // global number of sequence b = 0
  int64_t first_head = 0;     // global number of local query head 0; attention only
  int64_t first_element = 0;  // global number of local element 0 of the last dimension
};
/// In place on x [S, B, H], whose first row is position `first_position`: index is the element of
/// H, head is 0. Its own backward (on the gradient). At probability 0 nothing happens.
void dropout_(at::Tensor& x, const Dropout& dropout, int64_t first_position);
/// causal_attention with dropout of the probabilities (index is the key's position, position the
/// query's). Not fused: the probabilities, [S, S] fp32, of one sequence and head at a time (of
/// several heads where they are small), made anew in backward. Returns the context [S, B, heads *
/// D].
at::Tensor causal_attention_dropout(const at::Tensor& qkv, const AttentionShape& shape,
                                    const Dropout& dropout);
at::Tensor causal_attention_dropout_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                                             const AttentionShape& shape, const Dropout& dropout);
/// For generation: q [Sq, B, heads * D] of the last Sq positions attends to keys, values [Sk, B,
/// kv_heads * D] causally (query i sees keys up to Sk - Sq + i).
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                            const AttentionShape& shape);

// --- Cross entropy on a vocabulary slice, in place on logits [T, V_local] (on CUDA rows may lie
// further apart than they are long); the sums between the steps are the caller's all-reduces over
// tp. With one slice: vocab_statistics_ alone. With several, where vocab_keeps_logits:
// vocab_statistics_, all-reduce of row_max, vocab_rescale_, all-reduce of sums; elsewhere
// vocab_row_max, all-reduce, vocab_exp_, all-reduce.
/// Row maxima [T] fp32. -> all-reduce max.
at::Tensor vocab_row_max(const at::Tensor& logits);
/// Returns [2, T] fp32: row sums of exp(logits - row_max), and the target's logit - row_max where
/// the target lies in [vocab_begin, vocab_begin + V_local), else 0. Consumes the logits: what they
/// hold afterwards (the exponentials, or themselves) is for vocab_softmax_backward_ alone. targets
/// [T] int64, -100 ignored. -> all-reduce sum.
at::Tensor vocab_exp_(at::Tensor& logits, const at::Tensor& row_max, const at::Tensor& targets,
                      int64_t vocab_begin);
struct VocabStatistics {
  at::Tensor row_max;  // [T] fp32
  at::Tensor sums;     // [2, T] fp32
};
/// vocab_row_max, and vocab_exp_ with these maxima; on CUDA in one pass over the logits.
VocabStatistics vocab_statistics_(at::Tensor& logits, const at::Tensor& targets,
                                  int64_t vocab_begin);
/// Whether the steps leave the logits as they are until backward.
bool vocab_keeps_logits(const at::Tensor& logits);
/// Sums relative to this slice's maxima become relative to those over all slices. Only where
/// vocab_keeps_logits.
void vocab_rescale_(at::Tensor& sums, const at::Tensor& logits, const at::Tensor& slice_max,
                    const at::Tensor& row_max, const at::Tensor& targets, int64_t vocab_begin);
/// Over the counted targets, fp32 [2] summed in fp64: the sum of log(sum_exp) - target_logit
/// (cross entropy), and the sum of (row_max + log(sum_exp))^2 (z-loss; de Brebisson & Vincent,
/// 2016, as used in PaLM, section 5). sums: [2, T], reduced; row_max [T], reduced.
at::Tensor cross_entropy_sums(const at::Tensor& sums, const at::Tensor& row_max,
                              const at::Tensor& targets);
/// What vocab_exp_ left := gradient by the logits of scale * (cross entropy sum + z_loss * z-loss
/// sum):
/// (softmax * (1 + 2 z_loss * logsumexp) - onehot(target)) * scale, 0 on ignored rows. scale: fp32
/// scalar tensor. Where vocab_keeps_logits and rows lie apart, what lies between them becomes 0.
void vocab_softmax_backward_(at::Tensor& exp, const at::Tensor& sums, const at::Tensor& row_max,
                             const at::Tensor& targets, int64_t vocab_begin,
                             const at::Tensor& scale, double z_loss);
/// vocab_statistics_ and vocab_softmax_backward_ with them, of a vocabulary that is one slice: the
/// same bits; on CUDA the logits are read once where a row fits into the shared memory of eight
/// blocks.
VocabStatistics vocab_softmax_gradient_(at::Tensor& logits, const at::Tensor& targets,
                                        int64_t vocab_begin, const at::Tensor& scale,
                                        double z_loss);

// --- Products. On CUDA in bf16 by the algorithm that is fastest there: the first product of a
// shape times those that cuBLASLt proposes and keeps the choice, so that it waits for the device,
// and that bits may differ between processes. Elsewhere, and in deterministic mode, ATen's own.
// Sums in fp32.
/// a [M, K] times b [K, N] (+ bias [N]) -> [M, N]. A weight [out, in] enters as weight.t() [in,
/// out] in forward, as it is in the input's gradient. Rows may lie further apart than they are
/// long.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});
/// The same into out [M, N], whose rows may lie apart as well.
void product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                 const at::Tensor& bias = {});

enum class Accumulate { add, overwrite };
/// out = factor * a b, or out += factor * a b, rounded once; rows of all three may lie apart.
void scaled_product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double factor,
                        Accumulate accumulate);

/// The weight's gradient, accumulated inside the product: grad += dy^T x, grad fp32 (or bf16:
/// rounded once) [out, in], dy [T, out], x [T, in] (rows of both may lie apart). overwrite: grad =
/// dy^T x, whatever it held.
void accumulate_weight_gradient(at::Tensor& grad, const at::Tensor& grad_output,
                                const at::Tensor& input, Accumulate accumulate = Accumulate::add);

/// How many pieces such a gradient has whose sums of squares its product can find in passing; 0:
/// the device or its sizes (multiples of 256 each) are no such.
int64_t weight_gradient_squares(int64_t out, int64_t in, at::Device device);
/// Whether that is worth it: of such sizes the product alone is about as fast as any other.
bool weight_gradient_squares_pay(int64_t out, int64_t in, at::Device device);
/// grad = dy^T x, whatever it held, and squares [weight_gradient_squares()] fp64: of each piece
/// the sum of squares, of eight elements in fp32 (where these fit into it), of all in fp64, in a
/// fixed order. False: of other operands (not bf16, or rows that do not begin at 16 bytes), of
/// which nothing was done.
bool weight_gradient_with_squares(at::Tensor& grad, const at::Tensor& grad_output,
                                  const at::Tensor& input, at::Tensor& squares);
/// A bias: grad [N] fp32 += the sum over tokens of grad_output [.., N].
void accumulate_bias_gradient(at::Tensor& grad, const at::Tensor& grad_output);

// --- Embedding on a slice of the vocabulary: a table [V_local, H] of the ids begin .. begin +
// V_local - 1; ids [T] int64 in [0, vocab).
struct VocabSlice {
  int64_t begin = 0;
  int64_t vocab = 0;  // of the whole vocabulary
};
/// -> [T, H]: zeros for ids of other slices.
at::Tensor embedding_rows(const at::Tensor& table, const at::Tensor& ids, const VocabSlice& slice);
/// Tokens by their ids, those of one id in their own order: what the gradient's sums follow on
/// CUDA. Undefined on the CPU.
struct TokenOrder {
  at::Tensor sorted_ids;  // int32 [T]
  at::Tensor tokens;      // int64 [T]
};
TokenOrder order_of_tokens(const at::Tensor& ids);
/// Adds row t of grad_output [T, H] to row ids[t] of table_grad (fp32), ids of other slices left
/// out; in an order that depends on the ids alone. `order`: theirs, where it was made before.
void accumulate_embedding_gradient(at::Tensor& table_grad, at::Tensor grad_output,
                                   const at::Tensor& ids, const VocabSlice& slice,
                                   const TokenOrder& order = {});

}  // namespace tptrain::kernels
