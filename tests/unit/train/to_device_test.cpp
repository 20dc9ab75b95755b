// Host batches as what the model takes: rows as columns, documents as one sequence with room for
// more of them.
#include <ATen/ATen.h>

#include "support/catch.h"
#include "train/engine.h"

namespace tptrain::train {
namespace {

std::vector<int64_t> values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kLong).reshape({-1});
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

data::HostBatch two_rows() {
  return {.batch = 2,
          .seq_length = 4,
          .ids = {1, 2, 3, 4, 5, 6, 7, 8},
          .targets = {2, 3, 4, 5, 6, 7, 8, 9},
          .step = 3,
          .first_sample = 6};
}

}  // namespace

TEST_CASE("rows that see themselves alone become columns", "[train]") {
  const MicroBatch micro = to_device(two_rows(), at::kCPU);
  CHECK(micro.ids.sizes() == at::IntArrayRef({4, 2}));
  CHECK(values(micro.ids) == std::vector<int64_t>{1, 5, 2, 6, 3, 7, 4, 8});
  CHECK(values(micro.targets) == std::vector<int64_t>{2, 6, 3, 7, 4, 8, 5, 9});
  CHECK_FALSE(micro.documents.has_value());
  CHECK(micro.step == 3);
  CHECK(micro.first_sample == 6);
}

TEST_CASE("documents become one sequence, row behind row", "[train]") {
  data::HostBatch batch = two_rows();
  batch.document_ends = {1, 4, 8};
  const MicroBatch micro = to_device(batch, at::kCPU);
  CHECK(micro.ids.sizes() == at::IntArrayRef({8, 1}));
  CHECK(values(micro.ids) == batch.ids);
  CHECK(values(micro.targets) == batch.targets);
  REQUIRE(micro.documents.has_value());
  CHECK(values(micro.documents->positions) == std::vector<int64_t>{0, 0, 1, 2, 0, 1, 2, 3});
  CHECK(micro.documents->attention.longest == 4);
  const at::Tensor& ends = micro.documents->attention.ends;
  CHECK(ends.scalar_type() == at::kInt);
  CHECK(values(ends) == std::vector<int64_t>{0, 1, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8});
  CHECK(micro.step == 3);
  CHECK(micro.first_sample == 6);
}

TEST_CASE("room for documents comes in powers of two, and as another rank needs it", "[train]") {
  data::HostBatch batch = two_rows();
  batch.document_ends = {4, 8};
  const auto entries = [&](int64_t most_documents) {
    return to_device(batch, at::kCPU, most_documents).documents->attention.ends.size(0);
  };
  CHECK(entries(0) == 16);
  CHECK(entries(15) == 16);  // and the first entry, 0
  CHECK(entries(16) == 32);
  CHECK(entries(31) == 32);
  CHECK(entries(32) == 64);
}

}  // namespace tptrain::train
