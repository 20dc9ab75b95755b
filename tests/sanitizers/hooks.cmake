# What stands before functions of other libraries in programs built with a sanitizer (TPTRAIN_SANITIZE): each file says why.
# tptrain_sanitizer_hooks(<program> PRIVATE | <library of a program's main> INTERFACE [MPI]); nothing in other builds.
if(TPTRAIN_SANITIZE)
  add_library(tptrain_openmpi_leaks OBJECT tests/sanitizers/openmpi_leaks.cpp)
  if(TPTRAIN_SANITIZE STREQUAL "thread")
    add_library(tptrain_openmp_edges OBJECT tests/sanitizers/openmp_edges.cpp)
  endif()
endif()

function(tptrain_sanitizer_hooks target scope)
  if(TARGET tptrain_openmp_edges)
    target_link_libraries(${target} ${scope} $<TARGET_OBJECTS:tptrain_openmp_edges>)
    target_link_options(${target} ${scope} -Wl,--export-dynamic-symbol=GOMP_parallel)
  endif()
  if(TARGET tptrain_openmpi_leaks AND "MPI" IN_LIST ARGN)
    target_link_libraries(${target} ${scope} $<TARGET_OBJECTS:tptrain_openmpi_leaks>)
    target_link_options(${target} ${scope} -Wl,--export-dynamic-symbol=dlclose)
  endif()
endfunction()
