// How an autograd Function keeps the address of a Parameter or Communicator between forward and
// backward: as an integer in saved_data. The object is not owned; it must outlive the graph.
#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>

namespace tptrain::tensor_parallel {

template <typename T>
c10::IValue saved_pointer(T* object) {
  return c10::IValue(static_cast<int64_t>(reinterpret_cast<intptr_t>(object)));
}

template <typename T>
T* pointer_from(const c10::IValue& saved) {
  return reinterpret_cast<T*>(static_cast<intptr_t>(saved.toInt()));
}

}  // namespace tptrain::tensor_parallel
