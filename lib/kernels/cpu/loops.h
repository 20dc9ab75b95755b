// The CPU loops behind kernels.h, on raw row-major arrays: one pass over memory each, rows [begin,
// end) of the arrays given. T is float or Bf16, how activations and weights lie in memory; all
// arithmetic is fp32. No torch and no threads here; parallel.h cuts the rows. Formulas and shapes
// are those of kernels.h.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

template <typename T>
struct RmsNormForward {
  const T* x = nullptr;          // [T, H]
  const T* delta = nullptr;      // [T, H] or null: added to x, the sum goes to `sum`
  const T* weight = nullptr;     // [H]
  T* sum = nullptr;              // [T, H], only with delta; what is normed is the sum as stored
  T* output = nullptr;           // [T, H]
  float* inverse_rms = nullptr;  // [T]
  int64_t hidden = 0;
  double eps = 0.0;
};
void rms_norm_rows(const RmsNormForward<float>& args, int64_t begin, int64_t end);
void rms_norm_rows(const RmsNormForward<Bf16>& args, int64_t begin, int64_t end);
/// Output anew from x and inverse_rms, which is only read here.
void rms_norm_again_rows(const RmsNormForward<float>& args, int64_t begin, int64_t end);
void rms_norm_again_rows(const RmsNormForward<Bf16>& args, int64_t begin, int64_t end);

template <typename T>
struct RmsNormBackward {
  const T* grad_output = nullptr;      // [T, H]
  const T* x = nullptr;                // [T, H]
  const T* weight = nullptr;           // [H]
  const float* inverse_rms = nullptr;  // [T]
  const T* grad_sum = nullptr;         // [T, H] or null: added to the gradient of x
  T* grad_x = nullptr;                 // [T, H]
  int64_t hidden = 0;
};
/// Adds to weight_grad [H]; scratch [H] is overwritten.
void rms_norm_backward_rows(const RmsNormBackward<float>& args, float* weight_grad, float* scratch,
                            int64_t begin, int64_t end);
void rms_norm_backward_rows(const RmsNormBackward<Bf16>& args, float* weight_grad, float* scratch,
                            int64_t begin, int64_t end);

template <typename T>
struct LayerNormForward {
  const T* x = nullptr;          // [T, H]
  const T* delta = nullptr;      // [T, H] or null: added to x, the sum goes to `sum`
  const T* weight = nullptr;     // [H]
  const T* bias = nullptr;       // [H]
  T* sum = nullptr;              // [T, H], only with delta; what is normed is the sum as stored
  T* output = nullptr;           // [T, H]
  float* mean = nullptr;         // [T]
  float* inverse_std = nullptr;  // [T]
  int64_t hidden = 0;
  double eps = 0.0;
};
void layer_norm_rows(const LayerNormForward<float>& args, int64_t begin, int64_t end);
void layer_norm_rows(const LayerNormForward<Bf16>& args, int64_t begin, int64_t end);
/// Output anew from x, mean and inverse_std, which are only read here.
void layer_norm_again_rows(const LayerNormForward<float>& args, int64_t begin, int64_t end);
void layer_norm_again_rows(const LayerNormForward<Bf16>& args, int64_t begin, int64_t end);

template <typename T>
struct LayerNormBackward {
  const T* grad_output = nullptr;      // [T, H]
  const T* x = nullptr;                // [T, H]
  const T* weight = nullptr;           // [H]
  const float* mean = nullptr;         // [T]
  const float* inverse_std = nullptr;  // [T]
  const T* grad_sum = nullptr;         // [T, H] or null: added to the gradient of x
  T* grad_x = nullptr;                 // [T, H]
  int64_t hidden = 0;
};
/// Adds to gradients [2, H], weight's then bias's; scratch [2, H] is overwritten.
void layer_norm_backward_rows(const LayerNormBackward<float>& args, float* gradients,
                              float* scratch, int64_t begin, int64_t end);
void layer_norm_backward_rows(const LayerNormBackward<Bf16>& args, float* gradients, float* scratch,
                              int64_t begin, int64_t end);

/// RMSNorm of the heads of q and k at the front of packed tokens.
template <typename T>
struct HeadNorm {
  T* packed = nullptr;          // [T, width]: values, or in backward gradients, in place
  const T* input = nullptr;     // [T, (q_heads + k_heads) * D]: backward's values before the norm
  const T* q_weight = nullptr;  // [D]
  const T* k_weight = nullptr;  // [D]
  int64_t width = 0;
  int64_t q_heads = 0;
  int64_t k_heads = 0;
  int64_t head_dim = 0;
  double eps = 0.0;
};
/// Tokens [begin, end).
void head_norm_tokens(const HeadNorm<float>& args, int64_t begin, int64_t end);
void head_norm_tokens(const HeadNorm<Bf16>& args, int64_t begin, int64_t end);
/// Adds to gradients [2, D], that of q_weight and of k_weight; scratch [2, D] is overwritten.
void head_norm_backward_tokens(const HeadNorm<float>& args, float* gradients, float* scratch,
                               int64_t begin, int64_t end);
