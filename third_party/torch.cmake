# LibTorch from the PyPI wheel torch==2.11.0 (or any LibTorch 2.11), by path, without importing torch and without its CMake package:
# find_package(Torch) of that wheel switches CUDA on by itself and links a second, static CUDA runtime.
# TPTRAIN_TORCH_DIR (CMake or environment) names the folder that holds include/ and lib/; by default the wheel in .venv.
if(NOT TPTRAIN_TORCH_DIR AND DEFINED ENV{TPTRAIN_TORCH_DIR})
  set(TPTRAIN_TORCH_DIR "$ENV{TPTRAIN_TORCH_DIR}")
endif()
if(NOT TPTRAIN_TORCH_DIR)
  file(GLOB candidates "${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
  list(LENGTH candidates count)
  if(count EQUAL 0)
    message(FATAL_ERROR "No LibTorch: .venv holds no torch. Run scripts/setup.sh, or set TPTRAIN_TORCH_DIR to the folder of a LibTorch 2.11 (with include/ and lib/).")
  endif()
  list(GET candidates 0 TPTRAIN_TORCH_DIR)
endif()
set(TPTRAIN_TORCH_DIR "${TPTRAIN_TORCH_DIR}" CACHE PATH "Folder of LibTorch (include/, lib/)")
set(torch_version_header "${TPTRAIN_TORCH_DIR}/include/torch/headeronly/version.h")
if(NOT EXISTS "${torch_version_header}")
  set(torch_version_header "${TPTRAIN_TORCH_DIR}/include/torch/csrc/api/include/torch/version.h")
endif()
if(NOT EXISTS "${torch_version_header}")
  message(FATAL_ERROR "TPTRAIN_TORCH_DIR=${TPTRAIN_TORCH_DIR} is no LibTorch: torch/version.h is missing.")
endif()
file(STRINGS "${torch_version_header}" torch_version_lines REGEX "#define TORCH_VERSION(_MAJOR|_MINOR) ")
string(REGEX MATCH "TORCH_VERSION_MAJOR ([0-9]+)" _ "${torch_version_lines}")
set(torch_version "${CMAKE_MATCH_1}")
string(REGEX MATCH "TORCH_VERSION_MINOR ([0-9]+)" _ "${torch_version_lines}")
string(APPEND torch_version ".${CMAKE_MATCH_1}")
if(NOT torch_version STREQUAL "2.11")
  message(FATAL_ERROR "TPTRAIN_TORCH_DIR=${TPTRAIN_TORCH_DIR} holds LibTorch ${torch_version}; tptrain is built and tested with 2.11.")
endif()

# The wheel's CUDA libraries (NCCL, cuDNN, cuBLAS, runtime, CUPTI) stand beside it in site-packages/nvidia. The LibTorch zip has its own in
# lib/, and NCCL within libtorch_cuda: then the machine's NCCL is linked (libnccl-dev). NGC's torch uses those of the container (the toolkit's
# folder, /usr/lib), conda's those of the environment.
get_filename_component(torch_site "${TPTRAIN_TORCH_DIR}/.." ABSOLUTE)
set(TPTRAIN_NVIDIA_DIR "${torch_site}/nvidia")
set(TPTRAIN_RPATH "${TPTRAIN_TORCH_DIR}/lib")
foreach(part cudnn nccl nvshmem cusparselt cu13)
  if(IS_DIRECTORY "${TPTRAIN_NVIDIA_DIR}/${part}/lib")
    list(APPEND TPTRAIN_RPATH "${TPTRAIN_NVIDIA_DIR}/${part}/lib")
  endif()
endforeach()

add_library(tptrain_torch INTERFACE)
add_library(tptrain::torch ALIAS tptrain_torch)
target_include_directories(tptrain_torch SYSTEM INTERFACE
  "${TPTRAIN_TORCH_DIR}/include" "${TPTRAIN_TORCH_DIR}/include/torch/csrc/api/include")
target_link_libraries(tptrain_torch INTERFACE "${TPTRAIN_TORCH_DIR}/lib/libtorch_cpu.so" "${TPTRAIN_TORCH_DIR}/lib/libc10.so")
# DT_RPATH (not RUNPATH) is inherited by torch's own libraries and goes before LD_LIBRARY_PATH: the wheel's cuDNN and NCCL are the ones
# loaded even where others stand on the library path. --allow-shlib-undefined: the linker need not chase the wheels' own dependencies.
target_link_options(tptrain_torch INTERFACE "LINKER:--disable-new-dtags" "LINKER:--allow-shlib-undefined")

# Loops on the CPU run on torch's threads: its own libgomp is linked, not the compiler's, which has the same soname and would be hidden by it at
# run time. A file with such a loop, or with at::parallel_for, is compiled with ${OpenMP_CXX_FLAGS}: without them it runs on one thread.
find_package(OpenMP REQUIRED COMPONENTS CXX)
add_library(tptrain_openmp INTERFACE)
add_library(tptrain::openmp ALIAS tptrain_openmp)
file(GLOB torch_gomp "${TPTRAIN_TORCH_DIR}/lib/libgomp*.so*")  # the zip's has a hash in its name
if(torch_gomp)
  list(GET torch_gomp 0 torch_gomp)
  target_link_libraries(tptrain_openmp INTERFACE "${torch_gomp}")
else()
  target_link_libraries(tptrain_openmp INTERFACE ${OpenMP_CXX_LIBRARIES})
endif()

if(TPTRAIN_CUDA)
  target_compile_definitions(tptrain_torch INTERFACE TPTRAIN_CUDA=1)
  find_path(TPTRAIN_NCCL_INCLUDE nccl.h HINTS "${TPTRAIN_NVIDIA_DIR}/nccl/include" REQUIRED)
  target_include_directories(tptrain_torch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS} "${TPTRAIN_NCCL_INCLUDE}")
  # libtorch_cuda registers its kernels when it is loaded, so it must stay linked even where nothing of ours names a symbol of it.
  target_link_libraries(tptrain_torch INTERFACE
    "-Wl,--no-as-needed,${TPTRAIN_TORCH_DIR}/lib/libtorch_cuda.so,${TPTRAIN_TORCH_DIR}/lib/libc10_cuda.so,--as-needed" CUDA::cudart)
  find_library(TPTRAIN_NCCL NAMES libnccl.so.2 nccl HINTS "${TPTRAIN_NVIDIA_DIR}/nccl/lib" "${TPTRAIN_TORCH_DIR}/lib" REQUIRED)
  add_library(tptrain_nccl INTERFACE)
  target_link_libraries(tptrain_nccl INTERFACE "${TPTRAIN_NCCL}")
  # The one that libtorch_cuda loads; its headers are the toolkit's, as torch's own include them. As a flag, since CMake would order the
  # search path by it: its folder also holds a runtime.
  find_library(TPTRAIN_CUBLASLT NAMES libcublasLt.so.13 PATHS "${TPTRAIN_NVIDIA_DIR}/cu13/lib" "${TPTRAIN_TORCH_DIR}/lib" ${CUDAToolkit_LIBRARY_DIR}
    REQUIRED NO_DEFAULT_PATH)
  add_library(tptrain_cublaslt INTERFACE)
  target_link_libraries(tptrain_cublaslt INTERFACE "-Wl,${TPTRAIN_CUBLASLT}")
