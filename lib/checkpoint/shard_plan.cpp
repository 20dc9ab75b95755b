#include "checkpoint/shard_plan.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <string>
#include <tuple>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::checkpoint {

using sharding::StatePiece;

namespace {

void check_piece(const StatePiece& piece) {
  const bool fits =
      piece.data.defined() && piece.data.dim() == 1 &&
      (piece.data.scalar_type() == at::kFloat || piece.data.scalar_type() == at::kBFloat16) &&
      piece.data.numel() == piece.end - piece.begin && piece.begin >= 0 &&
      piece.end <= piece.spec.local_numel() && sharding::is_state_kind(piece.kind);
  if (fits) return;
  throw InternalError(problem(
      cat("the piece [", piece.begin, ", ", piece.end, ") of ", piece.spec.name,
          " is no 1-D fp32 or bf16 tensor of that many elements of its slice, of the kind '",
          piece.kind, "'")));
}

}  // namespace

ShardPlan plan_shard(const sharding::StateDict& state, int64_t file) {
  ShardPlan plan;
  for (const StatePiece& piece : state.pieces) {
    check_piece(piece);
    if (piece.save && piece.begin < piece.end) plan.sources.push_back(piece);
  }
  const auto rank = [](const StatePiece& p) {
    return std::tie(p.spec.name, p.spec.begin, p.begin);
  };
  std::stable_sort(plan.sources.begin(), plan.sources.end(),
                   [&](const StatePiece& a, const StatePiece& b) {
                     if (a.kind != b.kind) return sharding::kind_before(a.kind, b.kind);
                     return rank(a) < rank(b);
                   });
  int64_t number = 0;
  for (const StatePiece& piece : plan.sources) {
    const bool same_tensor = !plan.pieces.empty() && plan.pieces.back().kind == piece.kind &&
                             plan.pieces.back().spec.name == piece.spec.name;
    number = same_tensor ? number + 1 : 0;
    const std::string key = cat(piece.kind, "/", piece.spec.name, "#", number);
    plan.pieces.push_back({.kind = piece.kind,
                           .spec = piece.spec,
                           .begin = piece.begin,
                           .end = piece.end,
                           .file = file,
                           .key = key});
    // A whole tensor has one spelling in the file, whatever the caller left in begin and end.
    if (piece.spec.whole()) plan.pieces.back().spec.begin = plan.pieces.back().spec.end = 0;
    plan.entries.push_back(
        {.name = key, .dtype = formats::Dtype::f32, .shape = {piece.end - piece.begin}});
  }
  return plan;
}

namespace {

// Bytes of the source on their way: through page-locked memory from a GPU, as they lie from the
// host where they are fp32 there. Converted on the host: a GPU that is full of state has no room.
class Staging {
 public:
  at::Tensor on_host(const at::Tensor& values) {
    if (values.is_cpu()) return values.to(at::kFloat).contiguous();
    if (!staged_.defined() || staged_.scalar_type() != values.scalar_type())
      staged_ = at::empty(
          {sharding::kStateChunkElements},
          at::TensorOptions().dtype(values.scalar_type()).device(at::kCPU).pinned_memory(true));
    at::Tensor staged = staged_.narrow(0, 0, values.numel());
    staged.copy_(values);
    return staged.to(at::kFloat);
  }

 private:
  at::Tensor staged_;
};

bool is_finite(const float* values, int64_t count) {
  // In blocks of a fixed size, which compilers turn into vectors.
  constexpr int64_t kBlock = 1024;
  const auto any = [](const float* block, int64_t size) {
    uint32_t found = 0;
    for (int64_t i = 0; i < size; ++i) {
      const auto bits = std::bit_cast<uint32_t>(block[i]);
      found |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
    }
    return found != 0;
  };
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    if (any(values + i, kBlock)) return false;
  }
  return !any(values + i, count - i);
}

// A run that would go on from it could never train again, and it would push a good one out.
void require_finite(const at::Tensor& chunk, const ManifestPiece& piece) {
  if (is_finite(chunk.const_data_ptr<float>(), chunk.numel())) return;
  throw NumericsError(problem(cat("the ", piece.kind, " of tensor ", piece.spec.name,
                                  " holds a value that is not finite"))
                          .must("be finite to be saved")
                          .remedy("Nothing was committed: the run goes on from its last "
                                  "checkpoint. Lower optimizer.learning_rate, or keep what "
                                  "overflows in fp32 (optimizer.master_dtype, moments_dtype)."));
}

}  // namespace

DurableFile::Written write_shard(const std::filesystem::path& path, const ShardPlan& plan,
                                 const FaultPoint& fault_point, const std::atomic<bool>& given_up,
                                 std::atomic<int64_t>& values_written) {
  const at::NoGradGuard no_grad;
  formats::SafetensorsWriter writer(path, plan.entries, {}, FileHash::chunks);
  Staging staging;
  for (size_t i = 0; i < plan.sources.size(); ++i) {
    const at::Tensor& data = plan.sources[i].data;
    for (int64_t begin = 0; begin < data.numel(); begin += sharding::kStateChunkElements) {
      if (given_up) throw GivenUp();
      const int64_t count = std::min(sharding::kStateChunkElements, data.numel() - begin);
      const at::Tensor chunk = staging.on_host(data.narrow(0, begin, count));
      require_finite(chunk, plan.pieces[i]);
      writer.write(chunk.data_ptr(), chunk.nbytes());
      values_written += static_cast<int64_t>(chunk.nbytes());
    }
    if (i == plan.sources.size() / 2) fault_point("shard half written");
  }
  const DurableFile::Written written = writer.commit();
  fault_point("shard written");
  return written;
}

}  // namespace tptrain::checkpoint
