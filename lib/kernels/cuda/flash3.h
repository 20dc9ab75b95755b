// FlashAttention-3 for Hopper, where the program was built with its sources
// (third_party/flash_attention_3.cmake): bf16, causal, whole sequences, gradients written where
// they belong in the packed buffer. Pointers and sizes; which call takes it, and its memory, is
// decided in ../attention_flash3.cpp.
//
// One of two implements it: flash3.cpp with the instances of flash3.cu, else flash3_absent.cpp,
// which serves nothing.
#pragma once

#include <cstdint>

#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

/// Rows [positions, batch, ..]: of qkv the heads of q, k and v; of context those of q.
struct Flash3 {
  int64_t positions = 0;
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int multiprocessors = 0;
  const void* qkv = nullptr;
  void* context = nullptr;
  float* logsumexp = nullptr;    // [batch, heads, positions]
  int32_t* next_tile = nullptr;  // forward alone: one, 0
  // Backward alone; sums in fp32, of positions filled up to kRows.
  const void* grad_context = nullptr;
  void* grad_qkv = nullptr;
  float* sum_q = nullptr;  // [batch, heads, positions, head_dim], no matter what
  float* sum_k = nullptr;  // [batch, kv_heads, positions, head_dim], zero; where heads differ
  float* sum_v = nullptr;  // likewise
  float* rows[2] = {};     // [batch, heads, positions] each, no matter what

  static constexpr int64_t kRows = 128;
  int64_t filled_positions() const { return (positions + kRows - 1) / kRows * kRows; }
  /// Elements of sum_q, of each of rows, and of each of sum_k and sum_v.
  int64_t sum_numel() const { return row_numel() * head_dim; }
  int64_t row_numel() const { return batch * heads * filled_positions(); }
  int64_t kv_sum_numel() const {
    return heads == kv_heads ? 0 : batch * kv_heads * filled_positions() * head_dim;
  }
  /// What backward takes beside its result: all of them.
  int64_t backward_bytes() const {
    return (sum_numel() + 2 * row_numel() + 2 * kv_sum_numel()) *
           static_cast<int64_t>(sizeof(float));
  }
};

/// Whether this program was built with it.
bool has_flash3();
/// Whether it serves such heads, on a device of such a capability.
bool takes_flash3(const Flash3& args, int capability);
void flash3_forward(const Flash3& args, Stream stream);
void flash3_backward(const Flash3& args, Stream stream);

}  // namespace tptrain::kernels::cuda
