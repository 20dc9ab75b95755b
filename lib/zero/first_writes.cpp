#include "zero/first_writes.h"

#include <utility>

namespace tptrain::zero {
namespace {

enum class Tables { looked_up, multiplied };

// Whether a step's first writer of the gradient is linear_weight_gradient. A look-up adds rows, and
// norms and biases add sums: theirs must begin at zero.
bool gemm_writes_first(const parameters::Parameter& parameter, Tables tables) {
  if (parameter.shape.size() != 2) return false;
  switch (parameter.role) {
    case parameters::Role::column_parallel:
    case parameters::Role::row_parallel:
      return true;
    case parameters::Role::vocab_parallel:
      return tables == Tables::multiplied;
    case parameters::Role::replicated:
      return false;
  }
  return false;
}

}  // namespace

FirstWrites::FirstWrites(const ParamBuckets& buckets, const parameters::Parameter* cleared) {
  for (const Bucket& bucket : buckets.buckets()) {
    if (!bucket.trains) continue;
    OfBucket own = of_bucket(buckets, bucket, cleared);
    for (parameters::Parameter* parameter : own.overwritten) {
      unwritten_.emplace(parameter, false);
      parameter->gradient_owner = this;
    }
    buckets_.emplace(&bucket, std::move(own));
  }
}

FirstWrites::~FirstWrites() {
  for (const auto& [bucket, own] : buckets_) {
    for (parameters::Parameter* parameter : own.overwritten) {
      if (parameter->gradient_owner == this) parameter->gradient_owner = nullptr;
    }
  }
}

FirstWrites::OfBucket FirstWrites::of_bucket(const ParamBuckets& buckets, const Bucket& bucket,
                                             const parameters::Parameter* cleared) const {
  const auto& blocks = buckets.blocks();
  const int head = static_cast<int>(blocks.size()) - 1;
  // The head multiplies with its table, its own or the tied one, before the look-up's rows are
  // added.
  const bool multiplied = bucket.block == head || blocks[head].also_uses == bucket.block;
  OfBucket own;
  int64_t next = 0;
  const auto zero_until = [&](int64_t end) {
    if (next < end) own.zeroed.push_back(bucket.main_grad.narrow(0, next, end - next));
  };
  for (size_t i = 0; i < bucket.parameters.size(); ++i) {
    parameters::Parameter* parameter = bucket.parameters[i];
    const bool overwritten =
        gemm_writes_first(*parameter, multiplied ? Tables::multiplied : Tables::looked_up);
    if (!overwritten && parameter != cleared) continue;
    if (overwritten) own.overwritten.push_back(parameter);
    zero_until(bucket.offsets[i]);
    next = bucket.offsets[i] + parameter->numel();
  }
  zero_until(bucket.numel);
  return own;
}

bool FirstWrites::is_first_write(const parameters::Parameter& parameter) const {
  return unwritten_.at(&parameter);
}

void FirstWrites::written(const parameters::Parameter& parameter) {
  unwritten_.at(&parameter) = false;
}

void FirstWrites::expect(const Bucket& bucket, std::vector<at::Tensor>& zeroed) {
  const OfBucket& own = buckets_.at(&bucket);
  for (parameters::Parameter* parameter : own.overwritten) {
    unwritten_.at(parameter) = true;
    parameter->squares.current = false;
  }
  zeroed.insert(zeroed.end(), own.zeroed.begin(), own.zeroed.end());
}

void FirstWrites::zero_unwritten(const Bucket& bucket) {
  for (parameters::Parameter* parameter : buckets_.at(&bucket).overwritten) {
    if (std::exchange(unwritten_.at(parameter), false)) parameter->main_grad.zero_();
  }
}

}  // namespace tptrain::zero
