# CMake from 3.31 on would join kernels as well: they have helpers of one name, and one nvcc would compile them one after another.
function(tptrain_kernels_by_themselves target)
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "\\.cu$")
  if(sources)
    set_source_files_properties(${sources} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()

# What a file costs is mostly the headers that it shares with its neighbours: with TPTRAIN_UNITY they are compiled as one. Files whose
# helpers share names with those of their neighbours say SKIP_UNITY_BUILD_INCLUSION.
function(tptrain_unity target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${TPTRAIN_UNITY} UNITY_BUILD_BATCH_SIZE 16)
  if(TPTRAIN_UNITY)
    # Called when the folder's list has been read to its end.
    cmake_language(EVAL CODE "cmake_language(DEFER CALL tptrain_kernels_by_themselves ${target})")
    # A class of one file with a member from that file's anonymous namespace: gcc takes the file for a header.
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
  endif()
endfunction()

# tptrain_add_library(<folder> [TORCH] SOURCES ... [LINK ...]): the static library tptrain::<folder>.
# TORCH gives it LibTorch and the shared precompiled header.
function(tptrain_add_library folder)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;LINK" ${ARGN})
  add_library(tptrain_${folder} STATIC ${arg_SOURCES})
  add_library(tptrain::${folder} ALIAS tptrain_${folder})
  target_include_directories(tptrain_${folder} PUBLIC ${CMAKE_SOURCE_DIR}/lib)
  target_compile_options(tptrain_${folder} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-unused-parameter>)
  tptrain_unity(tptrain_${folder})
  target_link_libraries(tptrain_${folder} PUBLIC ${arg_LINK})
  if(arg_TORCH)
    target_link_libraries(tptrain_${folder} PUBLIC tptrain::torch)
    tptrain_use_torch_pch(tptrain_${folder})
  endif()
endfunction()

# One precompiled header of ATen for everything that includes torch (25 s once, then about 3 s a file instead of 14).
add_library(tptrain_torch_pch STATIC ${CMAKE_SOURCE_DIR}/third_party/torch_pch.cpp)
target_link_libraries(tptrain_torch_pch PUBLIC tptrain::torch)
target_compile_options(tptrain_torch_pch PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-unused-parameter>)
target_precompile_headers(tptrain_torch_pch PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${CMAKE_SOURCE_DIR}/third_party/torch_pch.h>)
function(tptrain_use_torch_pch target)
  target_precompile_headers(${target} REUSE_FROM tptrain_torch_pch)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    # CMake compiles programs with -fPIE, the libraries and so the precompiled header with -fPIC: gcc would silently not use it.
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
endfunction()
