# analysis: statistics, verdicts, fits, cost, reports.
set(analysis_tests ${CMAKE_CURRENT_LIST_DIR})

add_library(tm_batch_server STATIC ${analysis_tests}/support/batch_server.c
  ${analysis_tests}/support/mmc_queue.c)
target_link_libraries(tm_batch_server PUBLIC tm_results)

tm_unit_test(stats LIBS tm_analysis)
tm_unit_test(verdict LIBS tm_analysis tm_batch_server)
tm_unit_test(fit LIBS tm_analysis tm_batch_server)
tm_unit_test(repeats LIBS tm_analysis)
tm_unit_test(ladder LIBS tm_analysis)
tm_unit_test(compare LIBS tm_analysis)
tm_unit_test(search_queues LIBS tm_loadgen tm_analysis tm_batch_server)
tm_unit_test(slo LIBS tm_analysis)
tm_unit_test(cost LIBS tm_analysis)
tm_unit_test(measure LIBS tm_analysis)
tm_unit_test(energy LIBS tm_analysis)
tm_unit_test(svg LIBS tm_analysis)
tm_unit_test(heatmap LIBS tm_analysis)

# The report of a simulated run whose truth is known, against h5py and numpy.
add_executable(make_report ${analysis_tests}/support/make_report.c)
target_link_libraries(make_report PRIVATE tm_analysis)
add_test(NAME analysis.report COMMAND /usr/bin/python3 ${analysis_tests}/analysis/report.py
  $<TARGET_FILE:make_run> $<TARGET_FILE:make_report> ${PROJECT_SOURCE_DIR}
  ${CMAKE_CURRENT_BINARY_DIR}/report)
set_tests_properties(analysis.report PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)
