#include "train/out_of_memory.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <string_view>

#include "base/text.h"
#include "train/run_options.h"

namespace tptrain::train {
namespace {

class Forecaster {
 public:
  Forecaster(const ResolvedConfig& resolved, int64_t card_bytes)
      : resolved_(resolved), card_bytes_(card_bytes), layout_(planned_layout(resolved)) {}

  MemoryForecast make() {
    forecast_.memory = memory_of(layout_);
    forecast_.fits = fits(forecast_.memory.total());
    smaller_micro_batch();
    more_recompute();
    higher_stage();
    larger_tp();
    return std::move(forecast_);
  }

 private:
  planner::MemoryPlan memory_of(const planner::Layout& layout) const {
    return planner::make_plan(resolved_.decoder, layout)
        .memory[static_cast<size_t>(layout.zero_stage)];
  }
  bool fits(int64_t bytes) const { return bytes + planner::kLibraryBytes <= card_bytes_; }

  bool add(std::string setting, const planner::Layout& layout) {
    const int64_t total = memory_of(layout).total();
    forecast_.smaller.push_back(
        {.setting = std::move(setting), .total_bytes = total, .fits = fits(total)});
    return forecast_.smaller.back().fits;
  }

  // The global batch stays: a rank takes more micro-batches a step.
  void smaller_micro_batch() {
    const int64_t a_rank = layout_.micro_batch_size * layout_.micro_batches;
    for (int64_t size = layout_.micro_batch_size - 1; size >= 1; --size) {
      if (a_rank % size != 0) continue;
      planner::Layout layout = layout_;
      layout.micro_batch_size = size;
      layout.micro_batches = a_rank / size;
      if (size > 1 && !fits(memory_of(layout).total())) continue;
      add(cat("train.micro_batch_size: ", size), layout);
      return;
    }
  }

  void more_recompute() {
    for (const config::Recompute more : {config::Recompute::selective, config::Recompute::full}) {
      planner::Layout layout = layout_;
      layout.training.recompute = recompute_of(more);
      if (layout.training.recompute <= layout_.training.recompute) continue;
      if (add(cat("parallel.recompute: ", word(more)), layout)) return;
    }
  }

  void higher_stage() {
    if (layout_.dp_size == 1) return;
    for (int64_t stage = layout_.zero_stage + 1; stage < planner::kZeroStages; ++stage) {
      planner::Layout layout = layout_;
      layout.zero_stage = stage;
      if (add(cat("parallel.zero_stage: ", stage), layout)) return;
    }
  }

  // As many ranks as now; the dp size follows, and with it what each rank takes a step.
  void larger_tp() {
    const int64_t ranks = layout_.tp_size * layout_.dp_size;
    for (int64_t tp = layout_.tp_size + 1; tp <= ranks; ++tp) {
      if (ranks % tp != 0 || !model::check_tp_size(resolved_.decoder, tp).empty()) continue;
      planner::Layout layout = layout_;
      layout.tp_size = tp;
      layout.dp_size = ranks / tp;
      if (add(cat("parallel.tp_size: ", tp), layout)) return;
    }
  }

  const ResolvedConfig& resolved_;
  int64_t card_bytes_;
  planner::Layout layout_;
  MemoryForecast forecast_;
};

std::string classes_text(const planner::MemoryPlan& memory) {
  std::vector<std::string> parts;
  const auto add = [&](const char* name, int64_t bytes) {
    if (bytes > 0) parts.push_back(cat(name, " ", human_bytes(bytes)));
  };
  add("parameters", memory.parameters);
  add("gradients", memory.gradients);
  add("masters", memory.masters);
  add("moments", memory.moments);
  add("buffers", memory.buffers);
  add("activations at their peak", memory.activations);
  return join(parts);
}

}  // namespace

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  const auto* own = dynamic_cast<const Error*>(&error);
  const bool of_a_library = own != nullptr ? own->code() == ExitCode::communication
                                           : dynamic_cast<const c10::Error*>(&error) != nullptr;
  if (!of_a_library) return false;
  const std::string_view message = error.what();
  return std::ranges::any_of(
      std::initializer_list<std::string_view>{"out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
                                              "CUDNN_STATUS_ALLOC_FAILED"},
      [&](std::string_view sign) { return message.find(sign) != std::string_view::npos; });
}

std::string bytes_asked_for(const std::string& message) {
  constexpr std::string_view kMark = "Tried to allocate ";
  const size_t mark = message.find(kMark);
  if (mark == std::string::npos) return "";
  const size_t begin = mark + kMark.size();
  const size_t unit_end = message.find_first_of(" \n", message.find(' ', begin) + 1);
  std::string bytes = message.substr(begin, unit_end - begin);
  if (!bytes.empty() && bytes.back() == '.') bytes.pop_back();
  return bytes;
}

MemoryForecast forecast_memory(const ResolvedConfig& resolved, int64_t card_bytes) {
  return Forecaster(resolved, card_bytes).make();
}

Problem out_of_memory_problem(const OutOfMemory& facts) {
  const device::DeviceUse& use = facts.use;
  const MemoryForecast& forecast = facts.forecast;
  const int64_t others =
      std::max<int64_t>(0, use.total_bytes - use.free_bytes - use.reserved_bytes);
  std::string received =
      cat("out of memory on ", facts.device_name, ", which has ", human_bytes(use.total_bytes));
  if (!facts.asked_for.empty()) received += cat("; ", facts.asked_for, " were asked for");
  received += cat("; this run's tensors took ", human_bytes(use.peak_allocated_bytes),
                  " at most and hold ", human_bytes(use.reserved_bytes), " reserved, ",
                  human_bytes(others), " are taken by CUDA, libraries and other processes, ",
                  human_bytes(use.free_bytes), " are free");

  std::string fix = cat("Forecast of a rank: ", classes_text(forecast.memory), "; ",
                        human_bytes(forecast.memory.total()), " in all, and about ",
                        human_bytes(planner::kLibraryBytes), " for libraries.");
  if (forecast.fits) {
    fix +=
        cat("\n  By that it should fit: look for other processes on this GPU (nvidia-smi), and "
            "for a forecast that is too low (tptrain plan).");
  }
  if (forecast.smaller.empty()) {
    fix +=
        "\n  Nothing in the run file takes less on as many ranks: start more of them, with a "
        "larger parallel.tp_size.";
    return problem(received).at(facts.doing).remedy(fix);
  }
  fix += "\n  Change one of these, the first that will do (the forecast's totals):";
  for (const SmallerSetting& smaller : forecast.smaller) {
    fix += cat("\n    ", smaller.setting, "  ", human_bytes(smaller.total_bytes),
               smaller.fits ? ", fits" : ", does not fit by itself");
  }
  const bool any_fits =
      std::ranges::any_of(forecast.smaller, [](const SmallerSetting& s) { return s.fits; });
  if (!any_fits)
    fix += "\n  None fits by itself: take several of them, or more ranks with a larger tp_size.";
  return problem(received).at(facts.doing).remedy(fix);
}

}  // namespace tptrain::train
