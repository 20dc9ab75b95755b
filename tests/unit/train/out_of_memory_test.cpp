// What is said when a GPU is full: which error that is, the forecast, and the settings in order.
#include "train/out_of_memory.h"

#include <c10/util/Exception.h>

#include <new>

#include "support/catch.h"

namespace tptrain::train {
namespace {

constexpr const char* kRunFile = R"(run_dir: run
model:
  architecture: {model_type: llama, vocab_size: 32000, hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 8, num_attention_heads: 16, num_key_value_heads: 8}
parallel: {tp_size: 1, zero_stage: 1}
data: {train: [text]}
train: {seq_length: 2048, micro_batch_size: 8, global_batch_size: 32, max_steps: 8, device: cpu, dtype: bf16}
)";

ResolvedConfig resolved(const std::vector<std::string>& overrides, int ranks) {
  const config::Parsed parsed = config::parse_run_config(kRunFile, "run.yaml", overrides);
  return resolve(parsed, model::decoder_config(parsed.config.model, 32000), 32000, ranks);
}

std::vector<std::string> settings(const MemoryForecast& forecast) {
  std::vector<std::string> names;
  for (const SmallerSetting& smaller : forecast.smaller) names.push_back(smaller.setting);
  return names;
}

constexpr int64_t kGib = int64_t{1} << 30;
constexpr int64_t kLibraries = kGib * 3 / 2;  // what the forecast sets aside

}  // namespace

TEST_CASE("the errors that mean a full device", "[train]") {
  const auto c10_error = [](const char* text) {
    return c10::Error({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, text);
  };
  CHECK(is_out_of_memory(
      c10::OutOfMemoryError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, "full")));
  CHECK(is_out_of_memory(c10_error("CUDA error: out of memory")));
  CHECK(is_out_of_memory(
      c10_error("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")));
  CHECK(is_out_of_memory(
      CommError(problem("ncclCommInitRank failed (unhandled cuda error): 'out of memory'"))));
  // As another rank sent it: the class is gone, the code is there.
  CHECK(is_out_of_memory(Error(ExitCode::communication, "cudaMalloc failed (out of memory)")));

  CHECK_FALSE(is_out_of_memory(c10_error("CUDA error: an illegal memory access")));
  CHECK_FALSE(is_out_of_memory(CommError(problem("ncclAllReduce failed"))));
  CHECK_FALSE(is_out_of_memory(DataError(problem("out of memory.txt: no such file"))));
  CHECK_FALSE(is_out_of_memory(std::bad_alloc()));
}

TEST_CASE("what was asked for is read from the allocator's message", "[train]") {
  CHECK(bytes_asked_for("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
                        "capacity of 139.80 GiB of which 1.10 GiB is free.") == "2.00 GiB");
  CHECK(bytes_asked_for("Tried to allocate 512.00 MiB") == "512.00 MiB");
  CHECK(bytes_asked_for("Tried to allocate 20.00 KiB (GPU 0; ...)") == "20.00 KiB");
  CHECK(bytes_asked_for("cudaMalloc failed (out of memory)").empty());
}

TEST_CASE("the largest micro-batch that fits comes first, then the other settings", "[train]") {
  const MemoryForecast roomy = forecast_memory(resolved({}, 2), 1000 * kGib);
  CHECK(roomy.fits);
  const int64_t needed = roomy.memory.total() + kLibraries;
  CHECK(forecast_memory(resolved({}, 2), needed).fits);
  const MemoryForecast tight = forecast_memory(resolved({}, 2), needed - 1);
  REQUIRE_FALSE(tight.fits);
  CHECK(tight.memory.total() == roomy.memory.total());
  REQUIRE(tight.smaller.size() == 4);  // 16 sequences a rank and step: in eights, fours, ..
  CHECK(tight.smaller[0].setting == "train.micro_batch_size: 4");
  CHECK(tight.smaller[0].fits);
  CHECK(tight.smaller[0].total_bytes < tight.memory.total());
  CHECK(tight.smaller[1].setting == "parallel.recompute: selective");
  CHECK(tight.smaller[2].setting == "parallel.zero_stage: 2");
  CHECK(tight.smaller[3].setting == "parallel.tp_size: 2");

  // Not the largest but the largest that fits.
  const int64_t fours = tight.smaller[0].total_bytes + kLibraries;
  CHECK(forecast_memory(resolved({}, 2), fours).smaller[0].setting == "train.micro_batch_size: 4");
  CHECK(forecast_memory(resolved({}, 2), fours - 1).smaller[0].setting ==
        "train.micro_batch_size: 2");
}

