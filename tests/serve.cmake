# The HTTP server, and the servers over it: the null server, and the one with faults.
tm_unit_test(timers LIBS tm_core)
tm_unit_test(http_request LIBS tm_core)
tm_unit_test(openai_request LIBS tm_workers)

add_executable(fault_server support/fault_server.c support/faults.c)
target_link_libraries(fault_server PRIVATE tm_workers PkgConfig::JANSSON)
