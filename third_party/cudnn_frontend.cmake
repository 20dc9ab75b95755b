# cuDNN's graph interface: the headers of the PyPI wheel nvidia-cudnn-frontend==1.18.0 (nothing of it is linked) and cuDNN's own, of the wheel
# that brings the library, by path. Optional: without them attention takes LibTorch's calls of cuDNN, which write gradients apart and know no
# documents. Later versions of the headers want nvRTC linked for parts that are not used here.
# TPTRAIN_CUDNN_FRONTEND_DIR (CMake or environment) names the folder that holds cudnn_frontend.h; by default the wheel's beside LibTorch or in .venv.
set(TPTRAIN_CUDNN_GRAPHS OFF)
if(TPTRAIN_CUDA)
  if(NOT TPTRAIN_CUDNN_FRONTEND_DIR AND DEFINED ENV{TPTRAIN_CUDNN_FRONTEND_DIR})
    set(TPTRAIN_CUDNN_FRONTEND_DIR "$ENV{TPTRAIN_CUDNN_FRONTEND_DIR}")
  endif()
  set(cudnn_frontend_asked "${TPTRAIN_CUDNN_FRONTEND_DIR}")
  set(cudnn_frontend "${TPTRAIN_CUDNN_FRONTEND_DIR}")
  if(NOT cudnn_frontend)
    file(GLOB cudnn_frontend "${torch_site}/include/cudnn_frontend.h" "${CMAKE_CURRENT_LIST_DIR}/../.venv/lib/python3*/site-packages/include/cudnn_frontend.h")
    if(cudnn_frontend)
      list(GET cudnn_frontend 0 cudnn_frontend)
      get_filename_component(cudnn_frontend "${cudnn_frontend}" DIRECTORY)
    endif()
  endif()
  set(cudnn_frontend_version "none")
  if(EXISTS "${cudnn_frontend}/cudnn_frontend_version.h")
    file(STRINGS "${cudnn_frontend}/cudnn_frontend_version.h" lines REGEX "#define CUDNN_FRONTEND_(MAJOR|MINOR)_VERSION ")
    string(REGEX REPLACE ".*MAJOR_VERSION ([0-9]+).*MINOR_VERSION ([0-9]+).*" "\\1.\\2" cudnn_frontend_version "${lines}")
  endif()
  find_path(TPTRAIN_CUDNN_INCLUDE cudnn_backend.h HINTS "${TPTRAIN_NVIDIA_DIR}/cudnn/include" ${CUDAToolkit_INCLUDE_DIRS})
  find_library(TPTRAIN_CUDNN NAMES libcudnn.so.9 HINTS "${TPTRAIN_NVIDIA_DIR}/cudnn/lib" "${TPTRAIN_TORCH_DIR}/lib" ${CUDAToolkit_LIBRARY_DIR})
  if(cudnn_frontend_version STREQUAL "1.18" AND TPTRAIN_CUDNN_INCLUDE AND TPTRAIN_CUDNN)
    set(TPTRAIN_CUDNN_GRAPHS ON)
    # Of the one file that includes them.
    set(TPTRAIN_CUDNN_OPTIONS -isystem "${cudnn_frontend}" -isystem "${TPTRAIN_CUDNN_INCLUDE}" -DCUDNN_FRONTEND_SKIP_JSON_LIB)
  elseif(cudnn_frontend_asked)
    message(FATAL_ERROR "TPTRAIN_CUDNN_FRONTEND_DIR=${cudnn_frontend_asked}: tptrain takes version 1.18 of cudnn_frontend.h (${cudnn_frontend_version} is there) with "
      "cudnn_backend.h (${TPTRAIN_CUDNN_INCLUDE}) and libcudnn.so.9 (${TPTRAIN_CUDNN}) of one cuDNN 9.")
  else()
    message(STATUS "Without cuDNN's graph interface (cudnn_frontend.h: ${cudnn_frontend_version}, 1.18 is wanted; cuDNN's headers: ${TPTRAIN_CUDNN_INCLUDE}): "
      "attention of packed documents is slower. scripts/setup.sh --cuda brings it.")
  endif()
endif()
