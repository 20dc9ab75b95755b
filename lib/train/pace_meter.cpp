#include "train/pace_meter.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/host.h"
#include "base/text.h"
#include "train/graph_trial.h"

namespace tptrain::train {
namespace {

constexpr int64_t kProbeSize = 2048;
constexpr int kProducts = 1000;  // what is told is the time of so many
// A GPU that processes share is theirs in turns of some milliseconds: products that run for less
// than a turn do not see the others.
constexpr double kProbedMs = 10;

/// Of products of a fixed size, on the device alone: a GPU that is throttled, or shared with
/// another process, shows by it, whatever it waits for in the steps. 0 on a CPU, whose own work is
/// measured.
double probe_seconds(at::Device device) {
  if (!device.is_cuda()) return 0;
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(at::kBFloat16).device(device);
  const at::Tensor factor = at::full({kProbeSize, kProbeSize}, 1.0 / kProbeSize, options);
  at::Tensor product = at::empty_like(factor);
  at::mm_out(product, factor, factor);  // the first one sets its library up
  const auto ms_of = [&](int products) -> double {
    const std::unique_ptr<StepMark> begin = mark_on(device);
    for (int i = 0; i < products; ++i) at::mm_out(product, factor, factor);
    return mark_on(device)->ms_since(*begin) / products;
  };
  constexpr int kFewest = 10;
  const double few = kProbedMs / std::max(ms_of(kFewest), kProbedMs / kProducts);
  return ms_of(std::max(kFewest, static_cast<int>(few))) * kProducts / 1000.0;
}

std::string place_of(int rank, const std::string& host, at::Device device) {
  const std::string name = cat("rank ", rank, " on ", host);
  return device.is_cuda() ? cat(name, " (GPU ", static_cast<int>(device.index()), ")") : name;
}

}  // namespace

void PaceMeter::add(const StepClock::Seconds& phases) {
  const auto in = [&](StepPhase phase) { return phases[static_cast<size_t>(phase)]; };
  ++pace_.steps;
  pace_.data_s += in(StepPhase::data);
  pace_.compute_s += in(StepPhase::forward_backward) + in(StepPhase::optimizer);
  pace_.waiting_s += in(StepPhase::communication);
}

PaceReport PaceMeter::report(comm::MpiSession& session) {
  pace_.probe_s = probe_seconds(device_);
  const std::vector<std::string> of_ranks =
      session.all_gather(to_wire(pace_) + place_of(session.rank(), host_name(), device_));
  const bool any = std::exchange(pace_, {}).steps > 0;
  if (!any || session.size() == 1) return {};
  std::vector<RankPace> paces;
  std::vector<std::string> places;
  for (const std::string& text : of_ranks) {
    paces.push_back(pace_from_wire(text.substr(0, sizeof(RankPace))));
    places.push_back(text.substr(sizeof(RankPace)));
  }
  return pace_report(paces, places);
}

}  // namespace tptrain::train
