// Layout of buckets: dense, padded to dp, bound as views, alone or in slots; pieces name every
// element of a range once.
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

using parameters::Placement;
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
      const ParamBuckets buckets(model.blocks, {.rank = 0, .size = dp_size}, {});
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
        // A table alone is cut between rows.
        const parameters::Parameter& first = *bucket.parameters[0];
        const bool is_table =
            bucket.parameters.size() == 1 && first.role == parameters::Role::vocab_parallel;
        const int64_t unit = is_table ? first.shape[1] : 1;
        REQUIRE(bucket.numel % (dp_size * unit) == 0);
        REQUIRE(bucket.numel - next < dp_size * unit);
        REQUIRE(bucket.data.numel() == bucket.numel);
        REQUIRE(at::equal(bucket.data, at::zeros({bucket.numel})));
        REQUIRE(at::equal(bucket.main_grad, at::zeros({bucket.numel})));
        REQUIRE(buckets.shard_range(bucket, 0).first == 0);
        REQUIRE(buckets.shard_range(bucket, dp_size - 1).second == bucket.numel);
      }
      CHECK(names == std::vector<std::string>{"embedding, tp_sharded", "layer 0, tp_sharded",
                                              "layer 0, tp_replicated", "layer 1, tp_sharded",
                                              "layer 2, tp_sharded", "layer 2, tp_replicated",
                                              "head, tp_sharded", "head, tp_replicated"});
    }
  }
}

TEST_CASE("matrices that FP8 products alone read have buckets of their own, if asked to",
          "[zero]") {
  for (const Fp8Matrices where : {Fp8Matrices::with_others, Fp8Matrices::apart}) {
    SyntheticModel model = synthetic_model(0, 2);
    const int64_t matrices = std::ranges::count_if(
        model.parameters, [](const auto& parameter) { return parameter->wants_amax; });
    REQUIRE(matrices > 0);
    const ParamBuckets buckets(model.blocks, {.rank = 1, .size = 3},
                               {.zero_stage = 3, .fp8_matrices = where});
    int64_t found = 0;
    for (const Bucket& bucket : buckets.buckets()) {
      for (const parameters::Parameter* parameter : bucket.parameters)
        CHECK(bucket.fp8 == (where == Fp8Matrices::apart && parameter->wants_amax));
      if (!bucket.fp8) continue;
      found += static_cast<int64_t>(bucket.parameters.size());
      CHECK(bucket.name.ends_with(", FP8"));
      CHECK(bucket.numel % (3 * kFp8Shard) == 0);
      CHECK(bucket.memory_begin == 0);  // at the beginning of memory that kernels can read
    }
    CHECK(found == (where == Fp8Matrices::apart ? matrices : 0));
  }
}

TEST_CASE("the replicated buckets have the same layout on every tp rank", "[zero]") {
  SyntheticModel first = synthetic_model(0, 4), last = synthetic_model(3, 4);
  const ParamBuckets a(first.blocks, {.rank = 0, .size = 2}, {});
  const ParamBuckets b(last.blocks, {.rank = 0, .size = 2}, {});
  for (size_t i = 0; i < a.buckets().size(); ++i) {
    if (a.buckets()[i].placement != Placement::tp_replicated) continue;
    CHECK(a.buckets()[i].numel == b.buckets()[i].numel);
    CHECK(a.buckets()[i].offsets == b.buckets()[i].offsets);
  }
}

TEST_CASE("parameters with whole gradients stand before those with partial ones", "[zero]") {
  SyntheticModel model = synthetic_model(0, 1);
  const ParamBuckets buckets(model.blocks, {.rank = 0, .size = 4}, {});
  const Bucket& mixed = buckets.buckets()[2];
  REQUIRE(mixed.name == "layer 0, tp_replicated");
  std::vector<std::string> names;
  for (const parameters::Parameter* parameter : mixed.parameters) names.push_back(parameter->name);
  CHECK(names ==
        std::vector<std::string>{"layers.0.router", "layers.0.input_norm", "layers.0.o_bias"});
  CHECK(mixed.partial_begin == 35);
  CHECK(mixed.numel == 52);  // 49 padded to dp 4
  const Bucket& whole = buckets.buckets()[5];
  REQUIRE(whole.name == "layer 2, tp_replicated");
  CHECK(whole.partial_begin == whole.numel);
}

