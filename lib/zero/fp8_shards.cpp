#include "zero/fp8_shards.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "kernels/fp8.h"

namespace tptrain::zero {

namespace {

constexpr int64_t kScaleWords = 4;  // of which the first is one: products read scales at 16 bytes

at::Tensor scale_of(const at::Tensor& scales, int64_t parameter) {
  return scales.select(0, parameter).narrow(0, 0, 1);
}

}  // namespace

Fp8Shards::Fp8Shards(std::vector<BucketState>& states, const StateLayout& layout,
                     comm::Communicator& tp, comm::Communicator& dp)
    : tp_(tp), dp_(dp) {
  for (BucketState& state : states) {
    if (is_gathered_as_fp8(*state.bucket, layout, dp.size())) shards_.push_back(shard_of(state));
  }
}

Fp8Shards::Shard Fp8Shards::shard_of(BucketState& state) {
  Bucket& bucket = *state.bucket;
  if (bucket.data.scalar_type() != at::kBFloat16 || state.shard_numel() % kFp8Shard != 0)
    throw InternalError(problem(cat("bucket '", bucket.name, "' gathered as FP8"))
                            .must(cat("be bf16, in shards that are multiples of ", kFp8Shard)));
  Shard shard;
  shard.state = &state;
  shard.bytes = bucket.data.view(at::kFloat8_e4m3fn).narrow(0, 0, bucket.numel);
  shard.own = shard.bytes.narrow(0, state.shard_begin, state.shard_numel());
  shard.values = bucket.data.narrow(0, bucket.numel / 2, state.shard_numel());
  const auto count = static_cast<int64_t>(bucket.parameters.size());
  shard.amax = at::zeros({count}, bucket.data.options().dtype(at::kInt));
  shard.scales = at::ones({count, kScaleWords}, bucket.data.options().dtype(at::kFloat));
  for (int64_t i = 0; i < count; ++i) {
    parameters::Parameter& parameter = *bucket.parameters[static_cast<size_t>(i)];
    const int64_t offset = bucket.offsets[static_cast<size_t>(i)], numel = parameter.numel();
    parameter.fp8 = {.rows = shard.bytes.narrow(0, offset, numel).view(parameter.shape),
                     .scale = scale_of(shard.scales, i)};
    const int64_t begin = std::max(offset, state.shard_begin);
    const int64_t end = std::min(offset + numel, state.shard_end);
    if (begin >= end) continue;
    const auto rows = [&](const at::Tensor& of_shard) {
      return of_shard.narrow(0, begin - state.shard_begin, end - begin).view({-1, kFp8Shard});
    };
    shard.pieces.push_back(
        {.parameter = i, .values = rows(shard.values), .bytes = rows(shard.own)});
  }
  return shard;
}

const Fp8Shards::Shard* Fp8Shards::of(const BucketState& state) const {
  const auto found = std::ranges::find(shards_, &state, &Shard::state);
  return found == shards_.end() ? nullptr : &*found;
}

void Fp8Shards::invalidate() {
  for (Shard& shard : shards_) shard.scales_known = false;
}

void Fp8Shards::find_scales(Shard& shard) {
  if (shard.state->held_amax.defined()) {  // the update's, of all of the bucket's parameters
    shard.amax.copy_(shard.state->held_amax);
  } else {
    shard.amax.zero_();
    for (const Piece& piece : shard.pieces)
      kernels::raise_amax(shard.amax.narrow(0, piece.parameter, 1), piece.values);
  }
  at::Tensor numbers = shard.amax.view(at::kFloat);
  dp_.all_reduce(numbers, comm::ReduceOp::max);
  if (tp_.size() > 1) tp_.all_reduce(numbers, comm::ReduceOp::max);
  shard.scales.select(1, 0).copy_(kernels::fp8_scales(shard.amax, kernels::Fp8::e4m3));
  shard.scales_known = true;
}

std::unique_ptr<comm::Work> Fp8Shards::start_gather(const BucketState& state) {
  const auto found = std::ranges::find(shards_, &state, &Shard::state);
  if (found == shards_.end())
    throw InternalError(problem(cat("bucket '", state.bucket->name, "' gathered as FP8"))
                            .must("be one of FP8 matrices in stage 3"));
  Shard& shard = *found;
  shard.values.copy_(state.master);
  if (!shard.scales_known) find_scales(shard);
  for (const Piece& piece : shard.pieces) {
    kernels::Fp8Matrix to = {
        .rows = piece.bytes, .columns = {}, .scale = scale_of(shard.scales, piece.parameter)};
    kernels::to_fp8_at_scale_out(to, piece.values, kernels::Fp8::e4m3);
  }
  return dp_.start_all_gather(shard.bytes, shard.own);
}

}  // namespace tptrain::zero
