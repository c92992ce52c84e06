# The HTTP server, and the servers over it: the null server, and the one with faults.
tm_unit_test(timers LIBS tm_core)
tm_unit_test(http_request LIBS tm_core)
tm_unit_test(openai_request LIBS tm_workers PkgConfig::JANSSON)
tm_unit_test(openai_logprobs LIBS tm_workers PkgConfig::JANSSON)

add_executable(fault_server support/fault_server.c support/faults.c)
target_link_libraries(fault_server PRIVATE tm_workers PkgConfig::JANSSON)

# Not a test: what the null server gives to a bare reader, see tests/perf/serve_speed.sh.
add_executable(sse_reader EXCLUDE_FROM_ALL perf/sse_reader.c)
target_link_libraries(sse_reader PRIVATE tm_core)