endif()
set(CMAKE_BUILD_RPATH ${TPTRAIN_RPATH})
set(CMAKE_INSTALL_RPATH ${TPTRAIN_RPATH})

# LibTorch uses the shared libstdc++. A compiler that links the static one puts a second copy of it into the program, and that crashes when the program ends.
file(WRITE "${CMAKE_BINARY_DIR}/libstdcxx_check.cpp" "#include <iostream>\nint main() { std::cout << 1; }\n")
try_compile(libstdcxx_check_built "${CMAKE_BINARY_DIR}/libstdcxx_check" "${CMAKE_BINARY_DIR}/libstdcxx_check.cpp"
  COPY_FILE "${CMAKE_BINARY_DIR}/libstdcxx_check.bin")
if(libstdcxx_check_built)
  file(STRINGS "${CMAKE_BINARY_DIR}/libstdcxx_check.bin" libstdcxx_shared REGEX "libstdc\\+\\+\\.so")
  if(NOT libstdcxx_shared)
    message(FATAL_ERROR "The compiler ${CMAKE_CXX_COMPILER} links libstdc++ statically, but LibTorch needs the shared one: two copies in one program crash at its end. "
      "Use the compiler of the distribution: CC=/usr/bin/gcc CXX=/usr/bin/g++ CUDAHOSTCXX=/usr/bin/g++, in a new build folder.")
  endif()
endif()
