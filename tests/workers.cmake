# Worker ranks: scheduler, batches, KV book-keeping, stage loop.
tm_unit_test(kv LIBS tm_workers)
tm_unit_test(batch LIBS tm_workers)
tm_unit_test(shard LIBS tm_workers)
tm_unit_test(tp_group_all LIBS tm_workers)
tm_unit_test(tickets LIBS tm_workers)
tm_unit_test(age_list LIBS tm_workers)
tm_unit_test(patience LIBS tm_workers)
tm_unit_test(sched LIBS tm_workers)
tm_unit_test(sched_params LIBS tm_workers)
tm_unit_test(sched_cases LIBS tm_workers)
tm_unit_test(target LIBS tm_workers PkgConfig::JANSSON)
tm_unit_test(request_trace LIBS tm_workers)
tm_unit_test(spans LIBS tm_workers)
tm_unit_test(emit LIBS tm_workers)

# GPUs as a scripted library tells of them.
add_library(fake_nvml MODULE ${CMAKE_CURRENT_LIST_DIR}/support/fake_nvml.c)
target_link_libraries(fake_nvml PRIVATE m)
foreach(name nvml telemetry)
  tm_unit_test(${name} LIBS tm_workers)
  add_dependencies(test_${name} fake_nvml)
  set_property(TEST unit.${name} APPEND PROPERTY ENVIRONMENT
    "TIDEMARK_NVML=$<TARGET_FILE:fake_nvml>")
endforeach()

tm_unit_test(sampler LIBS tm_workers PkgConfig::JANSSON)
tm_unit_test(choices LIBS tm_workers)
tm_unit_test(quality LIBS tm_workers)

# A load rank and 1, 2, 3 stages, or two replicas of 2.
tm_mpi_test(pipeline RANKS 2 3 4 5 LIBS tm_test_chain)
tm_mpi_test(nonsense RANKS 2 LIBS tm_workers)
# A load rank and P x T workers, on a tiny model of each family.
add_executable(mpi_families mpi/test_families.c)
target_link_libraries(mpi_families PRIVATE tm_workers PkgConfig::JANSSON)
foreach(place "1 1 2" "1 2 3" "2 1 3" "3 1 4" "2 2 5" "1 4 5")
  separate_arguments(place)
  list(GET place 0 p)
  list(GET place 1 t)
  list(GET place 2 n)
  add_test(NAME mpi.families.p${p}t${t}
    COMMAND ${TM_MPIRUN} -np ${n} $<TARGET_FILE:mpi_families> ${p} ${t})
  set_tests_properties(mpi.families.p${p}t${t} PROPERTIES TIMEOUT 120 PROCESSORS 2
    ENVIRONMENT "${TM_MPI_ENVIRONMENT}")
endforeach()
tm_mpi_test(tp_group RANKS 1 2 3 4 LIBS tm_workers)

# A rank that lives, but does not do its part, ends the job with its name; see the script.
add_executable(mpi_hung mpi/test_hung.c)
target_link_libraries(mpi_hung PRIVATE tm_workers)
target_link_options(mpi_hung PRIVATE "LINKER:--wrap=backend_poll,--wrap=patience_is_over,--wrap=comm_isend")
add_test(NAME mpi.hung_rank COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/hung_rank.sh
  $<TARGET_FILE:mpi_hung> ${TM_MPIRUN})
set_tests_properties(mpi.hung_rank PROPERTIES TIMEOUT ${TM_MPI_TIMEOUT} PROCESSORS 2
  ENVIRONMENT "${TM_MPI_ENVIRONMENT}")

# Not tests: what the scheduler costs per batch, and what it gains over static batches.
add_executable(sched_cost EXCLUDE_FROM_ALL perf/sched_cost.c)
target_link_libraries(sched_cost PRIVATE tm_workers)
add_executable(batching EXCLUDE_FROM_ALL perf/batching.c)
target_link_libraries(batching PRIVATE tm_workers tm_datasets)

# The simulated backend and its virtual clock.
tm_unit_test(sim LIBS tm_workers PkgConfig::JANSSON)
tm_unit_test(virtual LIBS tm_workers)
tm_unit_test(capacity LIBS tm_workers)

# The fabric between ranks, and splits over it.
tm_unit_test(edges LIBS tm_workers)
tm_unit_test(fabric LIBS tm_workers)

# Not a test: what choosing a token costs per row of logits.
add_executable(sampler_cost EXCLUDE_FROM_ALL perf/sampler_cost.c)
target_link_libraries(sampler_cost PRIVATE tm_workers)
