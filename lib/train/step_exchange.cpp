#include "train/step_exchange.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <exception>
#include <iomanip>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "base/hex.h"
#include "base/text.h"

namespace tptrain::train {
std::vector<StepReport> gather_step_reports(comm::ControlGroup& world, comm::DeviceMesh& mesh,
                                            const StepReport& own) {
  const std::array<int64_t, 7> words = {static_cast<int64_t>(own.token_hash),
                                        own.target_tokens,
                                        own.most_documents,
                                        own.stop_requested ? 1 : 0,
                                        own.save_step_done ? 1 : 0,
                                        own.save_failed ? 1 : 0,
                                        own.failed ? 1 : 0};
  constexpr auto kWords = static_cast<int64_t>(words.size());
  const int64_t ranks = world.size();
  std::vector<int64_t> all(words.size() * static_cast<size_t>(ranks));
  const auto options = at::TensorOptions().dtype(at::kLong);
  const at::Tensor mine = at::from_blob(const_cast<int64_t*>(words.data()), {kWords}, options);
  at::Tensor gathered = at::from_blob(all.data(), {kWords * ranks}, options);
  mesh.world().all_gather(gathered, mine);
  std::vector<StepReport> reports;
  for (size_t at = 0; at < all.size(); at += words.size()) {
    reports.push_back({.token_hash = static_cast<uint64_t>(all[at]),
                       .target_tokens = all[at + 1],
                       .most_documents = all[at + 2],
                       .stop_requested = all[at + 3] != 0,
                       .save_step_done = all[at + 4] != 0,
                       .save_failed = all[at + 5] != 0,
                       .failed = all[at + 6] != 0});
  }
  return reports;
}

StepAgreement agree_on_step(const std::vector<StepReport>& reports, comm::MeshShape mesh,
                            int64_t step) {
  StepAgreement agreement;
  for (const StepReport& report : reports) agreement.failed |= report.failed;
  if (agreement.failed) return agreement;  // there is nothing to compare
  for (int rank = 0; rank < static_cast<int>(reports.size()); ++rank) {
    const StepReport& report = reports[rank];
    agreement.stop_requested |= report.stop_requested;
    agreement.save_step_done &= report.save_step_done;
    agreement.save_failed |= report.save_failed;
    agreement.most_documents = std::max(agreement.most_documents, report.most_documents);
    const int tp_rank = rank % mesh.tp_size;
    if (tp_rank == 0) {
      agreement.target_tokens += report.target_tokens;
      continue;
    }
    const StepReport& first = reports[rank - tp_rank];
    if (report.token_hash == first.token_hash) continue;
    DataError error(
        problem(cat("tp rank ", tp_rank, " of dp group ", rank / mesh.tp_size,
                    " holds other tokens than tp rank 0 (hash ", to_hex(report.token_hash, 16),
                    " against ", to_hex(first.token_hash, 16), ")"))
            .at(cat("[rank ", rank, "] step ", step))
            .remedy("Every rank of a tp group must read the same data: check that data.train names "
                    "the same files on every host."));
    error.set_agreed();  // every rank sees all reports, so every rank throws this
    throw error;
  }
  return agreement;
}

StepAgreement read_and_agree(comm::ControlGroup& world, comm::DeviceMesh& mesh, int64_t step,
                             StepReport own, const std::function<void(StepReport&)>& read) {
  std::exception_ptr failure;
  try {
    read(own);
  } catch (const Error&) {
    failure = std::current_exception();
    own.failed = true;
  }
  const StepAgreement agreement =
      agree_on_step(gather_step_reports(world, mesh, own), mesh.shape(), step);
  if (!agreement.failed) return agreement;
  comm::agree(world, [&] {
    if (failure) std::rethrow_exception(failure);
  });
  return agreement;  // not reached: some rank has thrown
}

}  // namespace tptrain::train
