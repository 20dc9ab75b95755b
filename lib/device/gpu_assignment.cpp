#include "device/gpu_assignment.h"

#include <map>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::device {

int gpu_of_rank(int local_rank, int ranks_on_host, int gpus) {
  if (ranks_on_host <= gpus) return local_rank;
  if (gpus == 1) return 0;  // another rank's may be the same one: check_gpus_distinct
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
                        .remedy("Start no more ranks on a host than it has GPUs, or set "
                                "train.device to cpu. A launcher that shows each rank one GPU "
                                "must show different ones, or all GPUs of the host to every "
                                "rank."));
  }
}

}  // namespace tptrain::device
