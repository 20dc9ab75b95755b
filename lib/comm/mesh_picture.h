// The grid of ranks as text, for any shape. Pure: what DeviceMesh::picture() prints, without
// needing that many ranks to try it.
#pragma once

#include <string>

#include "comm/device_mesh.h"

namespace tptrain::comm {

/// A row a dp rank, a column a tp rank; of more than 8 rows or columns the first six and the last
/// are shown.
std::string mesh_picture(MeshShape shape, DeviceType device);

}  // namespace tptrain::comm
