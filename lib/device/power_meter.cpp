#include "device/power_meter.h"

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "device/nvml.h"
#include "device/pci_bus_id.h"

namespace tptrain::device {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kBetweenSamples(10);
constexpr int kSmClock = 1;  // NVML_CLOCK_SM

// Of nvml.h, nvmlClocksEventReasons. That the GPU is idle or runs at the clocks it was told to is
// no reason to call it held back.
struct Reason {
  unsigned long long bit;
  const char* name;
};
constexpr std::array<Reason, 6> kReasons = {{{0x04, "SW power cap"},
                                             {0x08, "HW slowdown"},
                                             {0x20, "SW thermal slowdown"},
                                             {0x40, "HW thermal slowdown"},
                                             {0x80, "HW power brake"},
                                             {0x10, "sync boost"}}};

}  // namespace

std::string text_of(const PowerReading& reading) {
  if (!reading.known()) return "unknown (no libnvidia-ml.so.1)";
  const auto whole = [](double value) { return with_thousands(static_cast<int64_t>(value + 0.5)); };
  std::string text = cat(whole(reading.watts), " W");
  if (reading.limit_watts > 0) text += cat(" of ", whole(reading.limit_watts));
  text += cat(", SM ", whole(reading.sm_mhz), " MHz");
  if (reading.most_sm_mhz > 0) text += cat(" of ", with_thousands(reading.most_sm_mhz));
  text += cat(", held back in ", whole(100 * reading.held_back), " % of samples");
  if (!reading.reasons.empty()) text += cat(": ", reading.reasons);
  return text;
}

PowerReading joined(const PowerReading& a, const PowerReading& b) {
  if (!a.known()) return b;
  if (!b.known()) return a;
  PowerReading both = b;
  both.seconds = a.seconds + b.seconds;
  const auto mean = [&](double of_a, double of_b) {
    return (of_a * a.seconds + of_b * b.seconds) / both.seconds;
  };
  both.watts = mean(a.watts, b.watts);
  both.sm_mhz = mean(a.sm_mhz, b.sm_mhz);
  both.held_back = mean(a.held_back, b.held_back);
  if (a.reasons.size() > b.reasons.size()) both.reasons = a.reasons;
  return both;
}

struct PowerMeter::Impl {
  explicit Impl(at::Device device) : gpu(pci_bus_id(device)) {
    if (!gpu.known()) return;
    begin_millijoules = gpu.energy_millijoules();
    thread = std::thread([this] { sample(); });
  }
  ~Impl() { end(); }

  void end() {
    stopping = true;
    if (thread.joinable()) thread.join();
  }

  void sample() {
    while (!stopping) {
      clocks_mhz += gpu.clock_mhz(kSmClock);
      watts += gpu.watts();
      unsigned long long held = gpu.clock_event_reasons();
      bool any = false;
      for (const Reason& reason : kReasons) {
        if ((held & reason.bit) == 0) continue;
        any = true;
        names.insert(reason.name);
      }
      held_back += any ? 1 : 0;
      ++samples;
      std::this_thread::sleep_for(kBetweenSamples);
    }
  }

  NvmlGpu gpu;
  Clock::time_point begin = Clock::now();
  std::optional<double> begin_millijoules;
  std::atomic<bool> stopping = false;
  // The thread's until it is joined.
  double clocks_mhz = 0, watts = 0;
  int64_t held_back = 0, samples = 0;
  std::set<std::string> names;
  std::thread thread;
};

PowerMeter::PowerMeter(at::Device device) : impl_(std::make_unique<Impl>(device)) {}
PowerMeter::~PowerMeter() = default;

PowerReading PowerMeter::stop() {
  Impl& meter = *impl_;
  const double seconds = std::chrono::duration<double>(Clock::now() - meter.begin).count();
  const std::optional<double> millijoules =
      meter.gpu.known() ? meter.gpu.energy_millijoules() : std::nullopt;
  meter.end();
  if (meter.samples == 0) return {};
  const auto samples = static_cast<double>(meter.samples);
  PowerReading reading = {.seconds = seconds,
                          .watts = meter.watts / samples,
                          .limit_watts = meter.gpu.limit_watts(),
                          .sm_mhz = meter.clocks_mhz / samples,
                          .most_sm_mhz = meter.gpu.most_clock_mhz(kSmClock),
                          .held_back = static_cast<double>(meter.held_back) / samples,
                          .reasons = join(meter.names)};
  // The counter of energy is exact over the time; the power that is read is a mean of its own.
  if (millijoules && meter.begin_millijoules)
    reading.watts = (*millijoules - *meter.begin_millijoules) * 1e-3 / seconds;
  return reading;
}

}  // namespace tptrain::device
