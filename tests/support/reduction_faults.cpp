#include "support/reduction_faults.h"

#include <ATen/ATen.h>

#include <functional>

#include "support/faulty_communicator.h"
#include "support/forwarding_communicator.h"

namespace tptrain::testing {
namespace {

// The words of the norm are what an axis gathers of 64-bit integers: the first is the sum of
// squares that counts, the second that of copies which another tp rank counts (zero::gather_rows).
class FaultyNorm final : public ForwardingCommunicator {
 public:
  FaultyNorm(comm::Communicator& tp, ReductionFault fault)
      : ForwardingCommunicator(tp), fault_(fault) {}

  void all_gather(at::Tensor& output, const at::Tensor& input) override {
    if (input.scalar_type() != at::kLong) {
      return ForwardingCommunicator::all_gather(output, input);
    }
    at::Tensor words = input.clone();
    if (fault_ == ReductionFault::double_count_replicated_in_norm) {
      at::Tensor numbers = words.view(at::kDouble);
      numbers[0].add_(numbers[1]);
    }
    ForwardingCommunicator::all_gather(output, words);
    if (fault_ != ReductionFault::drop_norm_sum_over_tp) return;
    at::Tensor rows = output.view(at::kDouble).view({size(), input.numel()});
    const at::Tensor own = rows[rank()][0].clone();
    rows.select(1, 0).zero_();
    rows[rank()][0].copy_(own);
  }

 private:
  ReductionFault fault_;
};

// Of what a block sums over tp in one collective, one part is left as it is.
class HalfSum final : public ForwardingCommunicator {
 public:
  /// kept: the part that is still summed.
  HalfSum(comm::Communicator& tp, std::function<const zero::ParamBuckets*()> buckets,
          at::Tensor zero::TpRegion::*kept)
      : ForwardingCommunicator(tp), buckets_(std::move(buckets)), kept_(kept) {}

  void all_reduce(at::Tensor& tensor, comm::ReduceOp op) override {
    const zero::TpRegion* region = region_of(tensor);
    if (region == nullptr) return ForwardingCommunicator::all_reduce(tensor, op);
    at::Tensor kept = region->*kept_;
    if (kept.defined()) ForwardingCommunicator::all_reduce(kept, op);
  }

 private:
  const zero::TpRegion* region_of(const at::Tensor& tensor) const {
    const zero::ParamBuckets* buckets = buckets_();
    if (buckets == nullptr) return nullptr;
    for (size_t b = 0; b < buckets->blocks().size(); ++b) {
      const zero::TpRegion& region = buckets->tp_region(static_cast<int>(b));
      if (region.whole.defined() && region.whole.data_ptr() == tensor.data_ptr() &&
          region.whole.numel() == tensor.numel())
        return &region;
    }
    return nullptr;
  }

  std::function<const zero::ParamBuckets*()> buckets_;
  at::Tensor zero::TpRegion::*kept_;
};

}  // namespace

FaultyAxes::FaultyAxes(comm::Communicator& tp, comm::Communicator& dp, ReductionFault fault)
    : real_tp_(tp), real_dp_(dp) {
  const auto half_sum = [&](at::Tensor zero::TpRegion::*kept) {
    return std::make_unique<HalfSum>(
        tp, [this] { return buckets_; }, kept);
  };
  switch (fault) {
    case ReductionFault::none:
      break;
    case ReductionFault::scale_dp_sum:
      dp_ = std::make_unique<FaultyCommunicator>(dp, Fault::scale_reduce_scatter(1.0 / dp.size()));
      break;
    case ReductionFault::skip_dp_reduction:
      dp_ = std::make_unique<FaultyCommunicator>(dp, Fault::skip_reduce_scatter());
      break;
    case ReductionFault::double_count_replicated_in_norm:
    case ReductionFault::drop_norm_sum_over_tp:
      tp_ = std::make_unique<FaultyNorm>(tp, fault);
      break;
    case ReductionFault::drop_partial_sum_over_tp:
      tp_ = half_sum(&zero::TpRegion::staging);
      break;
    case ReductionFault::drop_copies_sum_over_tp:
      tp_ = half_sum(&zero::TpRegion::partial);
      break;
  }
}

FaultyAxes::~FaultyAxes() = default;

}  // namespace tptrain::testing
