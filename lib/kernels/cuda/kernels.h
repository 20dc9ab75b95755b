// The fused operations on CUDA memory: plain pointers and sizes, no torch, so that nvcc sees none
// of it. What each computes stands in ../kernels.h; arithmetic is fp32 whatever the elements are,
// sums over rows have a fixed order (no atomics), so equal input gives equal bits.
//
// Every launch may be captured in a CUDA graph. Scratch memory is the caller's: its size is a
// function of the shapes alone. In a build without CUDA (absent.cpp) built() is false and nothing
// else is called.
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
  float* partial = nullptr;      // [norm_backward_blocks(rows), hidden], thrice with LayerNorm
  float* weight_grad = nullptr;  // [hidden], added to
  float* bias_grad = nullptr;    // likewise, of LayerNorm
  float* column_sums = nullptr;  // of LayerNorm: [hidden], becomes the sums of the rows of grad_x
  int64_t rows = 0;
  int64_t hidden = 0;
};
/// Rows of hidden values up to this many; longer ones take another path.
inline constexpr int64_t kMostHidden = 16384;
int64_t norm_backward_blocks(int64_t rows);
/// Of rows that are too long, or not aligned: false, and without column_sums.
bool norm_backward(const NormBackward& args, Stream stream);

/// RMSNorm of each head of q and k in packed [tokens, width]: q heads first, then k heads.
struct HeadNorm {
  Element element = Element::fp32;
  void* packed = nullptr;       // forward: q and k; backward: their gradient
  const void* input = nullptr;  // backward: [tokens, (q_heads + k_heads) * head_dim]
  const void* q_weight = nullptr;
  const void* k_weight = nullptr;
  float* partial = nullptr;  // backward: [head_norm_backward_blocks(..), 2 * head_dim]
  float* q_grad = nullptr;   // backward: [head_dim], added to
  float* k_grad = nullptr;
  int64_t tokens = 0;
  int64_t width = 0;
  int64_t q_heads = 0;
  int64_t k_heads = 0;
  int64_t head_dim = 0;
  float eps = 0;
};
/// Whether a head is a power of two of 16-byte loads, as many as a warp has lanes at most.
bool takes_head_norm(const HeadNorm& args);
void head_norm(const HeadNorm& args, Stream stream);
int64_t head_norm_backward_blocks(int64_t tokens, int64_t heads);
void head_norm_backward(const HeadNorm& args, Stream stream);

/// gate_up [rows, 2 * ffn] -> output [rows, ffn]. amax_bits, of bf16, or null: becomes the larger
/// of itself and the bits of the largest magnitude of what is written, as fp32 (fp8.h).
void swiglu(Element element, const void* gate_up, void* output, uint32_t* amax_bits, int64_t rows,
            int64_t ffn, Stream stream);
void swiglu_backward(Element element, const void* grad_output, const void* gate_up,
                     void* grad_gate_up, uint32_t* amax_bits, int64_t rows, int64_t ffn,
                     Stream stream);
void gelu_tanh(Element element, const void* x, void* output, int64_t count, Stream stream);
void gelu_tanh_backward(Element element, const void* grad_output, const void* x, void* grad_x,
                        int64_t count, Stream stream);

/// cos and sin null: no rotation.
struct Rotation {
  const float* cos = nullptr;  // [positions, head_dim / 2]
  const float* sin = nullptr;
  float sign = 1.0f;  // -1: inverse
};

/// In place on packed [positions, batch, width].
struct Rotary {
  Element element = Element::fp32;
  void* packed = nullptr;
  Rotation rotation;
  int64_t positions = 0;
  int64_t batch = 0;
  int64_t width = 0;
  int64_t heads = 0;  // rotated, from the front
  int64_t head_dim = 0;
};
void rotate(const Rotary& args, Stream stream);

/// Heads of head_dim neighbours, anywhere: element strides.
struct StridedHeads {
  const void* data = nullptr;
  int64_t position = 0;
  int64_t batch = 0;
  int64_t head = 0;
};
/// packed [positions, batch, (heads + 2 * kv_heads) * head_dim] := q and k rotated, v as it is.
struct PackHeads {
  Element element = Element::fp32;
  StridedHeads q;  // of heads
  StridedHeads k;  // of kv_heads
  StridedHeads v;  // of kv_heads
  void* packed = nullptr;
  Rotation rotation;
  int64_t positions = 0;
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;  // even
};
void pack_heads(const PackHeads& args, Stream stream);

