# Ranks, messages and threads. tm_mpi_test is for every part that has a multi-rank test:
#
#   tm_mpi_test(NAME RANKS 1 2 3 LIBS tm_core)
#
# builds tests/mpi/test_NAME.c and runs it under mpirun with each number of ranks, as mpi.NAME.npN,
# and where 1 is among them also without a launcher, as mpi.NAME.alone. Exit 77 skips.
set(TM_MPIRUN ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none --mca pml ob1
  --mca btl self,vader)
set(TM_MPI_ENVIRONMENT
  "TIDEMARK_SOURCE=${PROJECT_SOURCE_DIR}"
  "OMPI_ALLOW_RUN_AS_ROOT=1" "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
  "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/lsan.supp:fast_unwind_on_malloc=0:print_suppressions=0")

set(TM_MPI_TIMEOUT 60)
if(TIDEMARK_ASAN)
  set(TM_MPI_TIMEOUT 180)
endif()

function(tm_mpi_test name)
  cmake_parse_arguments(arg "" "" "RANKS;LIBS" ${ARGN})
  add_executable(mpi_${name} mpi/test_${name}.c)
  target_link_libraries(mpi_${name} PRIVATE ${arg_LIBS})
  foreach(n ${arg_RANKS})
    add_test(NAME mpi.${name}.np${n} COMMAND ${TM_MPIRUN} -np ${n} $<TARGET_FILE:mpi_${name}>)
    set(names mpi.${name}.np${n})
    if(n EQUAL 1)
      add_test(NAME mpi.${name}.alone COMMAND mpi_${name})
      list(APPEND names mpi.${name}.alone)
    endif()
    set_tests_properties(${names} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT ${TM_MPI_TIMEOUT} PROCESSORS 2
      ENVIRONMENT "${TM_MPI_ENVIRONMENT}")
  endforeach()
endfunction()

tm_unit_test(jobs LIBS tm_core)
tm_unit_test(pool LIBS tm_core)
tm_unit_test(cores LIBS tm_core)
tm_unit_test(comm_self LIBS tm_core)
tm_unit_test(msgbuf LIBS tm_core)
tm_unit_test(beat LIBS tm_core)

tm_mpi_test(comm RANKS 1 2 3 4 LIBS tm_core)

# A rank that is stopped ends the job with its name; see the script.
add_executable(mpi_silent mpi/test_silent.c)
target_link_libraries(mpi_silent PRIVATE tm_core)
add_test(NAME mpi.silent_rank COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/silent_rank.sh
  $<TARGET_FILE:mpi_silent> ${TM_MPIRUN})
set_tests_properties(mpi.silent_rank PROPERTIES TIMEOUT ${TM_MPI_TIMEOUT} PROCESSORS 2 SKIP_RETURN_CODE 77
  ENVIRONMENT "${TM_MPI_ENVIRONMENT}")
