tm_unit_test(hist LIBS tm_core)
tm_unit_test(json_scan LIBS tm_core)
foreach(name ramp arrival plan turns cap live search progress loop client_stages sse
    reply event_form spread sent_list ready drafts metrics endpoint body)
  tm_unit_test(${name} LIBS tm_loadgen tm_results)
endforeach()

# Two load ranks and two pretended leaders: every request of the schedule is answered exactly once.
tm_mpi_test(loop RANKS 4 LIBS tm_loadgen tm_results)
