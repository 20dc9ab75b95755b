// Two normal numbers from 128 random bits, in double, by the same bits on every machine: nothing
// but additions, multiplications, one division and roots, which IEEE 754 rounds in one way, in a
// fixed order and without fused ones. The C library's logarithm and sine differ between versions
// and from a GPU's. Source: Box & Muller, "A Note on the Generation of Random Normal Deviates",
// 1958.
//
// Host and device code (nvcc) include it alike; a host compiler must not fuse (-ffp-contract=off
// where its target has fused operations).
#pragma once

#include <cmath>
#include <cstdint>

#include "base/host_device.h"

namespace tptrain::random {

struct NormalPair {
  double even = 0.0;
  double odd = 0.0;
};

namespace exact {

#ifdef __CUDA_ARCH__
__device__ inline double add(double a, double b) { return __dadd_rn(a, b); }
__device__ inline double mul(double a, double b) { return __dmul_rn(a, b); }
__device__ inline double div(double a, double b) { return __ddiv_rn(a, b); }
__device__ inline double root(double a) { return __dsqrt_rn(a); }
#else
inline double add(double a, double b) { return a + b; }
inline double mul(double a, double b) { return a * b; }
inline double div(double a, double b) { return a / b; }
inline double root(double a) { return std::sqrt(a); }
#endif

/// Natural logarithm of n * 2^-53, n in [1, 2^53].
TPTRAIN_HOST_DEVICE inline double log_of_fraction(uint64_t n) {
  // n = m * 2^e with m in [1, 2), then in (1/sqrt(2), sqrt(2)].
  int exponent = 0;
  uint64_t mantissa = n;
  while (mantissa < (uint64_t{1} << 52)) {  // rarely more than a few times
    mantissa <<= 1;
    --exponent;
  }
  if (mantissa >= (uint64_t{1} << 53)) {
    mantissa >>= 1;
    ++exponent;
  }
  double m = mul(static_cast<double>(mantissa), 0x1p-52);
  exponent -= 1;  // n * 2^-53 = m * 2^exponent
  if (m > 1.4142135623730951) {
    m = mul(m, 0.5);
    exponent += 1;
  }
  // log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.172: the series to s^21 is exact to 1e-17.
  const double s = div(add(m, -1.0), add(m, 1.0));
  const double square = mul(s, s);
  double series = 1.0 / 21;
  series = add(mul(series, square), 1.0 / 19);
  series = add(mul(series, square), 1.0 / 17);
  series = add(mul(series, square), 1.0 / 15);
  series = add(mul(series, square), 1.0 / 13);
  series = add(mul(series, square), 1.0 / 11);
  series = add(mul(series, square), 1.0 / 9);
  series = add(mul(series, square), 1.0 / 7);
  series = add(mul(series, square), 1.0 / 5);
  series = add(mul(series, square), 1.0 / 3);
  series = add(mul(series, square), 1.0);
  return add(mul(static_cast<double>(exponent), 0.6931471805599453), mul(mul(2.0, s), series));
}

struct SineCosine {
  double sine, cosine;
};
/// Of 2 pi n * 2^-53, n in [0, 2^53).
TPTRAIN_HOST_DEVICE inline SineCosine of_turn(uint64_t n) {
  // The nearest quarter turn, exactly; the rest is at most an eighth of a turn either way.
  const uint64_t quarter = (n + (uint64_t{1} << 50)) >> 51;  // 0 to 4
  const auto rest = static_cast<int64_t>(n) - static_cast<int64_t>(quarter << 51);
  const double t = mul(mul(static_cast<double>(rest), 0x1p-53), 6.283185307179586);
  const double square = mul(t, t);  // at most 0.617: Taylor's series to t^19 and t^18
  double sine = -1.0 / 121645100408832000.0;
  sine = add(mul(sine, square), 1.0 / 355687428096000.0);
  sine = add(mul(sine, square), -1.0 / 1307674368000.0);
  sine = add(mul(sine, square), 1.0 / 6227020800.0);
  sine = add(mul(sine, square), -1.0 / 39916800.0);
  sine = add(mul(sine, square), 1.0 / 362880.0);
  sine = add(mul(sine, square), -1.0 / 5040.0);
  sine = add(mul(sine, square), 1.0 / 120.0);
  sine = add(mul(sine, square), -1.0 / 6.0);
  sine = mul(add(mul(sine, square), 1.0), t);
  double cosine = -1.0 / 6402373705728000.0;
  cosine = add(mul(cosine, square), 1.0 / 20922789888000.0);
  cosine = add(mul(cosine, square), -1.0 / 87178291200.0);
  cosine = add(mul(cosine, square), 1.0 / 479001600.0);
  cosine = add(mul(cosine, square), -1.0 / 3628800.0);
  cosine = add(mul(cosine, square), 1.0 / 40320.0);
  cosine = add(mul(cosine, square), -1.0 / 720.0);
  cosine = add(mul(cosine, square), 1.0 / 24.0);
  cosine = add(mul(cosine, square), -1.0 / 2.0);
  cosine = add(mul(cosine, square), 1.0);
  switch (quarter & 3) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

}  // namespace exact

/// Standard normal numbers, not rounded, from the upper 53 of each 64 random bits.
TPTRAIN_HOST_DEVICE inline NormalPair box_muller(uint64_t bits0, uint64_t bits1) {
  // (0, 1]: the logarithm of 0 must not occur.
  const double radius = exact::root(exact::mul(-2.0, exact::log_of_fraction((bits0 >> 11) + 1)));
  const exact::SineCosine turn = exact::of_turn(bits1 >> 11);
  return {exact::mul(radius, turn.cosine), exact::mul(radius, turn.sine)};
}

}  // namespace tptrain::random
