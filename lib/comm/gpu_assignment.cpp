#include "comm/gpu_assignment.h"

#include <map>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::comm {

void check_gpu_count(int ranks_on_host, int gpus) {
  if (ranks_on_host <= gpus) return;
  throw CommError(problem(cat(ranks_on_host, ranks_on_host == 1 ? " rank" : " ranks",
                              " on this host but ", gpus, gpus == 1 ? " GPU" : " GPUs"))
                      .at("device mesh")
                      .must("be one GPU a rank")
                      .remedy("Start fewer ranks on each host, check CUDA_VISIBLE_DEVICES, or set "
                              "train.device to cpu."));
}

void check_gpus_distinct(const std::vector<std::string>& uuids) {
  std::map<std::string, size_t> holder;
  for (size_t rank = 0; rank < uuids.size(); ++rank) {
    const auto [place, is_new] = holder.emplace(uuids[rank], rank);
    if (is_new) continue;
    throw CommError(problem(cat("ranks ", place->second, " and ", rank, " hold the same GPU"))
                        .at("device mesh")
                        .must("be one GPU a rank")
                        .remedy("A launcher that gives each rank its own view of one device must "
                                "show different devices, or show every rank all GPUs of its "
                                "host."));
  }
}

}  // namespace tptrain::comm
