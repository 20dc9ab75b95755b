// CheckpointReader: a checkpoint for one process alone, of which each byte is verified before it is
// read.
#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/read_check.h"
#include "checkpoint/shard_set.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

namespace {

Manifest checked_manifest(const std::filesystem::path& directory) {
  Manifest manifest = read_manifest(directory);
  const TensorIndex covers_every_tensor(manifest.pieces);
  for (int64_t file = 0; file < static_cast<int64_t>(manifest.files.size()); ++file) {
    check_shard_size(directory, manifest, file);
    check_shard_header(directory, manifest, file);
  }
  return manifest;
}

[[noreturn]] void refuse(const std::filesystem::path& directory, const std::string& fault) {
  throw CheckpointError(
      problem(fault)
          .at(directory.string())
          .remedy("Take another checkpoint: `tptrain verify RUN_DIR` says which are whole."));
}

}  // namespace

struct CheckpointReader::Impl {
  explicit Impl(const std::filesystem::path& directory)
      : manifest(checked_manifest(directory)),
        info(info_of(manifest, directory)),
        shards(directory, manifest),
        check(manifest, shards) {
    shards.set_before_read(
        [this](int64_t file, int64_t begin, int64_t end) { check.require(file, begin, end); });
  }

  Manifest manifest;
  CheckpointInfo info;
  ShardSet shards;
  ReadCheck check;
};

CheckpointReader::CheckpointReader(const std::filesystem::path& directory) {
  const std::string fault = problem_of([&] { impl_ = std::make_unique<Impl>(directory); });
  if (!fault.empty()) refuse(directory, fault);
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
  try {
    impl_->shards.read(kind, spec, begin, end, out.data_ptr<float>());
  } catch (const Refused& refused) {
    refuse(impl_->info.path, refused.what());
  }
}

}  // namespace tptrain::checkpoint
