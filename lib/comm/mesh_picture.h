// The grid of ranks as text, for any shape. Pure: what a run prints, without
// needing that many ranks to try it.
#pragma once

#include <string>
#include <vector>

#include "comm/device_mesh.h"

namespace tptrain::comm {

/// A row a dp rank, a column a tp rank; of more than 8 rows or columns the first six and the last
/// are shown. `hosts` in rank order, or none: each row ends with the hosts of its ranks, where
/// there are several.
std::string mesh_picture(MeshShape shape, DeviceType device,
                         const std::vector<std::string>& hosts = {});

}  // namespace tptrain::comm
