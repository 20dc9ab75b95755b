// NF4: matrices in 4 bits, each block of 64 neighbours scaled by its largest magnitude, the scales
// in 8 bits (double quantisation). As bitsandbytes, but for the last bits of its mean; blocks
// run along the whole tensor in row-major order, so that a slice of it, cut between blocks, has the
// numbers of the whole on every layout.
//
//   value    kNf4Values[code] * scale of its block
//   scale    the 8-bit dynamic map's value of the block's byte * scale of its group + offset
//   group    256 blocks: the largest of |scale - offset|, fp32
//   offset   the mean of all scales of the tensor, fp32
//
// 4.127 bits an element. Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs",
// 2023, sections 2 and 3, appendix E (the 16 values); the dynamic map: Dettmers et al., "8-bit
// Optimizers via Block-wise Quantization", 2022, section 2.1.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

namespace tptrain::kernels {

inline constexpr int64_t kNf4Block = 64;   // elements
inline constexpr int64_t kNf4Group = 256;  // blocks

extern const std::array<float, 16> kNf4Values;
/// The 256 values of the signed 8-bit dynamic map, rising.
const std::array<float, 256>& dynamic_map();

int64_t nf4_blocks(int64_t elements);
/// Bytes that a slice of `elements` of a tensor of `whole_elements` takes.
int64_t nf4_bytes(int64_t elements, int64_t whole_elements);

/// The largest magnitude of each block of a tensor, which is given front to back. The last block
/// may be short.
class Nf4Maxima {
 public:
  explicit Nf4Maxima(int64_t elements);
  /// The next `count` elements; a multiple of 64 but for the last.
  void add(const float* values, int64_t count);
  const std::vector<float>& of_blocks() const { return maxima_; }

 private:
  std::vector<float> maxima_;
  int64_t filled_ = 0;
};

/// The scales of a whole tensor's blocks.
struct Nf4Scales {
  std::vector<uint8_t> of_blocks;  // by the dynamic map
  std::vector<float> of_groups;
  float offset = 0;
};
Nf4Scales nf4_scales(const std::vector<float>& maxima);

/// The codes of elements that begin with a block, two a byte, the first in the upper half. `codes`
/// has room for (count + 1) / 2 bytes. `maxima`: of their blocks.
void nf4_codes(const float* values, int64_t count, const float* maxima, uint8_t* codes);

/// Which blocks of the whole tensor a slice holds: `run` in a row, then those of the next run,
/// which begin `stride` further on.
struct Nf4Blocks {
  int64_t first = 0;
  int64_t run = 0;
  int64_t stride = 0;

  int64_t whole(int64_t local) const { return first + local / run * stride + local % run; }
};

struct Nf4Matrix {
  at::Tensor codes;   // uint8 [(elements + 1) / 2]
  at::Tensor scales;  // uint8 [blocks]
  at::Tensor groups;  // fp32 [groups of the whole tensor]
  at::Tensor map;     // fp32 [256]: dynamic_map() on the device; one of all matrices
  float offset = 0;
  Nf4Blocks blocks;
  int64_t elements = 0;
};

/// Writes the matrix's values to `out`, contiguous, fp32 or bf16 (rounded once), of as many
/// elements, on the same device. Equal numbers on CPUs and GPUs.
void nf4_values_out(at::Tensor& out, const Nf4Matrix& matrix);

}  // namespace tptrain::kernels
