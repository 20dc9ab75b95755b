// The small products inside attention, at every vector width this machine can run: a test machine
// with AVX-512 would otherwise prove that path alone.
#include "kernels/cpu/gemm.h"
#include "kernels/reference.h"

using namespace tptrain::kernels::cpu;
using namespace tptrain::testing;

TEST_CASE("small_gemm multiplies and adds at every vector level and in both transpositions",
          "[kernels]") {
  CHECK(machine_has(VectorLevel::baseline));
  for (const VectorLevel level : {VectorLevel::baseline, VectorLevel::v3, VectorLevel::v4}) {
    if (!machine_has(level)) continue;
    for (const int64_t m : {1, 3, 8, 13, 32}) {
      for (const int64_t n : {16, 32, 48, 128}) {
        for (const int64_t k : {1, 24, 128}) {
          CAPTURE(static_cast<int>(level), m, n, k);
          const at::Tensor a = normal({m, k}, 1), b = normal({k, n}, 2), c = normal({m, n}, 3);
          const at::Tensor product = at::matmul(a, b);
          const at::Tensor left = a.to(at::kFloat),
                           left_transposed = a.to(at::kFloat).t().contiguous(),
                           right = b.to(at::kFloat);
          at::Tensor sum = c.to(at::kFloat);
          small_gemm_at(level,
                        {.a = left.const_data_ptr<float>(),
                         .a_row = k,
                         .b = right.const_data_ptr<float>(),
                         .b_row = n,
                         .c = sum.data_ptr<float>(),
                         .c_row = n,
                         .m = m,
                         .n = n,
                         .k = k},
                        Into::add);
          CHECK_CLOSE(sum, c + product, 1e-6);
          at::Tensor fresh = at::full({m, n}, std::numeric_limits<double>::quiet_NaN(), at::kFloat);
          small_gemm_at(level,
                        {.a = left_transposed.const_data_ptr<float>(),
                         .a_row = 1,
                         .a_column = m,
                         .b = right.const_data_ptr<float>(),
                         .b_row = n,
                         .c = fresh.data_ptr<float>(),
                         .c_row = n,
                         .m = m,
                         .n = n,
                         .k = k},
                        Into::overwrite);
          CHECK_CLOSE(fresh, product, 1e-6);
        }
      }
    }
  }
}