void head_norm_backward_tokens(const HeadNorm<Bf16>& args, float* gradients, float* scratch,
                               int64_t begin, int64_t end);

/// Elements [begin, end).
void gelu_elements(const float* x, float* output, int64_t begin, int64_t end);
void gelu_elements(const Bf16* x, Bf16* output, int64_t begin, int64_t end);
void gelu_backward_elements(const float* grad_output, const float* x, float* grad_x, int64_t begin,
                            int64_t end);
void gelu_backward_elements(const Bf16* grad_output, const Bf16* x, Bf16* grad_x, int64_t begin,
                            int64_t end);

void swiglu_rows(const float* gate_up, float* output, int64_t ffn, int64_t begin, int64_t end);
void swiglu_rows(const Bf16* gate_up, Bf16* output, int64_t ffn, int64_t begin, int64_t end);
void swiglu_backward_rows(const float* grad_output, const float* gate_up, float* grad_gate_up,
                          int64_t ffn, int64_t begin, int64_t end);
void swiglu_backward_rows(const Bf16* grad_output, const Bf16* gate_up, Bf16* grad_gate_up,
                          int64_t ffn, int64_t begin, int64_t end);

template <typename T>
struct Rotary {
  T* packed = nullptr;         // [S, B, width]
  const float* cos = nullptr;  // [S, D/2]
  const float* sin = nullptr;  // [S, D/2]
  int64_t batch = 0;
  int64_t width = 0;
  int64_t heads = 0;  // rotated ones
  int64_t head_dim = 0;
  float sign = 1.0f;  // -1: inverse
};
/// Positions [begin, end).
void rotary_positions(const Rotary<float>& args, int64_t begin, int64_t end);
void rotary_positions(const Rotary<Bf16>& args, int64_t begin, int64_t end);

/// Dropout in place on [heads, S, B, width]; a row is one (head, position, sample).
template <typename T>
struct DropoutRows {
  T* x = nullptr;
  int64_t positions = 0;  // S
  int64_t batch = 0;      // B
  int64_t width = 0;      // elements of a row, the index of Philox's counter
  int64_t first_head = 0;
  int64_t first_element = 0;
  int64_t first_position = 0;
  int64_t first_sample = 0;
  std::array<uint32_t, 2> key = {};
  uint32_t threshold = 0;  // a word below it drops its element
  float scale = 1.0f;      // of what stays
};
void dropout_rows(const DropoutRows<float>& args, int64_t begin, int64_t end);
void dropout_rows(const DropoutRows<Bf16>& args, int64_t begin, int64_t end);

void row_max_rows(const float* logits, float* row_max, int64_t vocab, int64_t begin, int64_t end);
void row_max_rows(const Bf16* logits, float* row_max, int64_t vocab, int64_t begin, int64_t end);
template <typename T>
struct VocabExp {
  T* logits = nullptr;               // [T, V], overwritten
  const float* row_max = nullptr;    // [T]
  const int64_t* targets = nullptr;  // [T]
  float* sum_exp = nullptr;          // [T]
  float* target_logit = nullptr;     // [T]
  int64_t vocab_begin = 0;
  int64_t vocab = 0;  // V
};
void vocab_exp_rows(const VocabExp<float>& args, int64_t begin, int64_t end);
void vocab_exp_rows(const VocabExp<Bf16>& args, int64_t begin, int64_t end);
template <typename T>
struct VocabBackward {
  T* exp = nullptr;                     // [T, V], overwritten
  const float* sum_exp = nullptr;       // [T]
  const float* target_logit = nullptr;  // [T]
  const float* row_max = nullptr;       // [T], read with z_loss only
  const int64_t* targets = nullptr;     // [T]
  float scale = 0.0f;
  float z_loss = 0.0f;
  int64_t vocab_begin = 0;
  int64_t vocab = 0;
};
void vocab_backward_rows(const VocabBackward<float>& args, int64_t begin, int64_t end);
void vocab_backward_rows(const VocabBackward<Bf16>& args, int64_t begin, int64_t end);

/// Causal attention, fp32 only; a task is one kv head of one sequence with all query heads of its
/// group, task = b * kv_heads + kv_head.
struct Attention {
  int64_t positions = 0;  // S
  int64_t batch = 0;      // B
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  const float* qkv = nullptr;           // [S, B, (heads + 2 * kv_heads) * D]
  float* context = nullptr;             // [S, B, heads * D]; read by backward
  float* logsumexp = nullptr;           // [B, heads, S]; read by backward
  const float* grad_context = nullptr;  // [S, B, heads * D], backward only
  float* grad_qkv = nullptr;            // as qkv, backward only
};
/// Floats of scratch that one thread needs.
int64_t attention_scratch(const Attention& args);
int64_t attention_backward_scratch(const Attention& args);
void attention_tasks(const Attention& args, float* scratch, int64_t begin, int64_t end);
void attention_backward_tasks(const Attention& args, float* scratch, int64_t begin, int64_t end);

}  // namespace tptrain::kernels::cpu
