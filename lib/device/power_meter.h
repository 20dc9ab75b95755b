// What a GPU draws, how fast it runs and what holds it back, while something else is measured: a
// thread asks the driver's management library every few milliseconds. For benchmarks.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

namespace tptrain::device {

struct PowerReading {
  double seconds = 0;
  double watts = 0;        // on average
  double limit_watts = 0;  // that the card enforces; 0: unknown
  double sm_mhz = 0;       // on average
  int most_sm_mhz = 0;     // the highest that the card may run at; 0: unknown
  /// Share of the samples at which the card held its clocks back, and why: "SW power cap".
  double held_back = 0;
  std::string reasons;

  bool known() const { return seconds > 0; }
};
/// "684 W of 700, SM 1,512 MHz of 1,980, held back in 100 % of samples: SW power cap"
std::string text_of(const PowerReading& reading);
/// The two one after the other, as one.
PowerReading joined(const PowerReading& a, const PowerReading& b);

class PowerMeter {
 public:
  /// Begins to measure. Where the library is not there nothing is known. In builds with CUDA alone.
  explicit PowerMeter(at::Device device);
  ~PowerMeter();
  PowerMeter(const PowerMeter&) = delete;

  /// Ends it: since construction. Once.
  PowerReading stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::device
