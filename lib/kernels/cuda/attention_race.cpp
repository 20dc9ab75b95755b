#include "kernels/cuda/attention_race.h"

#include <c10/core/Allocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/cuda/race.h"

namespace tptrain::kernels::cuda {

namespace {

constexpr int kRounds = 5;
/// The one before stays unless the next is so much faster: a near tie must not change from run to
/// run.
constexpr float kGain = 0.98f;

/// Whether `work` runs at all.
bool runs(const std::function<void()>& work) {
  try {
    work();
    c10::cuda::device_synchronize();
    return true;
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error&) {
    return false;
  } catch (const InternalError&) {  // of one that is not LibTorch's
    return false;
  }
}

FusedAttention race(const at::Tensor& on, const std::vector<FusedAttention>& contenders,
                    const std::function<void(FusedAttention)>& run) {
  try {
    c10::cuda::device_synchronize();  // nothing else shall run meanwhile
    std::vector<FusedAttention> able;
    std::vector<std::function<void()>> each;
    for (const FusedAttention one : contenders) {
      const auto once = [&run, one] { run(one); };
      if (!runs(once)) continue;
      able.push_back(one);
      each.push_back(once);
    }
    if (able.empty()) return contenders.front();
    Race all(std::move(each), c10::cuda::getCurrentCUDAStream(on.device().index()));
    for (int round = 0; able.size() > 1 && round < kRounds; ++round) all.round();
    size_t best = 0;
    for (size_t i = 1; i < able.size(); ++i) {
      if (all.best_ms()[i] < kGain * all.best_ms()[best]) best = i;
    }
    return able[best];
  } catch (const c10::OutOfMemoryError&) {
    return contenders.front();
  }
}

}  // namespace

std::optional<FusedAttention> known_attention() {
  if (const auto chosen = chosen_attention()) return chosen;
  // H100 and H200 (benchmarks/README.md), B200 and B300: FlashAttention-2 knows nothing of their
  // tensor cores. Of A100, Ada and the RTX 50 series both have been found to be the faster one.
  const int major = capability() / 10;
  if (major == 9 || major == 10) return FusedAttention::cudnn;
  return std::nullopt;
}

FusedAttention faster_attention(const AttentionKey& key, const at::Tensor& on,
                                const std::vector<FusedAttention>& contenders,
                                const std::function<void(FusedAttention)>& run) {
  const c10::cuda::CUDAGuard guard(on.device());
  static std::mutex mutex;
  static std::map<std::pair<c10::DeviceIndex, AttentionKey>, FusedAttention> found;
  const std::pair place(on.device().index(), key);
  const std::lock_guard lock(mutex);
  if (const auto at = found.find(place); at != found.end()) return at->second;
  const bool captured =
      c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
  return found.emplace(place, captured ? contenders.front() : race(on, contenders, run))
      .first->second;
}

}  // namespace tptrain::kernels::cuda