TEST_CASE("what cannot take less is not named", "[train]") {
  CHECK(settings(forecast_memory(
                     resolved({"train.micro_batch_size=1", "parallel.recompute=full"}, 1), kGib))
            .empty());
  CHECK(settings(forecast_memory(resolved({"train.micro_batch_size=1", "parallel.zero_stage=3",
                                           "parallel.recompute=selective"},
                                          2),
                                 kGib)) ==
        std::vector<std::string>{"parallel.recompute: full", "parallel.tp_size: 2"});
  // Of a micro-batch of which not even one fits, 1 is named all the same: it is where to start.
  const MemoryForecast none = forecast_memory(resolved({}, 1), kGib);
  CHECK(none.smaller[0].setting == "train.micro_batch_size: 1");
  CHECK_FALSE(none.smaller[0].fits);
}

TEST_CASE("the message has the card, the classes and the settings in order", "[train]") {
  const OutOfMemory facts{
      .doing = "step 3, forward and backward",
      .device_name = "NVIDIA H200",
      .asked_for = "2.00 GiB",
      .use = {.total_bytes = 140 * kGib,
              .free_bytes = kGib,
              .reserved_bytes = 137 * kGib,
              .peak_allocated_bytes = 136 * kGib},
      .forecast = {
          .memory = {.parameters = 15 * kGib,
                     .gradients = 30 * kGib,
                     .masters = 0,
                     .moments = 60 * kGib,
                     .buffers = kGib,
                     .activations = 50 * kGib},
          .fits = false,
          .smaller = {
              {.setting = "train.micro_batch_size: 4", .total_bytes = 131 * kGib, .fits = true},
              {.setting = "parallel.recompute: full", .total_bytes = 150 * kGib, .fits = false}}}};
  CHECK(ConfigError(out_of_memory_problem(facts)).what() ==
        std::string(
            "config error: step 3, forward and backward: out of memory on NVIDIA H200, which has "
            "140.00 GiB; 2.00 GiB were asked for; this run's tensors took 136.00 GiB at most and "
            "hold 137.00 GiB reserved, 2.00 GiB are taken by CUDA, libraries and other processes, "
            "1.00 GiB are free.\n"
            "  Forecast of a rank: parameters 15.00 GiB, gradients 30.00 GiB, moments 60.00 GiB, "
            "buffers 1.00 GiB, activations at their peak 50.00 GiB; 156.00 GiB in all, and about "
            "1.50 GiB for libraries.\n"
            "  Change one of these, the first that will do (the forecast's totals):\n"
            "    train.micro_batch_size: 4  131.00 GiB, fits\n"
            "    parallel.recompute: full  150.00 GiB, does not fit by itself"));

  OutOfMemory other = facts;
  other.asked_for = "";
  other.forecast.fits = true;
  other.forecast.smaller.clear();
  const std::string text = out_of_memory_problem(other).text();
  CHECK(text.find("asked for") == std::string::npos);
  CHECK(text.find("look for other processes on this GPU (nvidia-smi)") != std::string::npos);
  CHECK(text.find("start more of them, with a larger parallel.tp_size") != std::string::npos);
}

}  // namespace tptrain::train
