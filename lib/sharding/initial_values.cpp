// Element by element, in runs of neighbours.
#include "sharding/initial_values.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <array>
#include <functional>

#include "base/error.h"
#include "base/text.h"
#include "random/normal_pair.h"
#include "random/philox.h"
#include "sharding/cuda/fill_normal.h"

#ifndef _OPENMP
#error "at::parallel_for runs on one thread in a file that is compiled without OpenMP"
#endif

namespace tptrain::sharding {
namespace {

// Work below this many elements is not worth a second thread (about 1 ms).
constexpr int64_t kGrain = 32768;

// out[i] = std * (normal number of global element first + i); neighbours 2i, 2i + 1 share a draw.
void fill_normal_run(float* out, int64_t first, int64_t count, double std,
                     std::array<uint32_t, 2> key) {
  int64_t i = 0;
  if (first % 2 != 0 && count > 0) {
    out[i++] = static_cast<float>(std * random::philox_normal_pair(key, first / 2).odd);
  }
  for (; i + 1 < count; i += 2) {
    const random::NormalPair pair = random::philox_normal_pair(key, (first + i) / 2);
    out[i] = static_cast<float>(std * pair.even);
    out[i + 1] = static_cast<float>(std * pair.odd);
  }
  if (i < count)
    out[i] = static_cast<float>(std * random::philox_normal_pair(key, (first + i) / 2).even);
}

void fill_normal(float* out, const ShardSpec& spec, int64_t begin, int64_t end, double std,
                 uint64_t seed) {
  const std::array<uint32_t, 2> key = random::philox_key(seed, cat("init/", spec.name));
  at::parallel_for(begin, end, kGrain, [&](int64_t chunk_begin, int64_t chunk_end) {
    for (const Run& run : runs_of(spec, chunk_begin, chunk_end)) {
      fill_normal_run(out + (run.local_begin - begin), run.global_begin, run.count, std, key);
    }
  });
}

void fill_uniform(float* out, const ShardSpec& spec, int64_t begin, int64_t end, double bound,
                  uint64_t seed) {
  const std::array<uint32_t, 2> key = random::philox_key(seed, cat("init/", spec.name));
  at::parallel_for(begin, end, kGrain, [&](int64_t chunk_begin, int64_t chunk_end) {
    for (const Run& run : runs_of(spec, chunk_begin, chunk_end)) {
      float* to = out + (run.local_begin - begin);
      for (int64_t i = 0; i < run.count; ++i) {
        const double unit =
            random::philox_uniform(key, static_cast<uint64_t>(run.global_begin + i));
        to[i] = static_cast<float>(bound * (2.0 * unit - 1.0));
      }
    }
  });
}

// Into memory that is fp32 and the CPU's, whatever `out` is.
void fill_on_cpu(at::Tensor& out, const std::function<void(float*)>& fill) {
  if (out.is_cpu() && out.scalar_type() == at::kFloat && out.is_contiguous())
    return fill(out.data_ptr<float>());
  const at::Tensor on_cpu = at::empty({out.numel()}, at::TensorOptions().dtype(at::kFloat));
  fill(on_cpu.data_ptr<float>());
  out.copy_(on_cpu);
}

}  // namespace

void fill_initial(at::Tensor& out, const ShardSpec& spec, int64_t begin, int64_t end,
                  const Init& init, uint64_t seed) {
  const int64_t numel = spec.local_numel();
  if (begin < 0 || begin > end || end > numel) {
    throw InternalError(
        problem(cat("elements [", begin, ", ", end, ") of a slice of '", spec.name, "'"))
            .must(cat("lie within [0, ", numel, ")")));
  }
  if (out.dim() != 1 || out.numel() != end - begin) {
    throw InternalError(problem(cat("initial values of '", spec.name, "' go to a tensor of ",
                                    out.dim(), " dims and ", out.numel(), " elements"))
                            .must(cat("be 1-D of ", end - begin, " elements")));
  }
  switch (init.kind) {
    case Init::Kind::zeros:
      out.zero_();
      return;
    case Init::Kind::ones:
      out.fill_(1.0);
      return;
    case Init::Kind::uniform:
      fill_on_cpu(out, [&](float* to) { fill_uniform(to, spec, begin, end, init.bound, seed); });
      return;
    case Init::Kind::normal:
      break;
  }
  if (out.is_cuda() && out.scalar_type() == at::kFloat && out.is_contiguous()) {
    const std::array<uint32_t, 2> key = random::philox_key(seed, cat("init/", spec.name));
    cuda::fill_normal(out, spec, begin, init.std, key);
    return;
  }
  fill_on_cpu(out, [&](float* to) { fill_normal(to, spec, begin, end, init.std, seed); });
}

}  // namespace tptrain::sharding
