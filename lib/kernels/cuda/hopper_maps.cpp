// Matrices as the copy engine of Hopper is told of them: 64 elements, 128 bytes, a row of a box.
#include "kernels/cuda/hopper_maps.h"

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::kernels::cuda::hopper {

namespace {

constexpr int64_t kBoxElements = 64;

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

/// The driver's, found at run time: the program starts without a driver, too.
EncodeTiled encode_tiled() {
  static const EncodeTiled found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                                12000, cudaEnableDefault, &result);
    if (status != cudaSuccess || result != cudaDriverEntryPointSuccess)
      throw InternalError(
          problem(cat("kernels: the driver's cuTensorMapEncodeTiled was not found: ",
                      cudaGetErrorString(status))));
    return reinterpret_cast<EncodeTiled>(function);
  }();
  return found;
}

/// Of three dimensions, the first of which is contiguous; distances in elements.
CUtensorMap copy_map(const void* data, const int64_t (&sizes)[3], const int64_t (&distances)[2],
                     const int64_t (&box)[3]) {
  cuuint64_t of_tensor[3], bytes[2];
  cuuint32_t of_box[3];
  for (int i = 0; i < 3; ++i) {
    of_tensor[i] = static_cast<cuuint64_t>(sizes[i]);
    of_box[i] = static_cast<cuuint32_t>(box[i]);
  }
  for (int i = 0; i < 2; ++i) bytes[i] = static_cast<cuuint64_t>(distances[i]) * 2;
  const cuuint32_t steps[] = {1, 1, 1};
  CUtensorMap map;
  const CUresult result = encode_tiled()(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), of_tensor, bytes, of_box,
      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return map;
  throw InternalError(problem(cat("kernels: a matrix of ", sizes[0], " x ", sizes[1], " x ",
                                  sizes[2], " elements for the copy engine, rows ", distances[0],
                                  " apart: driver error ", static_cast<int>(result))));
}

}  // namespace

CUtensorMap map_along_rows(const void* data, int64_t rows, int64_t k, int64_t distance, int box) {
  return copy_map(data, {k, rows, 1}, {distance, rows * distance}, {kBoxElements, box, 1});
}

CUtensorMap map_along_columns(const void* data, int64_t k, int64_t columns, int64_t distance,
                              int box) {
  return copy_map(data, {kBoxElements, k, columns / kBoxElements}, {distance, kBoxElements},
                  {kBoxElements, kBoxElements, box / kBoxElements});
}

}  // namespace tptrain::kernels::cuda::hopper
