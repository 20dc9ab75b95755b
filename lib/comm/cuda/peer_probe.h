// The trial of peer_trial.h on a GPU: the engines and flags that direct copies use, through a block
// of memory of its own. Internal to comm.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "comm/control.h"
#include "comm/peer_trial.h"

namespace tptrain::comm {

/// Opens memory of every rank of `group` to the others. Collective; throws agreed on every rank
/// where that is refused. To be destroyed by all ranks at once, once all have exchanged what they
/// wanted.
std::unique_ptr<PeerProbe> cuda_peer_probe(ControlGroup& group, const std::string& axis,
                                           at::Device device, const PeerTrialSize& size = {});

}  // namespace tptrain::comm
