// The embedding's look-up and gradient on slices of the vocabulary, against at::embedding with
// autograd in fp64. Ids are random, all one, and mostly one: on CUDA equal ids are summed in chunks
// of 32 tokens, and a run may end in the chunk it began in, at its end, in the next one or many
// later.
#include "kernels/kernels.h"
#include "kernels/reference.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

at::Tensor random_ids(int64_t tokens, int64_t vocab, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, vocab, {tokens}, generator, at::kLong);
}

struct Case {
  const char* name;
  at::Tensor ids;  // [T]
  int64_t vocab;
};
std::vector<Case> cases() {
  at::Tensor frequent = random_ids(3000, 50, 2);
  frequent.masked_fill_(random_ids(3000, 3, 3).ne(0), 17);
  return {{"one token", at::zeros({1}, at::kLong), 3},
          {"all one id", at::full({200}, 4, at::kLong), 9},
          {"every id once", at::arange(0, 100, at::kLong).flip({0}), 100},
          {"runs of a chunk", at::arange(0, 256, at::kLong).div(32, "floor"), 8},
          {"runs beside chunks", (at::arange(0, 301, at::kLong) + 9).div(33, "floor"), 10},
          {"two thirds one id", frequent, 50},
          {"random", random_ids(1000, 5000, 4), 5000}};
}

}  // namespace

TEST_CASE("the embedding of a slice and its gradient match autograd", "[kernels]") {
  at::set_num_threads(1);
  for (const Case& c : cases()) {
    for (const int64_t hidden : {7, 64, 896}) {
      for (const Precision precision : precisions()) {
        const at::Tensor table = leaf(normal({c.vocab, hidden}, 5));
        const at::Tensor grad = normal({c.ids.size(0), hidden}, 6);
        const at::Tensor expected = at::embedding(table, c.ids);
        expected.backward(grad);
        const at::Tensor ids = c.ids.to(device());
        const at::Tensor local_grad = on_device(grad, precision.type);
        const at::ScalarType accumulator = precision.type == at::kDouble ? at::kDouble : at::kFloat;
        at::Tensor rows;
        const int64_t cut = c.vocab / 3;
        for (const auto& [begin, end] :
             std::vector<std::pair<int64_t, int64_t>>{{0, c.vocab}, {0, cut}, {cut, c.vocab}}) {
          CAPTURE(c.name, hidden, precision.type, begin, end);
          const VocabSlice slice = {.begin = begin, .vocab = c.vocab};
          const at::Tensor local_table =
              on_device(table.detach().slice(0, begin, end), precision.type);
          const at::Tensor part = embedding_rows(local_table, ids, slice);
          if (end - begin == c.vocab) {
            CHECK(same_bits(part, on_device(expected.detach(), precision.type)));
          } else {
            rows = rows.defined() ? rows + part : part;
          }
          // Added to what is there; twice, to see that it repeats.
          const at::Tensor ones =
              at::ones({end - begin, hidden}, at::TensorOptions(device()).dtype(accumulator));
          at::Tensor table_grad = ones.clone(), again = ones.clone();
          accumulate_embedding_gradient(table_grad, local_grad, ids, slice);
          accumulate_embedding_gradient(again, local_grad, ids, slice, order_of_tokens(ids));
          CHECK(same_bits(table_grad, again));
          CHECK_CLOSE(table_grad - 1.0, table.grad().slice(0, begin, end),
                      precision.type == at::kDouble ? 1e-12 : 2e-6);
        }
        // Each id is in one slice, and zero in the other.
        CHECK(same_bits(rows, on_device(expected.detach(), precision.type)));
      }
    }
  }
}

TEST_CASE("wrong forms of an embedding are refused with the sizes received", "[kernels]") {
  const at::Tensor table = at::zeros({9, 8}, at::TensorOptions(device()).dtype(at::kFloat));
  const at::Tensor ids = at::zeros({2, 3}, table.options().dtype(at::kLong));
  CHECK(contains(message_of([&] { embedding_rows(table, ids, {.begin = 0, .vocab = 9}); }),
                 "embedding_rows got sizes [2, 3]"));
  at::Tensor grad = table.clone();
  CHECK(contains(message_of([&] {
                   accumulate_embedding_gradient(grad, at::zeros({6, 7}, table.options()),
                                                 ids.reshape({-1}), {.begin = 0, .vocab = 9});
                 }),
                 "a grad_output [T, H]"));
}
