#include "inference/load_parameters.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/work.h"

namespace tptrain::inference {

void load_parameters(zero::ParamBuckets& buckets, const sharding::TensorSource& source) {
  int64_t elements = 0;
  for (const zero::Bucket& bucket : buckets.buckets()) elements += bucket.numel;
  const Work work("reading the weights", WorkUnit::bytes,
                  elements * static_cast<int64_t>(sizeof(float)));
  for (zero::Bucket& bucket : buckets.buckets()) {
    for (const zero::BucketPiece& piece : zero::pieces_of(bucket, 0, bucket.numel)) {
      for (int64_t done = 0; done < piece.count; done += sharding::kStateChunkElements) {
        const int64_t count = std::min(sharding::kStateChunkElements, piece.count - done);
        at::Tensor values = at::empty({count}, at::kFloat);
        const int64_t begin = piece.slice_begin + done;
        source.read_slice(piece.slice->spec, begin, begin + count, values);
        bucket.data.narrow(0, piece.bucket_begin + done, count).copy_(values);
      }
    }
  }
}

}  // namespace tptrain::inference
