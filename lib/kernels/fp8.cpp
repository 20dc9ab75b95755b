// FP8 casts and products: the CUDA kernels and cuBLASLt, or their twin on the CPU.
#include "kernels/fp8.h"

#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/Float8_e5m2.h>

#include <algorithm>
#include <bit>

#include "base/bf16.h"
#include "kernels/composition.h"
#include "kernels/cpu/magnitude.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/product.h"
#include "kernels/fp8_scale.h"

namespace tptrain::kernels {

namespace {

at::ScalarType scalar_type(Fp8 type) {
  return type == Fp8::e4m3 ? at::kFloat8_e4m3fn : at::kFloat8_e5m2;
}

void check_matrix(const at::Tensor& x, const char* function) {
  expect(x.dim() == 2 && x.scalar_type() == at::kBFloat16 && x.size(1) % kFp8Multiple == 0 &&
             x.numel() > 0,
         function, "be a bf16 matrix whose columns are a multiple of 16", x.sizes());
  expect_contiguous(x, function);
}

int64_t padded(int64_t rows) { return (rows + kFp8Multiple - 1) / kFp8Multiple * kFp8Multiple; }

// --- The CPU

uint32_t amax_bits_of(const at::Tensor& x) {
  const void* const from = x.const_data_ptr();
  return x.scalar_type() == at::kFloat
             ? cpu::largest_magnitude(static_cast<const float*>(from), x.numel())
             : cpu::largest_magnitude(static_cast<const cpu::Bf16*>(from), x.numel());
}

uint8_t rounded(float value, Fp8 type) {
  return type == Fp8::e4m3 ? c10::detail::fp8e4m3fn_from_fp32_value(value)
                           : c10::detail::fp8e5m2_from_fp32_value(value);
}

void cast_on_cpu(Fp8Matrix& to, const at::Tensor& x, Fp8 type, bool scale_is_known,
                 const at::Tensor& amax) {
  const auto* from = static_cast<const uint16_t*>(x.const_data_ptr());
  const int64_t rows = x.size(0), columns = x.size(1);
  auto* scale = to.scale.data_ptr<float>();
  float factor = 1.0f / *scale;
  if (!scale_is_known) {
    const uint32_t bits =
        amax.defined() ? static_cast<uint32_t>(*amax.const_data_ptr<int32_t>()) : amax_bits_of(x);
    const int exponent =
        fp8_exponent(bits, type == Fp8::e4m3 ? kTopExponentE4m3 : kTopExponentE5m2);
    const bool finite = fp8_is_finite(bits);
    factor = std::bit_cast<float>(finite ? power_of_two_bits(exponent) : kNanBits);
    *scale = std::bit_cast<float>(finite ? power_of_two_bits(-exponent) : kNanBits);
  }
  auto* as_rows = to.rows.defined() ? static_cast<uint8_t*>(to.rows.mutable_data_ptr()) : nullptr;
  auto* as_columns =
      to.columns.defined() ? static_cast<uint8_t*>(to.columns.mutable_data_ptr()) : nullptr;
  cpu::parallel_rows(rows, cpu::grain_of(columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const uint8_t value = rounded(bf16_to_float(from[r * columns + c]) * factor, type);
        if (as_rows) as_rows[r * columns + c] = value;
        if (as_columns) as_columns[c * padded(rows) + r] = value;
      }
    }
  });
  for (int64_t c = 0; as_columns && c < columns; ++c)
    std::fill(as_columns + c * padded(rows) + rows, as_columns + (c + 1) * padded(rows), 0);
}

// [R, C] -> [C, R and padding], by tiles that fit the first cache.
void turn_on_cpu(const at::Tensor& rows, at::Tensor& columns) {
  constexpr int64_t kTile = 64;
  const auto* from = static_cast<const uint8_t*>(rows.const_data_ptr());
  auto* to = static_cast<uint8_t*>(columns.mutable_data_ptr());
  const int64_t height = rows.size(0), width = rows.size(1), length = columns.size(1);
  cpu::parallel_rows(width, cpu::grain_of(length), [&](int64_t begin, int64_t end) {
    for (int64_t first = 0; first < height; first += kTile) {
      const int64_t last = std::min(first + kTile, height);
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t r = first; r < last; ++r) to[c * length + r] = from[r * width + c];
      }
    }
    for (int64_t c = begin; c < end; ++c)
      std::fill(to + c * length + height, to + (c + 1) * length, 0);
  });
}

