#include "train/step_exchange.h"

#include <cstring>
#include <iomanip>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::train {
namespace {

std::string hex(uint64_t value) {
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << value;
  return std::move(out).str();
}

StepReport decode(const std::string& bytes) {
  StepReport report;
  if (bytes.size() != sizeof(report))
    throw InternalError(problem(cat("a step report of ", bytes.size(), " bytes"))
                            .must(cat("have ", sizeof(report))));
  std::memcpy(&report, bytes.data(), sizeof(report));
  return report;
}

}  // namespace

StepAgreement exchange_step_reports(comm::ControlGroup& world, comm::MeshShape mesh, int64_t step,
                                    const StepReport& own) {
  std::string bytes(sizeof(own), '\0');
  std::memcpy(bytes.data(), &own, sizeof(own));
  const std::vector<std::string> all = world.all_gather(bytes);

  StepAgreement agreement;
  for (int rank = 0; rank < static_cast<int>(all.size()); ++rank) {
    const StepReport report = decode(all[rank]);
    agreement.stop_requested |= report.stop_requested;
    const int tp_rank = rank % mesh.tp_size;
    if (tp_rank == 0) {
      agreement.target_tokens += report.target_tokens;
      continue;
    }
    const StepReport first = decode(all[rank - tp_rank]);
    if (report.token_hash == first.token_hash) continue;
    DataError error(problem(cat("tp rank ", tp_rank, " of dp group ", rank / mesh.tp_size,
                                " holds other tokens than tp rank 0 (hash ", hex(report.token_hash),
                                " against ", hex(first.token_hash), ")"))
                        .at(cat("[rank ", rank, "] step ", step))
                        .remedy("Every rank of a tp group must read the same data: check that "
                                "data.train names the same files on every host."));
    error.set_agreed();  // every rank sees all reports, so every rank throws this
    throw error;
  }
  return agreement;
}

}  // namespace tptrain::train
