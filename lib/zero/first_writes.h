// Gradients that count as zero without being zeroed: the first product of a step that makes a
// weight's gradient overwrites it, which spares a pass of zeros over it. What is added to from the
// start (a look-up's rows, norms, biases, padding) is zeroed.
#pragma once

#include <ATen/core/Tensor.h>

#include <unordered_map>
#include <vector>

#include "parameters/parameter.h"
#include "zero/param_buckets.h"

namespace tptrain::zero {

class FirstWrites final : public parameters::GradientOwner {
 public:
  /// Owns the gradients of all buckets that train; `buckets` must outlive it. `cleared`: whose
  /// gradient somebody else zeroes, or null.
  FirstWrites(const ParamBuckets& buckets, const parameters::Parameter* cleared);
  ~FirstWrites();
  FirstWrites(const FirstWrites&) = delete;  // parameters know its address

  // Of the weights whose gradient is first written by a product, as a whole.
  bool is_first_write(const parameters::Parameter& parameter) const override;
  void written(const parameters::Parameter& parameter) override;

  /// From here on the bucket's gradient counts as zero: once the caller has zeroed what is appended
  /// to `zeroed`.
  void expect(const Bucket& bucket, std::vector<at::Tensor>& zeroed);
  /// Zeroes what counts as zero and has not been written.
  void zero_unwritten(const Bucket& bucket);

 private:
  struct OfBucket {
    std::vector<parameters::Parameter*> overwritten;
    std::vector<at::Tensor> zeroed;  // everything else, padding included
  };
  OfBucket of_bucket(const ParamBuckets& buckets, const Bucket& bucket,
                     const parameters::Parameter* cleared) const;

  std::unordered_map<const Bucket*, OfBucket> buckets_;
  // Of every weight that is overwritten: nothing has been written since expect().
  std::unordered_map<const parameters::Parameter*, bool> unwritten_;
};

}  // namespace tptrain::zero