TEST_CASE("what a block sums over tp is one range of memory behind its whole gradients", "[zero]") {
  for (const int stage : {0, 1, 2, 3}) {
    for (const int tp_size : {1, 2, 4}) {
      INFO("stage " << stage << ", tp " << tp_size);
      SyntheticModel model = synthetic_model(tp_size - 1, tp_size);
      const ParamBuckets buckets(model.blocks, {.rank = 0, .size = 4}, {.zero_stage = stage});
      // At tp 4 two ranks share a kv head: k and v of [3, 7] and their biases [3], 2 parts each.
      const int64_t staging = tp_size == 4 ? 2 * 2 * (21 + 3) : 0;
      for (int block = 0; block < 5; ++block) {
        const TpRegion& region = buckets.tp_region(block);
        const Bucket* replicated = nullptr;
        for (const Bucket& bucket : buckets.buckets()) {
          if (bucket.block == block && bucket.placement == Placement::tp_replicated) {
            replicated = &bucket;
          }
        }
        const int64_t partial =
            replicated == nullptr ? 0 : replicated->numel - replicated->partial_begin;
        const bool layer = block >= 1 && block <= 3;
        CHECK(partial == (block == 1 ? 17 : block == 4 ? 8 : 0));  // padding included
        CHECK(region.whole.defined() == (partial > 0 || (layer && staging > 0)));
        if (!region.whole.defined()) continue;
        CHECK(region.whole.numel() == partial + (layer ? staging : 0));
        if (partial > 0) {
          CHECK(region.partial.data_ptr() == region.whole.data_ptr());
          CHECK(region.whole.data_ptr() ==
                replicated->main_grad.narrow(0, replicated->partial_begin, partial).data_ptr());
        }
        if (!layer || staging == 0) continue;
        CHECK(region.staging.numel() == staging);
        CHECK(region.staging.data_ptr<float>() == region.whole.data_ptr<float>() + partial);
      }
    }
  }
}

TEST_CASE("the ends share a slot, layers take turns in two, a tied head has its own", "[zero]") {
  const auto slots = [](const std::vector<parameters::ParameterBlock>& blocks) {
    std::vector<int> result;
    for (size_t b = 0; b < blocks.size(); ++b)
      result.push_back(slot_of(blocks, static_cast<int>(b)));
    return result;
  };
  const SyntheticModel own = synthetic_model(0, 1);
  const SyntheticModel tied = synthetic_model(0, 1, testing::Head::tied);
  CHECK(slots(own.blocks) == std::vector<int>{0, 1, 2, 1, 0});
  CHECK(slots(tied.blocks) == std::vector<int>{0, 1, 2, 1, 3});
  CHECK(slots({{.name = "all"}}) == std::vector<int>{0});
  CHECK(message_of([&] { (void)slot_of(own.blocks, 5); }) ==
        "internal error: slot of block 5: it must be one of 5.");
}

TEST_CASE("blocks share memory by stage: gradients from 2 on, parameters at 3", "[zero]") {
  for (const int stage : {0, 1, 2, 3}) {
    INFO("stage " << stage);
    SyntheticModel model = synthetic_model(0, 4);
    ParamBuckets buckets(model.blocks, {.rank = 0, .size = 2}, {.zero_stage = stage});
    for (const Bucket& a : buckets.buckets()) {
      for (const Bucket& b : buckets.buckets()) {
        if (&a == &b) continue;
        const bool same_slot = a.placement == b.placement &&
                               slot_of(model.blocks, a.block) == slot_of(model.blocks, b.block);
        CHECK((a.data.data_ptr() == b.data.data_ptr()) == (same_slot && stage == 3));
        CHECK((a.main_grad.data_ptr() == b.main_grad.data_ptr()) == (same_slot && stage >= 2));
      }
    }
    // What a block writes stays within its own slot.
    const Bucket& layer = buckets.buckets()[1];
    buckets.buckets()[0].main_grad.fill_(7);
    for (const int block : {1, 3}) {
      const TpRegion& region = buckets.tp_region(block);
      region.whole.fill_(5);
      CHECK(at::equal(layer.main_grad, at::zeros_like(layer.main_grad)));
      CHECK(at::all(buckets.buckets()[0].main_grad == 7).item<bool>());
    }
  }
}

