#include "train/time_limit.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace tptrain::train {

namespace {

// A scheduler kills at the end what is still writing; what a run does after its save is short.
constexpr std::chrono::seconds kLeaving{10};

std::chrono::system_clock::duration in_clock(double seconds) {
  return std::chrono::duration_cast<std::chrono::system_clock::duration>(
      std::chrono::duration<double>(seconds));
}

}  // namespace

TimeLimit::TimeLimit(const Options& options) {
  if (options.max_time_s) {
    end_ = options.process_start + in_clock(*options.max_time_s);
    reason_ = "train.max_time";
  }
  if (!options.job_end || (end_ && *end_ <= *options.job_end - kLeaving)) return;
  end_ = *options.job_end - kLeaving;
  reason_ = "the end of the Slurm job";
}

bool TimeLimit::is_up(Time now, double step_s, double save_s) const {
  return end_ && now + in_clock(2 * (step_s + save_s)) >= *end_;
}

std::optional<TimeLimit::Time> slurm_job_end() {
  const char* text = std::getenv("SLURM_JOB_END_TIME");
  if (text == nullptr) return std::nullopt;
  const std::string_view digits(text);
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), seconds);
  const bool whole = error == std::errc{} && end == digits.data() + digits.size();
  if (!whole || seconds <= 0) return std::nullopt;
  return TimeLimit::Time(std::chrono::seconds(seconds));
}

}  // namespace tptrain::train