/// By which a product of these makes up for what their casts took.
float given_back(const at::Tensor& a, const at::Tensor& b) {
  const auto of = [](const at::Tensor& matrix) {
    return matrix.scalar_type() == at::kFloat8_e4m3fn ? kGivenBackE4m3 : kGivenBackE5m2;
  };
  return of(a) * of(b);
}

void multiply_on_cpu(at::Tensor& out, const Fp8Operand& a, const Fp8Operand& b,
                     const at::Tensor& bias, Accumulate accumulate) {
  at::Tensor product = at::mm(a.matrix.to(at::kFloat), b.matrix.to(at::kFloat).t());
  product.mul_(a.scale * b.scale).mul_(given_back(a.matrix, b.matrix));
  if (bias.defined()) product.add_(bias);
  if (accumulate == Accumulate::add) {
    out.add_(product);
  } else {
    out.copy_(product);
  }
}

// --- CUDA

void cast_on_cuda(Fp8Matrix& to, const at::Tensor& x, Fp8 type, bool scale_is_known,
                  at::Tensor amax) {
  const cuda::Stream stream = cuda::stream_of(x);
  if (!scale_is_known && !amax.defined()) {
    amax = at::zeros({1}, x.options().dtype(at::kInt));
    cuda::amax_of(x.const_data_ptr(), x.numel(), static_cast<uint32_t*>(amax.mutable_data_ptr()),
                  stream);
    cuda::check_launch("to_fp8");
  }
  const auto memory = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
  };
  cuda::fp8_cast(
      {.x = x.const_data_ptr(),
       .e5m2 = type == Fp8::e5m2,
       .amax_bits = !scale_is_known ? static_cast<const uint32_t*>(amax.const_data_ptr()) : nullptr,
       .scale = to.scale.data_ptr<float>(),
       .as_rows = memory(to.rows),
       .as_columns = memory(to.columns),
       .rows = x.size(0),
       .columns = x.size(1),
       .column_length = padded(x.size(0))},
      stream);
  cuda::check_launch("to_fp8");
}

void cast(Fp8Matrix& to, const at::Tensor& x, Fp8 type, bool scale_is_known,
          const at::Tensor& amax = {}) {
  if (x.is_cuda()) return cast_on_cuda(to, x, type, scale_is_known, amax);
  cast_on_cpu(to, x, type, scale_is_known, amax);
}

void check_memory(const Fp8Matrix& to, const at::Tensor& x, Fp8 type, const char* function) {
  for (const at::Tensor& form : {to.rows, to.columns})
    expect(
        !form.defined() || (form.numel() == x.numel() && form.scalar_type() == scalar_type(type)),
        function, "get the memory of a cast of the same size and type", x.sizes());
}

}  // namespace

at::Tensor fp8_amax(const at::Tensor& like) {
  return like.is_cuda() ? at::zeros({kFp8AmaxWords}, like.options().dtype(at::kInt)) : at::Tensor();
}

Fp8Matrix to_fp8(const at::Tensor& x, Fp8 type, Fp8Form form, const at::Tensor& scale,
                 const at::Tensor& amax) {
  check_matrix(x, "to_fp8");
  const at::TensorOptions options = x.options().dtype(scalar_type(type));
  Fp8Matrix result;
  if (form != Fp8Form::columns) result.rows = at::empty({x.size(0), x.size(1)}, options);
  if (form != Fp8Form::rows) result.columns = at::empty({x.size(1), padded(x.size(0))}, options);
  result.scale = scale.defined() ? scale : at::ones({1}, x.options().dtype(at::kFloat));
  cast(result, x, type, scale.defined(), amax);
  return result;
}

void to_fp8_out(Fp8Matrix& to, const at::Tensor& x, Fp8 type, const at::Tensor& amax) {
  check_matrix(x, "to_fp8_out");
  check_memory(to, x, type, "to_fp8_out");
  cast(to, x, type, /*scale_is_known=*/false, amax);
}

void to_fp8_at_scale_out(Fp8Matrix& to, const at::Tensor& x, Fp8 type) {
  check_matrix(x, "to_fp8_at_scale_out");
  check_memory(to, x, type, "to_fp8_at_scale_out");
  cast(to, x, type, /*scale_is_known=*/true);
}

