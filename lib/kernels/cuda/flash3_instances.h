// What flash3.cu is compiled to; see flash3.h.
#pragma once

#include "kernels/cuda/flash3.h"

namespace tptrain::kernels::cuda {

template <int kHeadDim>
void flash3_forward_of(const Flash3& args, Stream stream);
template <int kHeadDim, bool kGroups>  // whether heads share k and v
void flash3_backward_of(const Flash3& args, Stream stream);

template <>
void flash3_forward_of<64>(const Flash3& args, Stream stream);
template <>
void flash3_forward_of<128>(const Flash3& args, Stream stream);
template <>
void flash3_backward_of<64, false>(const Flash3& args, Stream stream);
template <>
void flash3_backward_of<64, true>(const Flash3& args, Stream stream);
template <>
void flash3_backward_of<128, false>(const Flash3& args, Stream stream);
template <>
void flash3_backward_of<128, true>(const Flash3& args, Stream stream);

}  // namespace tptrain::kernels::cuda
