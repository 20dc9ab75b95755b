// How long a rank has been in the collectives of an axis: most of it is waiting for others.
#pragma once

#include "comm/communicator.h"

namespace tptrain::comm {

/// Since it was made, in calls that block the host; 0 where they do not, on GPUs.
double seconds_in_collectives(const Communicator& communicator);

}  // namespace tptrain::comm
