// Micro-batches on the device: uploaded without waiting for it, and kept in memory that a captured
// step reads again and again.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "data/batch_sampler.h"
#include "model/decoder.h"

namespace tptrain::train {

using MicroBatch = model::TokenBatch;

/// On CUDA from page-locked memory, and without waiting for the device. Documents that do not see
/// each other become one sequence, row behind row; `most_documents`: of any micro-batch of the step
/// on any rank.
MicroBatch to_device(const data::HostBatch& batch, at::Device device, int64_t most_documents = 0);

/// Entries that the ends of its documents have; 0 without documents.
int64_t entries_of_documents(const MicroBatch& micro);
/// Memory for micro-batches of the sizes of `micro`, whose documents have up to `entries` entries.
MicroBatch room_for(const MicroBatch& micro, int64_t entries);
/// Whether copy_into can copy it there.
bool fits_into(const MicroBatch& micro, const MicroBatch& room);
void copy_into(MicroBatch& room, const MicroBatch& micro);

}  // namespace tptrain::train
