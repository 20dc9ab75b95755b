#include "train/micro_batch.h"

#include <ATen/ATen.h>

namespace tptrain::train {

int64_t entries_of_documents(const MicroBatch& micro) {
  return micro.documents ? micro.documents->attention.ends.size(0) : 0;
}

MicroBatch room_for(const MicroBatch& micro, int64_t entries) {
  MicroBatch room = {.ids = at::empty_like(micro.ids), .targets = at::empty_like(micro.targets)};
  if (!micro.documents) return room;
  const model::PackedDocuments& documents = *micro.documents;
  room.documents = model::PackedDocuments{
      .attention = {.ends = at::empty({entries}, documents.attention.ends.options()),
                    .longest = documents.attention.longest},
      .positions = at::empty_like(documents.positions)};
  return room;
}

bool fits_into(const MicroBatch& micro, const MicroBatch& room) {
  if (micro.ids.sizes() != room.ids.sizes()) return false;
  if (!micro.documents || !room.documents)
    return micro.documents.has_value() == room.documents.has_value();
  return micro.documents->attention.longest == room.documents->attention.longest &&
         entries_of_documents(micro) <= entries_of_documents(room);
}

void copy_into(MicroBatch& room, const MicroBatch& micro) {
  room.ids.copy_(micro.ids);
  room.targets.copy_(micro.targets);
  if (!micro.documents) return;
  room.documents->positions.copy_(micro.documents->positions);
  // Entries that are left over repeat the last: documents without tokens.
  at::Tensor& ends = room.documents->attention.ends;
  const int64_t given = entries_of_documents(micro);
  ends.narrow(0, 0, given).copy_(micro.documents->attention.ends);
  ends.narrow(0, given, ends.size(0) - given).fill_(micro.documents->positions.size(0));
}

}  // namespace tptrain::train
