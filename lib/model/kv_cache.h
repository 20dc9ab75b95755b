// Keys and values of every layer for the tokens seen so far, for generation only: allocated whole
// at construction, filled from the front. This rank's kv heads only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace tptrain::model {

struct KvCacheShape {
  int64_t layers = 0;
  int64_t max_length = 0;  // positions
  int64_t batch = 0;
  int64_t kv_width = 0;  // local kv heads * head_dim
};

class KvCache {
 public:
  KvCache(const KvCacheShape& shape, const at::TensorOptions& options);

  /// Positions held; the next token's position.
  int64_t length() const { return length_; }
  int64_t max_length() const { return shape_.max_length; }
  int64_t batch() const { return shape_.batch; }

  struct View {
    at::Tensor keys;    // [length, B, kv_width]
    at::Tensor values;  // likewise
  };
  /// Writes the keys and values [S, B, kv_width] of the positions length() .. length() + S - 1 of
  /// one layer and returns all of that layer up to them. length() moves in advance(), once for all
  /// layers.
  View append(int64_t layer, const at::Tensor& keys, const at::Tensor& values);
  void advance(int64_t positions) { length_ += positions; }

 private:
  KvCacheShape shape_;
  int64_t length_ = 0;
  std::vector<at::Tensor> keys_;    // a layer each: [max_length, B, kv_width]
  std::vector<at::Tensor> values_;  // likewise
};

}  // namespace tptrain::model
