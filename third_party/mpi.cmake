# Open MPI, MPICH or Intel MPI. Only lib/comm links it.
find_package(MPI REQUIRED COMPONENTS C)
# Intel's mpicc ends the link with --enable-new-dtags. LibTorch's own libraries are found by DT_RPATH alone (torch.cmake).
get_target_property(tptrain_mpi_options MPI::MPI_C INTERFACE_LINK_OPTIONS)
if(tptrain_mpi_options)
  string(REPLACE "--enable-new-dtags" "--disable-new-dtags" tptrain_mpi_options "${tptrain_mpi_options}")
  set_target_properties(MPI::MPI_C PROPERTIES INTERFACE_LINK_OPTIONS "${tptrain_mpi_options}")
endif()
add_library(tptrain_mpi INTERFACE)
target_link_libraries(tptrain_mpi INTERFACE MPI::MPI_C)
target_compile_definitions(tptrain_mpi INTERFACE OMPI_SKIP_MPICXX)