/// In place on rows of (head, position, sample), as ../dropout_heads.h has them.
struct DropoutRows {
  Element element = Element::fp32;
  void* x = nullptr;
  int64_t rows = 0;  // heads * positions * batch
  int64_t positions = 0;
  int64_t batch = 0;
  int64_t width = 0;
  int64_t first_head = 0;
  int64_t first_element = 0;
  int64_t first_position = 0;
  int64_t first_sample = 0;
  uint32_t key[2] = {};
  uint32_t threshold = 0;  // a word below it drops its element
  float scale = 1.0f;      // of what stays
};
void dropout(const DropoutRows& args, Stream stream);

/// Of logits [tokens, vocab], rows `stride` elements apart.
struct Vocab {
  Element element = Element::fp32;
  void* logits = nullptr;
  float* row_max = nullptr;          // [tokens]
  const float* slice_max = nullptr;  // [tokens], of vocab_rescale
  const int64_t* targets = nullptr;  // [tokens]
  float* sums = nullptr;             // [2, tokens]: of exp(logit - max), target's logit - max
  const float* scale = nullptr;      // one, of backward
  float z_loss = 0;
  int64_t vocab_begin = 0;
  int64_t tokens = 0;
  int64_t vocab = 0;
  int64_t stride = 0;
};
/// Writes row_max and sums; leaves the logits.
void vocab_statistics(const Vocab& args, Stream stream);
/// sums, which are relative to slice_max, relative to row_max.
void vocab_rescale(const Vocab& args, Stream stream);
/// logits := their gradient.
void vocab_backward(const Vocab& args, Stream stream);
/// vocab_statistics and vocab_backward, bit for bit, reading the logits once. takes_vocab_both: the
/// device has clusters of blocks, and one's shared memory holds a row.
bool takes_vocab_both(const Vocab& args);
void vocab_both(const Vocab& args, Stream stream);

struct CrossEntropySums {
  const float* sums = nullptr;       // [2, tokens]
  const float* row_max = nullptr;    // [tokens]
  const int64_t* targets = nullptr;  // [tokens]
  double* partial = nullptr;         // [cross_entropy_blocks(tokens), 2]
  float* result = nullptr;           // [2]
  int64_t tokens = 0;
};
int64_t cross_entropy_blocks(int64_t tokens);
void cross_entropy_sums(const CrossEntropySums& args, Stream stream);

/// output [tokens, hidden] := rows of table [vocab, hidden] for ids vocab_begin .. + vocab, zeros
/// for others.
struct EmbeddingRows {
  Element element = Element::fp32;
  const void* table = nullptr;
  const int64_t* ids = nullptr;
  void* output = nullptr;
  int64_t vocab_begin = 0;
  int64_t vocab = 0;
  int64_t tokens = 0;
  int64_t hidden = 0;
};
void embedding_rows(const EmbeddingRows& args, Stream stream);

/// table_grad [vocab, hidden] += rows of grad_output [tokens, hidden], by ids sorted ascending.
struct EmbeddingGradient {
  Element element = Element::fp32;
  const void* grad_output = nullptr;
  const int32_t* sorted_ids = nullptr;  // [tokens]
  const int64_t* order = nullptr;       // [tokens]: which row each of them is of
  float* table_grad = nullptr;
  float* partial = nullptr;  // [2 * embedding_chunks(tokens), hidden]
  int64_t vocab_begin = 0;
  int64_t vocab = 0;
  int64_t tokens = 0;
  int64_t hidden = 0;
};
int64_t embedding_chunks(int64_t tokens);
void embedding_gradient(const EmbeddingGradient& args, Stream stream);

/// total [columns] += the sum of the rows of x [rows, columns].
struct ColumnSums {
  Element element = Element::fp32;
  const void* x = nullptr;
  float* partial = nullptr;  // [column_sum_blocks(rows, columns), columns]
  float* total = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  void* copy = nullptr;  // or null: where the rows go as well, `copy_stride` elements apart
  int64_t copy_stride = 0;
};
int64_t column_sum_blocks(int64_t rows, int64_t columns);
void add_column_sums(const ColumnSums& args, Stream stream);

}  // namespace tptrain::kernels::cuda
