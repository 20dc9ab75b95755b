#include "comm/mpi_library.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace tptrain::comm {

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text = {};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) != MPI_SUCCESS)
    return "";  // before MPI_Init, too
  const std::string all(text.data(), static_cast<size_t>(std::max(0, length)));
  return all.substr(0, all.find_first_of(std::string_view("\n\0", 2)));  // Open MPI counts the 0
}

}  // namespace tptrain::comm
