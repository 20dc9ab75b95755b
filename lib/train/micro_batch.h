// Micro-batches on the device, kept in memory that a captured step reads again and again.
#pragma once

#include <cstdint>

#include "model/decoder.h"
#include "model/host_batch.h"

namespace tptrain::train {

using MicroBatch = model::TokenBatch;

using model::to_device;

/// Entries that the ends of its documents have; 0 without documents.
int64_t entries_of_documents(const MicroBatch& micro);
/// Memory for micro-batches of the sizes of `micro`, whose documents have up to `entries` entries.
MicroBatch room_for(const MicroBatch& micro, int64_t entries);
/// Whether copy_into can copy it there.
bool fits_into(const MicroBatch& micro, const MicroBatch& room);
void copy_into(MicroBatch& room, const MicroBatch& micro);

}  // namespace tptrain::train
