#include "parameters/load_parameters.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>

#include "base/interruption.h"
#include "base/work.h"

namespace tptrain::parameters {
namespace {

using sharding::kStateChunkElements;

/// Makes the elements [begin, end) of the slice, fp32.
using Maker =
    std::function<void(const NamedSlice&, int64_t begin, int64_t end, at::Tensor& values)>;

// Chunk by chunk: a table of a gigabyte must not keep a stop waiting. Made on `device` where the
// memory is elsewhere or of another type.
void fill(const SliceValues& into, at::Device device, const Maker& make) {
  const int64_t count = into.values.numel();
  const bool in_place = into.values.scalar_type() == at::kFloat && into.values.device() == device;
  for (int64_t done = 0; done < count; done += kStateChunkElements) {
    interruption_point();
    const int64_t chunk = std::min(kStateChunkElements, count - done);
    at::Tensor part = into.values.narrow(0, done, chunk);
    at::Tensor values =
        in_place ? part : at::empty({chunk}, at::TensorOptions().dtype(at::kFloat).device(device));
    make(*into.slice, into.begin + done, into.begin + done + chunk, values);
    if (!in_place) part.copy_(values);
  }
}

}  // namespace

void load_parameters(const std::vector<SliceValues>& into, const sharding::TensorSource& source) {
  int64_t elements = 0;
  for (const SliceValues& target : into) elements += target.values.numel();
  const Work work("reading the weights", WorkUnit::bytes,
                  elements * static_cast<int64_t>(sizeof(float)));
  for (const SliceValues& target : into) {
    fill(target, at::kCPU,
         [&](const NamedSlice& slice, int64_t begin, int64_t end, at::Tensor& values) {
           source.read_slice(slice.spec, begin, end, values);
         });
  }
}

void draw_parameters(const std::vector<SliceValues>& into, uint64_t seed) {
  for (const SliceValues& target : into) {
    fill(target, target.values.device(),
         [&](const NamedSlice& slice, int64_t begin, int64_t end, at::Tensor& values) {
           sharding::fill_initial(values, slice.spec, begin, end, slice.init, seed);
         });
  }
}

}  // namespace tptrain::parameters
