# CUDA toolkit (nvcc, cudart) for the cuda preset: this machine's, where it is of CUDA 13, else the wheels that scripts/setup.sh brought.
if(NOT TPTRAIN_CUDA)
  return()
endif()
# By default code for A100 and its kin (8.x), H100, B200 and the RTX 50 series, the last one also in a form that newer cards compile at their
# first start. Each costs minutes: -DCMAKE_CUDA_ARCHITECTURES=90, or native, or the environment's CUDAARCHS, for one alone.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;100-real;120")
endif()
set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 knows no CUDA20 for nvcc
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # LibTorch brings the shared runtime: a second, static one would hold its own state
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(tptrain_nvcc nvcc HINTS /usr/local/cuda/bin NO_CACHE)  # where the toolkit puts it, on the PATH or not
  set(nvcc_release "")
  if(tptrain_nvcc)
    execute_process(COMMAND ${tptrain_nvcc} --version OUTPUT_VARIABLE nvcc_release ERROR_QUIET)
  endif()
  if(NOT nvcc_release MATCHES "release 13\\.")
    file(GLOB tptrain_nvcc "${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/nvidia/cu13/bin/nvcc")
    if(NOT tptrain_nvcc)
      message(FATAL_ERROR "No nvcc of CUDA 13: scripts/setup.sh --cuda brings it into .venv, or set CUDACXX to that of a toolkit.")
    endif()
  endif()
  set(CMAKE_CUDA_COMPILER "${tptrain_nvcc}" CACHE FILEPATH "nvcc of CUDA 13")
endif()
enable_language(CUDA)
find_package(CUDAToolkit 13.0 REQUIRED)
