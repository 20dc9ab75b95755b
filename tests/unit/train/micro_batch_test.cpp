// Host batches as what the model takes: rows as columns, documents as one sequence with room for
// more of them; and the memory of a captured step, which others are copied into.
#include "train/micro_batch.h"

#include <ATen/ATen.h>

#include "support/catch.h"

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

TEST_CASE("a batch is copied into the room of another of its sizes", "[train]") {
  const MicroBatch first = to_device(two_rows(), at::kCPU);
  MicroBatch room = room_for(first, 0);
  data::HostBatch next = two_rows();
  next.ids[0] = 99;
  const MicroBatch micro = to_device(next, at::kCPU);
  REQUIRE(fits_into(micro, room));
  copy_into(room, micro);
  CHECK(values(room.ids) == values(micro.ids));
  CHECK(values(room.targets) == values(micro.targets));

  data::HostBatch longer = two_rows();
  longer.seq_length = 2;
  longer.batch = 4;
  CHECK_FALSE(fits_into(to_device(longer, at::kCPU), room));
  next.document_ends = {4, 8};
  CHECK_FALSE(fits_into(to_device(next, at::kCPU), room));
}

TEST_CASE("documents fit where there is room for as many; what is left over is empty", "[train]") {
  data::HostBatch batch = two_rows();
  batch.document_ends = {1, 4, 8};
  const MicroBatch few = to_device(batch, at::kCPU);
  MicroBatch room = room_for(few, 32);
  REQUIRE(fits_into(few, room));
  copy_into(room, few);
  CHECK(values(room.ids) == values(few.ids));
  CHECK(values(room.documents->positions) == values(few.documents->positions));
  std::vector<int64_t> ends = {0, 1, 4};
  ends.resize(32, 8);
  CHECK(values(room.documents->attention.ends) == ends);

  CHECK(entries_of_documents(to_device(batch, at::kCPU, 40)) == 64);
  CHECK_FALSE(fits_into(to_device(batch, at::kCPU, 40), room));
  CHECK_FALSE(fits_into(to_device(two_rows(), at::kCPU), room));
  CHECK(entries_of_documents(to_device(two_rows(), at::kCPU)) == 0);
}

}  // namespace tptrain::train