void raise_amax(at::Tensor amax, const at::Tensor& values) {
  if (values.numel() == 0) return;
  if (values.is_cpu()) {
    expect_contiguous(values, "raise_amax");
    auto& most = *amax.mutable_data_ptr<int32_t>();
    most = std::max(most, static_cast<int32_t>(amax_bits_of(values)));
    return;
  }
  // What the kernel reads; all else ATen does.
  if (values.scalar_type() == at::kBFloat16 && values.is_contiguous() && values.numel() % 8 == 0 &&
      reinterpret_cast<uintptr_t>(values.const_data_ptr()) % 16 == 0) {
    cuda::amax_of(values.const_data_ptr(), values.numel(),
                  static_cast<uint32_t*>(amax.mutable_data_ptr()), cuda::stream_of(values));
    return cuda::check_launch("raise_amax");
  }
  constexpr int64_t kAtOnce = int64_t{1} << 24;  // what it takes meanwhile: 4 bytes an element
  for (const at::Tensor& part : values.reshape({-1}).split(kAtOnce)) {
    // Without the sign their order is that of their bits, NaN above infinity.
    const at::Tensor bits = part.to(at::kBFloat16).view(at::kShort).bitwise_and(0x7fff);
    amax.copy_(at::maximum(amax, bits.max().to(at::kInt).bitwise_left_shift(16)));
  }
}

// fp8_exponent()'s arithmetic on tensors: the exponents of scales, 2^-e.
at::Tensor fp8_scales(const at::Tensor& amax, Fp8 type) {
  expect(amax.scalar_type() == at::kInt && amax.dim() == 1, "fp8_scales", "be int32 [k]",
         amax.sizes());
  constexpr int64_t kOne = 127, kMantissaBits = 23, kLeast = 1;
  const int64_t top = type == Fp8::e4m3 ? kTopExponentE4m3 : kTopExponentE5m2;
  const at::Tensor beyond = amax.bitwise_and(0x7fffff).gt(0x600000).to(at::kInt);
  const at::Tensor exponents =
      amax.bitwise_right_shift(kMantissaBits).add_(beyond).sub_(top).clamp_min_(kLeast);
  exponents.masked_fill_(amax.eq(0), kOne);
  const at::Tensor bits = exponents.bitwise_left_shift(kMantissaBits);
  bits.masked_fill_(amax.ge(0x7f800000), static_cast<int64_t>(kNanBits));
  return bits.view(at::kFloat);
}

at::Tensor fp8_columns(const at::Tensor& rows) {
  // At 8 bytes, as CUDA's kernel reads them.
  expect(rows.dim() == 2 && rows.element_size() == 1 && rows.size(1) % kFp8Multiple == 0 &&
             rows.numel() > 0 && reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % 8 == 0,
         "fp8_columns", "be rows of FP8 at 8 bytes, whose columns are a multiple of 16",
         rows.sizes());
  expect_contiguous(rows, "fp8_columns");
  const int64_t length = rows.size(0);
  at::Tensor columns = at::empty({rows.size(1), padded(length)}, rows.options());
  if (rows.is_cuda()) {
    cuda::fp8_turn({.as_rows = rows.const_data_ptr(),
                    .as_columns = columns.mutable_data_ptr(),
                    .rows = length,
                    .columns = rows.size(1),
                    .column_length = padded(length)},
                   cuda::stream_of(rows));
    cuda::check_launch("fp8_columns");
    return columns;
  }
  turn_on_cpu(rows, columns);
  return columns;
}

void fp8_product_out(at::Tensor& out, const Fp8Operand& a, const Fp8Operand& b, Fp8Sums sums,
                     const at::Tensor& bias, Accumulate accumulate) {
  expect(a.matrix.dim() == 2 && b.matrix.dim() == 2 && a.matrix.size(1) == b.matrix.size(1) &&
             out.dim() == 2 && out.size(0) == a.matrix.size(0) && out.size(1) == b.matrix.size(0),
         "fp8_product_out", "be [M, N] of rows [M, K] and rows [N, K]", out.sizes());
  // cuBLASLt refuses any other, and says no more than that it does not support it.
  for (const at::Tensor* operand : {&a.matrix, &b.matrix, &a.scale, &b.scale})
    expect(reinterpret_cast<uintptr_t>(operand->const_data_ptr()) % 16 == 0, "fp8_product_out",
           "have matrices and scales that begin at 16 bytes", operand->sizes());
  if (!out.is_cuda()) return multiply_on_cpu(out, a, b, bias, accumulate);
  cuda::multiply_fp8({.out = out,
                      .a = a.matrix,
                      .b = b.matrix.t(),
                      .bias = bias,
                      .accumulate = accumulate,
                      .a_scale = a.scale,
                      .b_scale = b.scale,
                      .factor = given_back(a.matrix, b.matrix),
                      .fast_sums = sums == Fp8Sums::fast});
}

bool multiplies_fp8(at::Device device) {
  return !device.is_cuda() || cuda::multiplies_fp8(device.index());
}

}  // namespace tptrain::kernels
