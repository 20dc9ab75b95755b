// Layout of buckets: dense, padded to dp, bound as views; pieces name every element of a range
// once.
#include "zero/param_buckets.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/text.h"
#include "support/catch.h"
#include "unit/zero/synthetic_model.h"

namespace tptrain::zero {
namespace {

using sharding::Placement;
using testing::synthetic_model;
using testing::SyntheticModel;

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "(no error)";
}

}  // namespace

TEST_CASE("a block has one bucket a placement, in block order, dense and padded to dp", "[zero]") {
  for (const int dp_size : {1, 2, 3, 4, 64}) {
    for (const int tp_size : {1, 2, 4}) {
      SyntheticModel model = synthetic_model(tp_size - 1, tp_size);
      const ParamBuckets buckets(model.blocks, {.rank = 0, .size = dp_size}, at::kCPU);
      std::vector<std::string> names;
      for (const Bucket& bucket : buckets.buckets()) {
        names.push_back(bucket.name);
        int64_t next = 0;
        for (size_t i = 0; i < bucket.parameters.size(); ++i) {
          REQUIRE(bucket.parameters[i]->placement == bucket.placement);
          REQUIRE(bucket.offsets[i] == next);
          next += bucket.parameters[i]->numel();
        }
        REQUIRE(bucket.numel % dp_size == 0);
        REQUIRE(bucket.numel - next >= 0);
        REQUIRE(bucket.numel - next < dp_size);
        REQUIRE(bucket.data.numel() == bucket.numel);
        REQUIRE(at::equal(bucket.data, at::zeros({bucket.numel})));
        REQUIRE(at::equal(bucket.main_grad, at::zeros({bucket.numel})));
        REQUIRE(buckets.shard_range(bucket, 0).first == 0);
        REQUIRE(buckets.shard_range(bucket, dp_size - 1).second == bucket.numel);
      }
      CHECK(names == std::vector<std::string>{"embedding, tp_sharded", "layer 0, tp_sharded",
                                              "layer 0, tp_replicated", "layer 1, tp_sharded",
                                              "layer 1, tp_replicated", "head, tp_sharded",
                                              "head, tp_replicated"});
    }
  }
}

TEST_CASE("the replicated buckets have the same layout on every tp rank", "[zero]") {
  SyntheticModel first = synthetic_model(0, 4), last = synthetic_model(3, 4);
  const ParamBuckets a(first.blocks, {.rank = 0, .size = 2}, at::kCPU);
  const ParamBuckets b(last.blocks, {.rank = 0, .size = 2}, at::kCPU);
  for (size_t i = 0; i < a.buckets().size(); ++i) {
    if (a.buckets()[i].placement != Placement::tp_replicated) continue;
    CHECK(a.buckets()[i].numel == b.buckets()[i].numel);
    CHECK(a.buckets()[i].offsets == b.buckets()[i].offsets);
  }
}

TEST_CASE("data and main_grad are views of their bucket", "[zero]") {
  SyntheticModel model = synthetic_model(1, 2);
  ParamBuckets buckets(model.blocks, {.rank = 0, .size = 4}, at::kCPU);
  for (Bucket& bucket : buckets.buckets()) {
    bucket.data.copy_(at::arange(bucket.numel));
    bucket.main_grad.copy_(-at::arange(bucket.numel));
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      const sharding::Parameter& parameter = *bucket.parameters[i];
      const at::Tensor expected =
          at::arange(bucket.offsets[i], bucket.offsets[i] + parameter.numel())
              .to(at::kFloat)
              .view(parameter.shape);
      CHECK(at::equal(parameter.data, expected));
      CHECK(at::equal(parameter.main_grad, -expected));
    }
  }
}

TEST_CASE("pieces name every element of a range once, padding never", "[zero]") {
  SyntheticModel model = synthetic_model(0, 2);
  ParamBuckets buckets(model.blocks, {.rank = 0, .size = 5}, at::kCPU);
  for (const Bucket& bucket : buckets.buckets()) {
    int64_t used = 0;
    for (const sharding::Parameter* parameter : bucket.parameters) used += parameter->numel();
    for (int64_t begin = 0; begin <= bucket.numel; begin += 7) {
      for (int64_t end = begin; end <= bucket.numel; end += 11) {
        int64_t next = begin;
        for (const BucketPiece& piece : pieces_of(bucket, begin, end)) {
          REQUIRE(piece.bucket_begin == next);
          REQUIRE(piece.count > 0);
          REQUIRE(piece.slice_begin >= 0);
          REQUIRE(piece.slice_begin + piece.count <= piece.slice->spec.local_numel());
          const auto at =
              std::find(bucket.parameters.begin(), bucket.parameters.end(), piece.parameter) -
              bucket.parameters.begin();
          REQUIRE(bucket.offsets[at] + piece.slice->offset + piece.slice_begin ==
                  piece.bucket_begin);
          next += piece.count;
        }
        REQUIRE(next == std::max(begin, std::min(end, used)));
      }
    }
  }
}

TEST_CASE("what cannot be laid out is refused by name", "[zero]") {
  SyntheticModel model = synthetic_model(0, 1);
  const auto lay_out = [&] { ParamBuckets(model.blocks, {.rank = 0, .size = 2}, at::kCPU); };

  SECTION("a parameter in two blocks") {
    model.blocks[3].parameters.push_back(model.parameters[0].get());
    CHECK(message_of(lay_out) ==
          "internal error: parameter 'embed' stands a second time, in block 'head': it must stand "
          "in one block only (a tied table in the first that uses it).");
  }
  SECTION("slices with a gap") {
    model.parameters[2]->slices[1].offset += 1;
    CHECK(message_of(lay_out) ==
          "internal error: slice 'layers.0.k' of parameter 'layers.0.qkv' begins at element 85: it "
          "must begin at 84, where the slice before it ends.");
  }
  SECTION("slices that do not cover the parameter") {
    model.parameters[2]->slices.pop_back();
    CHECK(message_of(lay_out) ==
          "internal error: the slices of parameter 'layers.0.qkv' cover 126 elements: it must "
          "cover all its 168.");
  }
  SECTION("a dp rank outside dp") {
    CHECK(message_of([&] { ParamBuckets(model.blocks, {.rank = 2, .size = 2}, at::kCPU); }) ==
          "internal error: dp rank 2 of 2: it must lie within it.");
  }
  SECTION("ranges and ranks outside a bucket") {
    ParamBuckets buckets(model.blocks, {.rank = 0, .size = 2}, at::kCPU);
    CHECK(message_of([&] { pieces_of(buckets.buckets()[0], 3, 79); }) ==
          "internal error: elements [3, 79) of bucket 'embedding, tp_sharded': it must lie within "
          "[0, 78).");
    CHECK(message_of([&] { (void)buckets.shard_range(buckets.buckets()[0], 2); }) ==
          "internal error: shard of dp rank 2: it must be one of 2.");
  }
}

}  // namespace tptrain::zero
