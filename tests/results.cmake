# results: records, journal, result file, provenance.
set(results_tests ${CMAKE_CURRENT_LIST_DIR})

add_executable(make_run ${results_tests}/support/make_run.c)
target_link_libraries(make_run PRIVATE tm_results)

add_library(tm_run_files STATIC ${results_tests}/support/run_files.c)
target_link_libraries(tm_run_files PUBLIC tm_results)

tm_unit_test(record LIBS tm_results)
tm_unit_test(journal LIBS tm_results)
tm_unit_test(provenance LIBS tm_results)
tm_unit_test(schema LIBS tm_results)
tm_unit_test(store LIBS tm_run_files ${HDF5_C_LIBRARIES}) # makes foreign files too
target_include_directories(test_store SYSTEM PRIVATE ${HDF5_C_INCLUDE_DIRS})
tm_unit_test(store_damage LIBS tm_run_files)
set_property(TEST unit.store_damage APPEND PROPERTY ENVIRONMENT
  "LSAN_OPTIONS=suppressions=${results_tests}/results/damage.supp:print_suppressions=0")

# A writer killed at random moments leaves whole files.
add_executable(kill_writer ${results_tests}/results/kill_writer.c)
target_link_libraries(kill_writer PRIVATE tm_run_files)
add_test(NAME results.killed COMMAND /usr/bin/python3 ${results_tests}/results/killed.py
  $<TARGET_FILE:kill_writer> ${CMAKE_CURRENT_BINARY_DIR}/killed 25)

# Stock readers agree with each other.
add_test(NAME results.open_everywhere COMMAND /usr/bin/python3
  ${results_tests}/results/open_everywhere.py $<TARGET_FILE:make_run> ${CMAKE_CURRENT_BINARY_DIR})

# 1,000,000 records through the fold: fails above 150 MB resident.
add_executable(perf_fold ${results_tests}/perf/perf_fold.c)
target_link_libraries(perf_fold PRIVATE tm_results)
add_test(NAME results.fold_memory COMMAND perf_fold ${CMAKE_CURRENT_BINARY_DIR} 1000000 1)

set_tests_properties(results.killed results.open_everywhere results.fold_memory PROPERTIES
  SKIP_RETURN_CODE 77 TIMEOUT 300)
set_tests_properties(results.fold_memory PROPERTIES LABELS no_asan) # whose shadow is memory too
