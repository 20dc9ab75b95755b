// A batch of the data on the host -> what the model takes, on its device.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "data/packing.h"
#include "model/decoder.h"

namespace tptrain::model {

/// On CUDA from page-locked memory, and without waiting for the device. Documents that do not see
/// each other become one sequence, row behind row; `most_documents`: of any micro-batch of the step
/// on any rank.
TokenBatch to_device(const data::HostBatch& batch, at::Device device, int64_t most_documents = 0);

}  // namespace tptrain::model
