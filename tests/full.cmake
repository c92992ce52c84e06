# What takes too long for every change: the whole of what other tests try a part of, and soaks. Run by
# `./run-tests --full`, or `ctest -C full -L full`.
function(tm_full_test name timeout environment) # command...
  add_test(NAME full.${name} CONFIGURATIONS full COMMAND ${ARGN})
  set_tests_properties(full.${name} PROPERTIES TIMEOUT ${timeout} LABELS "full;no_asan" PROCESSORS 2
    ENVIRONMENT "TIDEMARK_SOURCE=${PROJECT_SOURCE_DIR};${environment}")
endfunction()

tm_full_test(family_oracle 7200 "TIDEMARK_FULL=1" test_family_oracle)
foreach(place "1 1 2" "1 2 3" "2 1 3" "3 1 4" "2 2 5")
  separate_arguments(place)
  list(GET place 0 p)
  list(GET place 1 t)
  list(GET place 2 n)
  tm_full_test(families.p${p}t${t} 3600 "TIDEMARK_FULL=1;${TM_MPI_ENVIRONMENT}"
    ${TM_MPIRUN} -np ${n} $<TARGET_FILE:mpi_families> ${p} ${t})
endforeach()
tm_full_test(determinism 600 "TIDEMARK_FULL=1;TIDEMARK=$<TARGET_FILE:tidemark>;${TM_MPI_ENVIRONMENT}"
  ${TM_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/cli/determinism.py)
if(TARGET device_tests AND NOT TIDEMARK_ASAN)
  foreach(name families tensor)
    tm_full_test(cuda_${name} 7200 "TIDEMARK_FULL=1;TIDEMARK_CUDA_PLUGIN=${tm_cuda_on_cpu}" test_cuda_${name})
  endforeach()
endif()
tm_full_test(fit 3600 "TIDEMARK_SOAK=1" test_fit)
tm_full_test(search_queues 3600 "TIDEMARK_SOAK=1" test_search_queues)
# An hour of requests that come and go at random, with preemptions, cancellations and two replicas.
tm_full_test(soak 6000 "TIDEMARK_SOAK=3600;${TM_MPI_ENVIRONMENT}"
  ${TM_MPIRUN} -np 5 $<TARGET_FILE:mpi_pipeline>)
