// CheckpointReader: a checkpoint for one process alone, verified from end to end before anything is
// read.
#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/shard_set.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

struct CheckpointReader::Impl {
  CheckpointInfo info;
  ShardSet shards;
};

CheckpointReader::CheckpointReader(const std::filesystem::path& directory) {
  const Verdict verdict = verify(directory, Depth::contents);
  if (!verdict.problem.empty()) {
    throw CheckpointError(
        problem(verdict.problem)
            .at(directory.string())
            .remedy("Take another checkpoint: `tptrain verify RUN_DIR` says which are whole."));
  }
  impl_ =
      std::make_unique<Impl>(Impl{*verdict.info, ShardSet(directory, read_manifest(directory))});
}

CheckpointReader::~CheckpointReader() = default;

const CheckpointInfo& CheckpointReader::info() const { return impl_->info; }

std::vector<sharding::TensorInfo> CheckpointReader::tensors() const {
  return impl_->shards.index().tensors();
}

void CheckpointReader::read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                                  at::Tensor& out) const {
  read_state(sharding::kMaster, spec, begin, end, out);
}

void CheckpointReader::read_state(std::string_view kind, const sharding::ShardSpec& spec,
                                  int64_t begin, int64_t end, at::Tensor& out) const {
  const bool fits = out.defined() && out.dim() == 1 && out.numel() == end - begin &&
                    out.scalar_type() == at::kFloat && out.is_cpu() && out.is_contiguous();
  if (!fits) {
    throw InternalError(
        problem(cat("read of ", spec.name, " into a tensor that is not contiguous fp32 [",
                    end - begin, "] on CPU")));
  }
  impl_->shards.read(kind, spec, begin, end, out.data_ptr<float>());
}

}  // namespace tptrain::checkpoint
