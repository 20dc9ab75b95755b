# Arrow C++ with Parquet from the PyPI wheel pyarrow==26.0.1, by path, without importing it: it carries libraries and headers, and no CMake
# package. Optional: without it Parquet and Arrow files are refused with the way to get it.
# TPTRAIN_ARROW_DIR (CMake or environment) names the folder that holds include/ and, there or in lib/, libarrow.so.* (a pyarrow, or the prefix
# of conda's libparquet); by default the wheel in .venv. TPTRAIN_ARROW_RPATH: where an installed program finds it; empty without it.
if(NOT TPTRAIN_ARROW_DIR AND DEFINED ENV{TPTRAIN_ARROW_DIR})
  set(TPTRAIN_ARROW_DIR "$ENV{TPTRAIN_ARROW_DIR}")
endif()
if(NOT TPTRAIN_ARROW_DIR)
  file(GLOB candidates "${CMAKE_CURRENT_LIST_DIR}/../.venv/lib/python3*/site-packages/pyarrow")
  if(candidates)
    list(GET candidates 0 TPTRAIN_ARROW_DIR)
  endif()
endif()
set(TPTRAIN_ARROW OFF)
set(TPTRAIN_ARROW_RPATH "")
if(TPTRAIN_ARROW_DIR)
  foreach(part arrow parquet)  # libarrow.so.2600 beside libarrow.so.2600.1.0, which is the same
    file(GLOB ${part}_library "${TPTRAIN_ARROW_DIR}/lib${part}.so.[0-9]*" "${TPTRAIN_ARROW_DIR}/lib/lib${part}.so.[0-9]*")
    list(SORT ${part}_library)
    list(SUBLIST ${part}_library 0 1 ${part}_library)
  endforeach()
  if(NOT arrow_library OR NOT parquet_library OR NOT EXISTS "${TPTRAIN_ARROW_DIR}/include/parquet/arrow/reader.h")
    message(FATAL_ERROR "TPTRAIN_ARROW_DIR=${TPTRAIN_ARROW_DIR} holds no Arrow C++ with Parquet: libarrow.so.*, libparquet.so.* or include/parquet is missing.")
  endif()
  set(TPTRAIN_ARROW ON)
  get_filename_component(TPTRAIN_ARROW_RPATH "${arrow_library}" DIRECTORY)
  list(APPEND CMAKE_BUILD_RPATH "${TPTRAIN_ARROW_RPATH}")
  list(APPEND CMAKE_INSTALL_RPATH "${TPTRAIN_ARROW_RPATH}")
  add_library(tptrain_arrow INTERFACE)
  target_include_directories(tptrain_arrow SYSTEM INTERFACE "${TPTRAIN_ARROW_DIR}/include")
  # pyarrow 26's libraries export the simdjson and the OpenSSL that are built into them. Who comes first in a program serves all of it, and
  # rows of JSON read by another simdjson than their code was compiled for crash (the fuzz target jsonl_rows tells). So the machine's own go
  # before Arrow's, in one flag, since CMake would order libraries by itself.
  string(JOIN "," first ${simdjson_LINK_LIBRARIES} ${OPENSSL_CRYPTO_LIBRARY})
  target_link_libraries(tptrain_arrow INTERFACE "-Wl,--no-as-needed,${first},--as-needed,${parquet_library},${arrow_library}")
endif()
