#include "checkpoint/load.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/shard_set.h"
#include "checkpoint/tensor_index.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;
using sharding::StatePiece;

namespace {

constexpr size_t kMaxNamed = 5;  // tensors an error names one by one

// "exp_avg/model.norm.weight": a kind holds no slash.
std::string state_name(std::string_view kind, const std::string& tensor) {
  return cat(kind, "/", tensor);
}

// What a rank's state wants and the checkpoint cannot give, and what it holds that no rank wants.
std::vector<std::string> differences(const ShardSet& shards, const sharding::StateDict& state,
                                     const std::set<std::string>& wanted_by_any,
                                     Wanted wanted_kinds) {
  std::set<std::string> found;
  for (const StatePiece& piece : state.pieces) {
    if (piece.begin == piece.end) continue;
    if (std::string difference = problem_of([&] { shards.require(piece.kind, piece.spec); });
        !difference.empty())
      found.insert(std::move(difference));
  }
  std::set<std::string> tensors;
  for (const std::string& name : wanted_by_any) tensors.insert(name.substr(name.find('/') + 1));
  for (const sharding::TensorInfo& tensor : shards.index().tensors()) {
    if (!tensors.contains(tensor.name)) {
      found.insert(cat("the model has no tensor ", one_line(tensor.name)));
      continue;
    }
    if (wanted_kinds == Wanted::weights) continue;
    for (const std::string& kind : shards.index().kinds_of(tensor.name)) {
      if (!wanted_by_any.contains(state_name(kind, tensor.name)))
        found.insert(cat("this run keeps no ", kind, " of tensor ", one_line(tensor.name)));
    }
  }
  return {found.begin(), found.end()};
}

std::set<std::string> wanted_by_any_rank(comm::ControlGroup& group,
                                         const sharding::StateDict& state) {
  std::set<std::string> mine;
  for (const StatePiece& piece : state.pieces) mine.insert(state_name(piece.kind, piece.spec.name));
  std::set<std::string> all;
  for (const std::string& text : group.all_gather(join(mine, std::string_view("\0", 1)))) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\0', begin), text.size());
      all.insert(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return all;
}

void load_piece(const ShardSet& shards, StatePiece& piece) {
  if (!piece.data.defined() || piece.data.dim() != 1 ||
      (piece.data.scalar_type() != at::kFloat && piece.data.scalar_type() != at::kBFloat16) ||
      piece.data.numel() != piece.end - piece.begin) {
    throw InternalError(
        problem(cat("the piece [", piece.begin, ", ", piece.end, ") of ", piece.spec.name,
                    " is no 1-D fp32 or bf16 tensor of that many elements")));
  }
  if (piece.begin == piece.end) return;
  const at::ScalarType dtype = piece.data.scalar_type();
  if (piece.data.is_cpu() && piece.data.is_contiguous() && dtype == at::kFloat) {
    shards.read(piece.kind, piece.spec, piece.begin, piece.end, piece.data.data_ptr<float>());
    return;
  }
  for (int64_t begin = piece.begin; begin < piece.end; begin += sharding::kStateChunkElements) {
    const int64_t count = std::min(sharding::kStateChunkElements, piece.end - begin);
    at::Tensor host = at::empty({count}, at::TensorOptions().dtype(at::kFloat).device(at::kCPU));
    shards.read(piece.kind, piece.spec, begin, begin + count, host.data_ptr<float>());
    piece.data.narrow(0, begin - piece.begin, count).copy_(host.to(dtype));
  }
}

}  // namespace

void load_state(comm::ControlGroup& group, const fs::path& path, const Manifest& manifest,
                sharding::StateDict& state, Wanted wanted_kinds) {
  const std::set<std::string> wanted = wanted_by_any_rank(group, state);
  comm::agree(
      group,
      [&] {
        const ShardSet shards(path, manifest);
        const std::vector<std::string> differing = differences(shards, state, wanted, wanted_kinds);
        if (!differing.empty()) {
          const std::vector<std::string> named(
              differing.begin(), differing.begin() + static_cast<std::ptrdiff_t>(
                                                         std::min(kMaxNamed, differing.size())));
          throw CheckpointError(
              problem(cat("the checkpoint is of another model:\n    ", join(named, "\n    "),
                          differing.size() > kMaxNamed
                              ? cat("\n    and ", differing.size() - kMaxNamed, " more")
                              : ""))
                  .at(path.string())
                  .remedy("Use the model section the checkpoint was trained with, or another "
                          "run_dir."));
        }
        const at::NoGradGuard no_grad;
        int64_t elements = 0;
        for (const StatePiece& piece : state.pieces) elements += piece.end - piece.begin;
        const Work work("reading the checkpoint", WorkUnit::bytes,
                        elements * static_cast<int64_t>(sizeof(float)));
        for (StatePiece& piece : state.pieces) load_piece(shards, piece);
      },
      OnStop::give_up);
}

}  // namespace tptrain::checkpoint
