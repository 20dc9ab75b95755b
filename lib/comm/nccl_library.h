#pragma once

#include <string>

namespace tptrain::comm {

/// NCCL's versions as "2.28.9"; "" in a build without CUDA.
struct NcclLibrary {
  std::string loaded = {};  // "": it does not say
  std::string built = {};   // what the program was compiled with
};
NcclLibrary nccl_library();

}  // namespace tptrain::comm
