// The memory of parameters' values and how it is filled: a decoder's kinds of parameters, packed,
// padded, of several ranges that take one buffer in turn.
#include "parameters/parameter_store.h"

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/counting_allocator.h"
#include "support/catch.h"
#include "support/initial_source.h"

namespace tptrain::parameters {
namespace {

using kernels::cpu::CountingAllocator;
using sharding::slice_of;
using sharding::whole_tensor;

constexpr uint64_t kSeed = 11;

struct Model {
  std::vector<std::unique_ptr<Parameter>> parameters;
  std::vector<ParameterBlock> blocks;

  Parameter& add(std::vector<int64_t> shape) {
    parameters.push_back(std::make_unique<Parameter>());
    parameters.back()->shape = std::move(shape);
    blocks.back().parameters.push_back(parameters.back().get());
    return *parameters.back();
  }
};

/// A table with rows of padding, and a packed pair of which one is cut by columns beside a norm.
Model small_model() {
  Model model;
  model.blocks.push_back({.name = "embedding"});
  Parameter& table = model.add({5, 4});
  table.padding_rows = 3;
  table.slices = {{.spec = slice_of("table", {10, 4}, 0, 5, 10),
                   .init = {.kind = sharding::Init::Kind::normal, .std = 0.3}}};
  model.blocks.push_back({.name = "layer"});
  Parameter& packed = model.add({6, 4});
  packed.slices = {{.spec = slice_of("a", {2, 8}, 1, 4, 8),
                    .init = {.kind = sharding::Init::Kind::normal, .std = 0.3}},
                   {.spec = whole_tensor("b", {4, 4}),
                    .offset = 8,
                    .init = {.kind = sharding::Init::Kind::normal, .std = 0.3}}};
  Parameter& norm = model.add({4});
  norm.slices = {{.spec = whole_tensor("norm", {4}), .init = {.kind = sharding::Init::Kind::ones}}};
  return model;
}

at::Tensor values_of(const NamedSlice& slice, const sharding::Init& init) {
  at::Tensor values = at::empty({slice.spec.local_numel()});
  sharding::fill_initial(values, slice.spec, 0, values.numel(), init, kSeed);
  return values;
}

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "(no error)";
}

}  // namespace

TEST_CASE("readers hold every weight once and nothing else", "[parameters]") {
  const CountingAllocator& allocator = CountingAllocator::install();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Model model = small_model();
    const int64_t before = allocator.live_bytes();
    const ParameterStore store(whole_layout(model.blocks), {.dtype = dtype});
    const auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
    CHECK(store.layout().numel() == 8 * 4 + 6 * 4 + 4);  // the table's padding included
    CHECK(allocator.live_bytes() - before == store.layout().numel() * bytes);
    for (const auto& parameter : model.parameters) {
      CHECK(parameter->data.scalar_type() == dtype);
      CHECK(parameter->data.sizes().vec() == parameter->shape);
      CHECK_FALSE(parameter->main_grad.defined());
    }
  }
}

TEST_CASE("every slice is drawn or read into its place, rounded once, and padding stays zero",
          "[parameters]") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Model model = small_model();
    ParameterStore store(whole_layout(model.blocks), {.dtype = dtype});
    for (const bool from_source : {false, true}) {
      CAPTURE(from_source);
      if (from_source) {
        load_parameters(store.values(), testing::InitialSource(kSeed, 0.7));
      } else {
        draw_parameters(store.values(), kSeed);
      }
      int slices = 0;
      for (const SliceValues& value : store.values()) {
        sharding::Init init = value.slice->init;
        if (from_source && init.kind == sharding::Init::Kind::normal) init.std = 0.7;
        CHECK(at::equal(value.values, values_of(*value.slice, init).to(dtype)));
        ++slices;
      }
      CHECK(slices == 4);
      const Parameter& table = *model.parameters[0];
      CHECK(at::equal(table.with_padding(table.data).narrow(0, 5, 3),
                      at::zeros({3, 4}, at::TensorOptions().dtype(dtype))));
    }
  }
}

TEST_CASE("an adapter is drawn where its base is read: each set of slices has its source",
          "[parameters]") {
  Model model = small_model();
  ParameterStore store(whole_layout(model.blocks), {});
  std::vector<SliceValues> read, drawn;
  for (SliceValues& value : store.values())
    (value.slice->spec.name == "b" ? drawn : read).push_back(std::move(value));
  load_parameters(read, testing::InitialSource(kSeed, 0.7));
  draw_parameters(drawn, kSeed);
  const Parameter& packed = *model.parameters[1];
  const sharding::Init init = packed.slices[1].init;
  CHECK(at::equal(packed.data.view({-1}).narrow(0, 8, 16), values_of(packed.slices[1], init)));
  CHECK(at::equal(packed.data.view({-1}).narrow(0, 0, 8),
                  values_of(packed.slices[0], {.kind = init.kind, .std = 0.7})));
}

TEST_CASE("ranges that take one buffer in turn share memory, and are not filled at once",
          "[parameters]") {
  Model model = small_model();
  StoreLayout layout = whole_layout(model.blocks);
  layout.buffers = {32};
  for (FlatRange& range : layout.ranges) range.buffer = 0;
  ParameterStore store(layout, {});
  CHECK(store.layout().numel() == 32);
  CHECK(store.range(0).data_ptr() == store.range(2).data_ptr());
  CHECK(model.parameters[2]->data.data_ptr() == store.range(0).data_ptr());
  CHECK(message_of([&] { (void)store.values(); }) ==
        "internal error: all values of parameters that take memory in turn: it must be asked for "
        "where each has its own.");
}

TEST_CASE("what is no layout or no dtype is refused", "[parameters]") {
  Model model = small_model();
  StoreLayout layout = whole_layout(model.blocks);
  layout.buffers[1] = 23;
  CHECK(message_of([&] { ParameterStore(layout, {}); }) ==
        "internal error: the range [0, 24) of buffer 1: it must fit into one of the layout's.");
  CHECK(message_of([&] { ParameterStore(whole_layout(model.blocks), {.dtype = at::kHalf}); }) ==
        "internal error: parameters of dtype Half: it must be fp32 or bf16.");
}

TEST_CASE("values of a matrix that is gathered as FP8 are nobody's to read") {
  Parameter matrix;
  matrix.name = "w";
  matrix.data = at::ones({2, 2});
  CHECK(matrix.values().equal(matrix.data));
  matrix.fp8.rows = at::ones({2, 2}).to(at::kFloat8_e4m3fn);
  CHECK(message_of([&] { (void)matrix.values(); }) ==
        "internal error: the values of 'w', which is gathered as FP8: it must be read as FP8: "
        "there are no others.");
}

TEST_CASE("roles have their names", "[parameters]") {
  CHECK(role_name(Role::vocab_parallel) == "vocab-parallel");
  CHECK(role_name(Role::column_parallel) == "column-parallel");
  CHECK(role_name(Role::row_parallel) == "row-parallel");
  CHECK(role_name(Role::replicated) == "replicated");
}

}  // namespace tptrain::parameters
