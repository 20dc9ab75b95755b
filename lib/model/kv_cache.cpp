#include "model/kv_cache.h"

#include <ATen/ATen.h>

namespace tptrain::model {

KvCache::KvCache(const KvCacheShape& shape, const at::TensorOptions& options) : shape_(shape) {
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    keys_.push_back(at::empty({shape.max_length, shape.batch, shape.kv_width}, options));
    values_.push_back(at::empty({shape.max_length, shape.batch, shape.kv_width}, options));
  }
}

KvCache::View KvCache::append(int64_t layer, const at::Tensor& keys, const at::Tensor& values) {
  const int64_t end = length_ + keys.size(0);
  keys_[layer].slice(0, length_, end).copy_(keys);
  values_[layer].slice(0, length_, end).copy_(values);
  return {.keys = keys_[layer].slice(0, 0, end), .values = values_[layer].slice(0, 0, end)};
}

}  // namespace tptrain::model