TEST_CASE("parameters are fp32 or bf16, gradients fp32", "[zero]") {
  SyntheticModel model = synthetic_model(0, 1);
  const ParamBuckets buckets(model.blocks, {.rank = 0, .size = 2}, {.dtype = at::kBFloat16});
  for (const auto& parameter : model.parameters) {
    CHECK(parameter->data.scalar_type() == at::kBFloat16);
    CHECK(parameter->main_grad.scalar_type() == at::kFloat);
  }
}

TEST_CASE("data and main_grad are views of their bucket", "[zero]") {
  SyntheticModel model = synthetic_model(1, 2);
  ParamBuckets buckets(model.blocks, {.rank = 0, .size = 4}, {});
  for (Bucket& bucket : buckets.buckets()) {
    bucket.data.copy_(at::arange(bucket.numel));
    bucket.main_grad.copy_(-at::arange(bucket.numel));
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      const parameters::Parameter& parameter = *bucket.parameters[i];
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
  ParamBuckets buckets(model.blocks, {.rank = 0, .size = 5}, {});
  for (const Bucket& bucket : buckets.buckets()) {
    int64_t used = 0;
    for (const parameters::Parameter* parameter : bucket.parameters) used += parameter->numel();
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
  const auto lay_out = [&] { ParamBuckets(model.blocks, {.rank = 0, .size = 2}, {}); };

  SECTION("a parameter in two blocks") {
    model.blocks[4].parameters.push_back(model.parameters[0].get());
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
  SECTION("a head that works on another block than the first") {
    model.blocks[4].also_uses = 2;
    CHECK(message_of(lay_out) ==
          "internal error: block 'head', number 4, also uses block 2: it must be the last block "
          "and use block 0, or none.");
  }
  SECTION("a layer that works on the table") {
    model.blocks[2].also_uses = 0;
    CHECK(message_of(lay_out) ==
          "internal error: block 'layer 1', number 2, also uses block 0: it must be the last block "
          "and use block 0, or none.");
  }
  SECTION("copies of a replicated parameter, and parts that do not exist") {
    model.parameter("layers.0.router").slices[0].copies = {.part = 0, .parts = 2};
    CHECK(message_of(lay_out) ==
          "internal error: slice 'layers.0.router' of parameter 'layers.0.router' is copy 0 of 2: "
          "it must belong to a tp_sharded parameter.");
    model.parameter("layers.0.qkv").slices[1].copies = {.part = 2, .parts = 2};
    CHECK(message_of(lay_out) ==
          "internal error: slice 'layers.0.k' of parameter 'layers.0.qkv' is copy 2 of 2: it must "
          "be one of them, counted from 0.");
  }
  SECTION("stages and dtypes that are not there") {
    CHECK(message_of([&] {
            ParamBuckets(model.blocks, {.rank = 0, .size = 2}, {.zero_stage = 4});
          }) == "internal error: ZeRO stage 4: it must be 0, 1, 2 or 3.");
    CHECK(message_of([&] {
            ParamBuckets(model.blocks, {.rank = 0, .size = 2}, {.dtype = at::kHalf});
          }) == "internal error: parameters of dtype Half: it must be fp32 or bf16.");
  }
  SECTION("a dp rank outside dp") {
    CHECK(message_of([&] { ParamBuckets(model.blocks, {.rank = 2, .size = 2}, {}); }) ==
          "internal error: dp rank 2 of 2: it must lie within it.");
  }
  SECTION("ranges and ranks outside a bucket") {
    ParamBuckets buckets(model.blocks, {.rank = 0, .size = 2}, {});
    CHECK(message_of([&] { pieces_of(buckets.buckets()[0], 3, 85); }) ==
          "internal error: elements [3, 85) of bucket 'embedding, tp_sharded': it must lie within "
          "[0, 84).");
    CHECK(message_of([&] { (void)buckets.shard_range(buckets.buckets()[0], 2); }) ==
          "internal error: shard of dp rank 2: it must be one of 2.");
  }
}

}  // namespace tptrain::zero
