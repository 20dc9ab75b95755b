// One launch over many tensors: which block works on which elements of which tensor, as a table
// that is made once. Plain C++, no torch: nvcc and the tests on the CPU read it as well.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace tptrain::kernels::cuda {

/// What one block works on: elements [begin, begin + count) of a tensor.
struct Chunk {
  int64_t begin = 0;
  int32_t tensor = 0;  // its row in the table of tensors
  int32_t count = 0;
};

/// Elements move four at a time: 16 bytes of fp32, 8 of bf16.
inline constexpr int64_t kPack = 4;

/// Which rows of a tensor hold anything but zeros.
struct WrittenRows {
  const uint8_t* written = nullptr;  // [rows], 0: none but zeros; null: any may
  int64_t row_elements = 1;
};

struct Address {
  const void* data = nullptr;
  int64_t element_bytes = 0;
};
/// How many elements lie before the first that can move in packs, the same one in all of these
/// arrays; 0 where there is none such.
int64_t elements_before_packs(std::initializer_list<Address> arrays);

/// Appends the chunks of a tensor of `numel` elements, `chunk_elements` each, the last what is
/// left. `before_packs`: that many elements are a chunk of their own, so that the others move in
/// packs.
void append_chunks(std::vector<Chunk>& chunks, int64_t tensor, int64_t numel,
                   int64_t chunk_elements, int64_t before_packs = 0);

}  // namespace tptrain::kernels::cuda
