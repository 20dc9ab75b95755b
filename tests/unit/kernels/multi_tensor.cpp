// The table of chunks that one launch over many tensors works through.
#include "kernels/cuda/multi_tensor.h"

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "support/catch.h"

using namespace tptrain::kernels::cuda;

TEST_CASE("chunks cover a tensor once, in order, in packs behind the first few elements",
          "[kernels]") {
  for (const int64_t numel : {0, 1, 3, 4, 2047, 2048, 2049, 10000}) {
    for (const int64_t before : {0, 1, 3}) {
      CAPTURE(numel, before);
      std::vector<Chunk> chunks = {{0, 6, 1}};  // what is there stays
      append_chunks(chunks, 7, numel, 2048, before);
      int64_t end = 0;
      for (size_t i = 1; i < chunks.size(); ++i) {
        CHECK(chunks[i].tensor == 7);
        CHECK(chunks[i].begin == end);
        CHECK(chunks[i].count > 0);
        CHECK(chunks[i].count <= 2048);
        if (end > 0) CHECK((end - before) % kPack == 0);
        end += chunks[i].count;
      }
      CHECK(end == numel);
      // No block more than needed.
      const int64_t whole = (numel - std::min(before, numel) + 2047) / 2048;
      CHECK(static_cast<int64_t>(chunks.size()) == 1 + whole + (before > 0 && numel > 0 ? 1 : 0));
    }
  }
}

TEST_CASE("a tensor of more than 2^31 elements is cut as any other", "[kernels]") {
  std::vector<Chunk> chunks;
  append_chunks(chunks, 0, (int64_t{1} << 33) + 5, int64_t{1} << 20);
  CHECK(chunks.size() == (1u << 13) + 1);
  CHECK(chunks.back().begin == int64_t{1} << 33);
  CHECK(chunks.back().count == 5);
}

TEST_CASE("arrays move in packs where all of them begin alike", "[kernels]") {
  const auto at = [](uintptr_t address, int64_t bytes) {
    return Address{reinterpret_cast<const void*>(address), bytes};
  };
  CHECK(elements_before_packs({at(512, 4), at(1024, 2)}) == 0);
  CHECK(elements_before_packs({at(516, 4), at(1028, 4)}) == 3);
  CHECK(elements_before_packs({at(524, 4), at(1030, 2)}) == 1);  // both at element 3 of a pack
  CHECK(elements_before_packs({at(516, 4), at(1032, 4)}) == 0);  // never together
  CHECK(elements_before_packs({at(514, 4)}) == 0);               // not even an element's
  CHECK(elements_before_packs({}) == 0);
}

TEST_CASE("chunks that a table cannot hold are refused", "[kernels]") {
  std::vector<Chunk> chunks;
  CHECK_THROWS_AS(append_chunks(chunks, 0, 10, 2047), tptrain::InternalError);
  CHECK_THROWS_AS(append_chunks(chunks, int64_t{1} << 31, 10, 2048), tptrain::InternalError);
}
