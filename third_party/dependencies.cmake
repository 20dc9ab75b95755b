# How each dependency is found: one file each, in the order in which they need one another.
include(${CMAKE_CURRENT_LIST_DIR}/cuda.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/torch.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/cudnn_frontend.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/flash_attention_3.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/mpi.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/system_packages.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/arrow.cmake)
