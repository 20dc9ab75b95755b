// Numbers into the bytes of a file.
#pragma once

#include <string>

namespace tptrain::formats {

/// Appends the bytes of `value` as they lie in memory: little-endian on every machine that we
/// build for.
template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace tptrain::formats
