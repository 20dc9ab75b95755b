// TensorBoard's event files, as bytes: records of TFRecord (length and data, each with a masked
// CRC-32C) that hold the protocol buffer Event of tensorflow/core/util/event.proto. Only what
// curves need is written; nothing is read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tptrain::formats {

struct TensorboardScalar {
  std::string_view tag;
  double value = 0;  // written as fp32
};

/// What a file begins with.
std::string tensorboard_file_version(double wall_time_s);
/// What a file of a run that goes on begins with, next: readers drop what they have of `step` and
/// later.
std::string tensorboard_restart(double wall_time_s, int64_t step);
std::string tensorboard_scalars(double wall_time_s, int64_t step,
                                std::span<const TensorboardScalar> scalars);

/// CRC-32C (Castagnoli), RFC 3720 section B.4.
uint32_t crc32c(std::string_view bytes);

}  // namespace tptrain::formats
