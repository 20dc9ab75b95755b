# FlashAttention-3, attention for Hopper (capability 9.0), compiled from its own sources. Optional: nothing of it is part of this repository.
# TPTRAIN_FA3_DIR (CMake or environment) names a checkout of https://github.com/Dao-AILab/flash-attention with its submodule csrc/cutlass, or
# TPTRAIN_CUTLASS_DIR another checkout of https://github.com/NVIDIA/cutlass. Six files of a minute or two and 5 GB of memory each.
set(TPTRAIN_FA3 OFF)
if(TPTRAIN_CUDA)
  foreach(name TPTRAIN_FA3_DIR TPTRAIN_CUTLASS_DIR)
    if(NOT ${name} AND DEFINED ENV{${name}})
      set(${name} "$ENV{${name}}")
    endif()
  endforeach()
  if(TPTRAIN_FA3_DIR)
    if(NOT TPTRAIN_CUTLASS_DIR)
      set(TPTRAIN_CUTLASS_DIR "${TPTRAIN_FA3_DIR}/csrc/cutlass")
    endif()
    foreach(file "${TPTRAIN_FA3_DIR}/hopper/flash_bwd_launch_template.h" "${TPTRAIN_CUTLASS_DIR}/include/cutlass/kernel_launch.h")
      if(NOT EXISTS "${file}")
        message(FATAL_ERROR "TPTRAIN_FA3_DIR=${TPTRAIN_FA3_DIR}: ${file} is missing. It must be a checkout of flash-attention with its submodule "
          "csrc/cutlass (git clone --recursive), or TPTRAIN_CUTLASS_DIR one of CUTLASS.")
      endif()
    endforeach()
    set(TPTRAIN_FA3 ON)
  endif()
endif()

# tptrain_add_flash3(target): its kernels, as the objects that `target` is linked with. The switches leave out what is not used.
function(tptrain_add_flash3 target)
  foreach(head_dim 64 128)
    foreach(pass forward backward backward_of_groups)
      set(name ${target}_flash3_${pass}_${head_dim})
      add_library(${name} OBJECT cuda/flash3.cu)
      set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES OFF UNITY_BUILD OFF)
      string(TOUPPER ${pass} switch)
      target_compile_definitions(${name} PRIVATE TPTRAIN_FLASH3_${switch}=${head_dim} NDEBUG
        CUTE_SM90_EXTENDED_MMA_SHAPES_ENABLED CUTLASS_ENABLE_GDC_FOR_SM90 FLASHATTENTION_DISABLE_LOCAL FLASHATTENTION_DISABLE_SOFTCAP
        FLASHATTENTION_DISABLE_PAGEDKV FLASHATTENTION_DISABLE_APPENDKV FLASHATTENTION_DISABLE_SPLIT FLASHATTENTION_DISABLE_PACKGQA
        FLASHATTENTION_DISABLE_FP8 FLASHATTENTION_DISABLE_FP16 FLASHATTENTION_DISABLE_SM8x)
      target_compile_options(${name} PRIVATE -O3 --use_fast_math --expt-relaxed-constexpr --expt-extended-lambda -w
        --generate-code=arch=compute_90a,code=sm_90a)
      target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/lib)
      target_include_directories(${name} SYSTEM PRIVATE "${TPTRAIN_FA3_DIR}/hopper" "${TPTRAIN_CUTLASS_DIR}/include" ${CUDAToolkit_INCLUDE_DIRS}/cccl)
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:${name}>)
    endforeach()
  endforeach()
endfunction()
