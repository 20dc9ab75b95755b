// What the ranks tell one another before every step, and before every round of an evaluation, in
// one small message: the hash of their tokens, their target count, how many documents they hold,
// whether they were asked to stop, how far their part of a save is, and whether they could read
// their tokens at all.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "comm/control.h"
#include "comm/device_mesh.h"

namespace tptrain::train {

struct StepReport {
  uint64_t token_hash = 0;     // of all micro-batches of this rank's step
  int64_t target_tokens = 0;   // counted targets of this rank's micro-batches
  int64_t most_documents = 0;  // of one of this rank's micro-batches; 0: no document mask
  bool stop_requested = false;
  bool save_step_done = false;  // of the save that is under way
  bool save_failed = false;
  bool failed = false;  // to read them
};

struct StepAgreement {
  int64_t target_tokens = 0;    // of the global batch: every dp rank once
  int64_t most_documents = 0;   // of any rank
  bool stop_requested = false;  // on any rank
  bool save_step_done = true;   // on every rank
  bool save_failed = false;     // on any rank
  bool failed = false;          // any rank
};

/// The reports of all ranks, in rank order. On a CPU mesh they travel as its tensors do (through
/// shared memory on one host, where a waiting rank sleeps); on GPUs over MPI, past the streams.
/// Collective; blocks the host until every rank has reported.
std::vector<StepReport> gather_step_reports(comm::ControlGroup& world, comm::DeviceMesh& mesh,
                                            const StepReport& own);

/// What follows from them. Throws DataError, the same on every rank, where the tp ranks of a dp
/// group hold different tokens, naming step, ranks and hashes.
StepAgreement agree_on_step(const std::vector<StepReport>& reports, comm::MeshShape mesh,
                            int64_t step);

/// One exchange, whole: `read` gets this rank's tokens and fills its report. Where a rank's `read`
/// throws an Error, every rank throws it, as comm::agree does. Else as agree_on_step. Collective.
StepAgreement read_and_agree(comm::ControlGroup& world, comm::DeviceMesh& mesh, int64_t step,
                             StepReport own, const std::function<void(StepReport&)>& read);

}  // namespace tptrain::train
