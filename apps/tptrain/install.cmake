# What `cmake --install` puts where. The tree may be moved: the program looks for its libraries beside itself (a tarball brings them), then
# where a wheel in site-packages finds torch's, then where they were at the build. scripts/package.sh makes wheel and tarball of this tree.
include(GNUInstallDirs)
set(tptrain_install_rpath "$ORIGIN/../lib/tptrain" "$ORIGIN/../../torch/lib")
foreach(part cudnn nccl nvshmem cusparselt cu13)
  list(APPEND tptrain_install_rpath "$ORIGIN/../../nvidia/${part}/lib")
endforeach()
set_target_properties(tptrain_program PROPERTIES INSTALL_RPATH "${tptrain_install_rpath};${TPTRAIN_RPATH};${TPTRAIN_ARROW_RPATH}")
install(PROGRAMS $<TARGET_FILE:tptrain> DESTINATION ${CMAKE_INSTALL_BINDIR})  # static: it has no RPATH to change
install(TARGETS tptrain_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/configs DESTINATION ${CMAKE_INSTALL_DATADIR}/tptrain)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/scripts/slurm DESTINATION ${CMAKE_INSTALL_DATADIR}/tptrain/scripts USE_SOURCE_PERMISSIONS)
install(PROGRAMS ${CMAKE_SOURCE_DIR}/scripts/sweep.sh ${CMAKE_SOURCE_DIR}/scripts/track.py DESTINATION ${CMAKE_INSTALL_DATADIR}/tptrain/scripts)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)
install(FILES ${CMAKE_SOURCE_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The program itself writes what follows from its command line.
install(CODE "
  set(program \"$<TARGET_FILE:tptrain>\")
  set(share \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}\")
  foreach(completion bash:bash-completion/completions/tptrain zsh:zsh/site-functions/_tptrain)
    string(REPLACE \":\" \";\" parts \${completion})
    list(GET parts 0 shell)
    list(GET parts 1 path)
    execute_process(COMMAND \${program} completion \${shell} OUTPUT_VARIABLE script COMMAND_ERROR_IS_FATAL ANY)
    file(WRITE \"\${share}/\${path}\" \"\${script}\")
    list(APPEND CMAKE_INSTALL_MANIFEST_FILES \"\${share}/\${path}\")
    message(STATUS \"Installing: \${share}/\${path}\")
  endforeach()
  execute_process(COMMAND \"${CMAKE_SOURCE_DIR}/scripts/man_page.sh\" \${program} OUTPUT_VARIABLE page COMMAND_ERROR_IS_FATAL ANY)
  file(WRITE \"\${share}/man/man1/tptrain.1\" \"\${page}\")
  list(APPEND CMAKE_INSTALL_MANIFEST_FILES \"\${share}/man/man1/tptrain.1\")
  message(STATUS \"Installing: \${share}/man/man1/tptrain.1\")
")
