// The fused operations on CUDA memory: plain pointers and sizes, no torch, so that nvcc sees none
// of it. What each computes stands in ../kernels.h; arithmetic is fp32 whatever the elements are,
// sums over rows have a fixed order (no atomics), so equal input gives equal bits. In a build
// without CUDA (absent.cpp) built() is false and nothing else is called.
#pragma once

#include <cstdint>

namespace tptrain::kernels::cuda {

bool built();

enum class Element { fp32, bf16 };

/// Where the work goes: a cudaStream_t.
using Stream = void*;

/// RMSNorm, or LayerNorm where `mean` is not null; of x, or of x + delta, which is stored in `sum`
/// and normed as stored.
struct NormForward {
  Element element = Element::fp32;
  const void* x = nullptr;
  const void* delta = nullptr;  // or null
  const void* weight = nullptr;
  const void* bias = nullptr;  // of LayerNorm
  void* sum = nullptr;         // with delta
  void* output = nullptr;
  float* mean = nullptr;     // [rows]
  float* inverse = nullptr;  // [rows] inverse root of mean square, or of variance
  int64_t rows = 0;
  int64_t hidden = 0;
  float eps = 0;
};
void norm_forward(const NormForward& args, Stream stream);
/// `output` anew from x, mean and inverse.
void norm_again(const NormForward& args, Stream stream);

struct NormBackward {
  Element element = Element::fp32;
  const void* grad_output = nullptr;
  const void* grad_sum = nullptr;  // or null
  const void* x = nullptr;
  const void* weight = nullptr;
  const float* mean = nullptr;  // of LayerNorm
  const float* inverse = nullptr;
  void* grad_x = nullptr;
  float* partial = nullptr;      // [norm_backward_blocks(rows), hidden], twice with LayerNorm
  float* weight_grad = nullptr;  // [hidden], added to
  float* bias_grad = nullptr;    // likewise, of LayerNorm
  int64_t rows = 0;
  int64_t hidden = 0;
};
/// Rows of hidden values up to this many; longer ones take another path.
inline constexpr int64_t kMostHidden = 16384;
int64_t norm_backward_blocks(int64_t rows);
void norm_backward(const NormBackward& args, Stream stream);

/// gate_up [rows, 2 * ffn] -> output [rows, ffn].
void swiglu(Element element, const void* gate_up, void* output, int64_t rows, int64_t ffn,
            Stream stream);
void swiglu_backward(Element element, const void* grad_output, const void* gate_up,
                     void* grad_gate_up, int64_t rows, int64_t ffn, Stream stream);
void gelu_tanh(Element element, const void* x, void* output, int64_t count, Stream stream);
void gelu_tanh_backward(Element element, const void* grad_output, const void* x, void* grad_x,
                        int64_t count, Stream stream);

/// In place on packed [positions, batch, width].
struct Rotary {
  Element element = Element::fp32;
  void* packed = nullptr;
  const float* cos = nullptr;  // [positions, head_dim / 2]
  const float* sin = nullptr;
  int64_t positions = 0;
  int64_t batch = 0;
  int64_t width = 0;
  int64_t heads = 0;  // rotated, from the front
  int64_t head_dim = 0;
  float sign = 1.0f;  // -1: inverse
};
void rotate(const Rotary& args, Stream stream);

/// Of logits [tokens, vocab].
struct Vocab {
  Element element = Element::fp32;
  void* logits = nullptr;
  float* row_max = nullptr;          // [tokens]
  const int64_t* targets = nullptr;  // [tokens]
  float* sums = nullptr;             // [2, tokens]: of exp(logit - max), target's logit - max
  const float* scale = nullptr;      // one, of backward
  float z_loss = 0;
  int64_t vocab_begin = 0;
  int64_t tokens = 0;
  int64_t vocab = 0;
};
/// Writes row_max.
void vocab_row_max(const Vocab& args, Stream stream);
/// Writes sums; leaves the logits.
void vocab_sums(const Vocab& args, Stream stream);
/// logits := their gradient.
void vocab_backward(const Vocab& args, Stream stream);

}  // namespace tptrain::kernels::cuda
