#include "model/host_batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

namespace tptrain::model {

namespace {

// Entries of documents' ends are rounded up to these, by repeating the last: the number of
// documents changes from batch to batch, and a captured step takes as many or fewer.
constexpr int64_t kFewestEnds = 16;

int64_t rounded_ends(int64_t entries) {
  int64_t rounded = kFewestEnds;
  while (rounded < entries) rounded *= 2;
  return rounded;
}

at::Tensor view_of(const std::vector<int64_t>& values, at::IntArrayRef shape) {
  return at::from_blob(const_cast<int64_t*>(values.data()), shape, at::kLong);
}

/// By page-locked memory where `device` is a GPU: from other memory the copy would be the host's
/// own, and wait. A copy on the CPU too: the host batch, of which this is a view, dies.
at::Tensor upload(const at::Tensor& host, at::Device device, at::ScalarType type = at::kLong) {
  at::Tensor staged =
      at::empty(host.sizes(), at::TensorOptions().dtype(type).pinned_memory(device.is_cuda()));
  staged.copy_(host);
  return staged.to(device, /*non_blocking=*/true);
}

// All rows end to end as one sequence: kernels and slices of the sequence need not know of rows.
TokenBatch documents_to_device(const data::HostBatch& batch, at::Device device,
                               int64_t most_documents) {
  const int64_t tokens = batch.batch * batch.seq_length;
  const int64_t entries = rounded_ends(1 + std::max(most_documents, batch.documents()));
  std::vector<int64_t> ends = {0};
  ends.insert(ends.end(), batch.document_ends.begin(), batch.document_ends.end());
  ends.resize(static_cast<size_t>(entries), tokens);
  const std::vector<int64_t> positions = batch.positions();
  return {
      .ids = upload(view_of(batch.ids, {tokens, 1}), device),
      .targets = upload(view_of(batch.targets, {tokens, 1}), device),
      .documents =
          PackedDocuments{.attention = {.ends = upload(view_of(ends, {entries}), device, at::kInt),
                                        .longest = batch.seq_length},
                          .positions = upload(view_of(positions, {tokens}), device)},
      .step = batch.step,
      .first_sample = batch.first_sample};
}

}  // namespace

TokenBatch to_device(const data::HostBatch& batch, at::Device device, int64_t most_documents) {
  if (batch.documents() > 0) return documents_to_device(batch, device, most_documents);
  const auto columns = [&](const std::vector<int64_t>& rows) {
    return upload(view_of(rows, {batch.batch, batch.seq_length}).t(), device);  // [S, B]
  };
  return {.ids = columns(batch.ids),
          .targets = columns(batch.targets),
          .step = batch.step,
          .first_sample = batch.first_sample};
}

}  // namespace tptrain::model
