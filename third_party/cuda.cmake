# CUDA toolkit (nvcc, cudart) for the cuda preset. The architecture list can be overridden with -DCMAKE_CUDA_ARCHITECTURES.
if(NOT TPTRAIN_CUDA)
  return()
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90)
endif()
set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 knows no CUDA20 for nvcc
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # LibTorch brings the shared runtime: a second, static one would hold its own state
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(CMAKE_CUDA_COMPILER nvcc HINTS /usr/local/cuda/bin)  # where the toolkit puts it, on the PATH or not
endif()
enable_language(CUDA)
find_package(CUDAToolkit 13.0 REQUIRED)
