# tptrain_add_test(<name> LABEL unit|mpi|gpu|e2e SOURCES a.cpp ... [LINK tptrain::x ...] [RANKS 1 2 4] [TIMEOUT s] [TORCH] [DATA])
# One executable and one ctest entry, or one entry a rank count (name_n4) for tests that run under mpirun. Every test has a time-out,
# for what hangs: ten times and more what the test takes, for a slow and busy machine.
# TORCH: uses the shared precompiled header. DATA: gets the extra label `data` (needs TPTRAIN_TEST_DATA).
set(TPTRAIN_MPIRUN_ENVIRONMENT
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 OMPI_MCA_mpi_yield_when_idle=1
  OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none)

function(tptrain_add_test name)
  cmake_parse_arguments(arg "TORCH;DATA" "LABEL;TIMEOUT" "SOURCES;LINK;RANKS" ${ARGN})
  if(NOT arg_LABEL MATCHES "^(unit|mpi|gpu|e2e)$")
    message(FATAL_ERROR "tptrain_add_test(${name}): LABEL must be unit, mpi, gpu or e2e")
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 600)
  endif()
  if(TPTRAIN_SANITIZE)
    math(EXPR arg_TIMEOUT "10 * ${arg_TIMEOUT}")  # a sanitizer slows a test three- to twentyfold
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wno-unused-parameter)
  target_compile_definitions(${name} PRIVATE TPTRAIN_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TPTRAIN_BINARY_DIR="${CMAKE_BINARY_DIR}")
  target_link_libraries(${name} PRIVATE ${arg_LINK})
  if(arg_TORCH)
    target_link_libraries(${name} PRIVATE tptrain::torch)
    tptrain_use_torch_pch(${name})
  endif()
  if(arg_LABEL STREQUAL "gpu")
    add_dependencies(gpu_tests ${name})
  endif()
  set(labels ${arg_LABEL})
  if(arg_DATA)
    list(APPEND labels data)
  endif()
  if(arg_RANKS)
    target_link_libraries(${name} PRIVATE tptrain_mpi_test_main)
    foreach(ranks ${arg_RANKS})
      add_test(NAME ${name}_n${ranks}
        COMMAND ${MPIEXEC_EXECUTABLE} --oversubscribe -n ${ranks} $<TARGET_FILE:${name}>)
      set_tests_properties(${name}_n${ranks} PROPERTIES LABELS "${labels}" TIMEOUT ${arg_TIMEOUT}
        PROCESSORS 2 ENVIRONMENT "${TPTRAIN_MPIRUN_ENVIRONMENT}")
    endforeach()
    return()
  endif()
  target_link_libraries(${name} PRIVATE tptrain_test_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${arg_TIMEOUT} ENVIRONMENT "${TPTRAIN_MPIRUN_ENVIRONMENT}")
  if(arg_LABEL STREQUAL "e2e")
    set_tests_properties(${name} PROPERTIES PROCESSORS 2)  # it starts ranks of its own
  endif()
endfunction()
