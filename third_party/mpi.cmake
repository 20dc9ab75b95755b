# OpenMPI. Only lib/comm links it.
find_package(MPI REQUIRED COMPONENTS C)
add_library(tptrain_mpi INTERFACE)
target_link_libraries(tptrain_mpi INTERFACE MPI::MPI_C)
target_compile_definitions(tptrain_mpi INTERFACE OMPI_SKIP_MPICXX)
