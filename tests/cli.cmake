# The installed binary as users meet it: tests/cli/NAME.py becomes test cli.NAME. They start ranks
# of their own. Most judge by the clock, so that none runs beside another test; those with PROCESSORS
# wait more than they compute, judge nothing finer than seconds, and may. Those with no_asan are about times, rates or how
# processes die, which sanitizers change; the code that they run is also run by others and by unit tests.
find_program(TM_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH REQUIRED) # Debian's, with its modules

function(tm_cli_test name)
  cmake_parse_arguments(arg "" "TIMEOUT;PROCESSORS" "LABELS" ${ARGN})
  add_test(NAME cli.${name} COMMAND ${TM_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/cli/${name}.py)
  set(environment ${TM_MPI_ENVIRONMENT} "TIDEMARK=$<TARGET_FILE:tidemark>"
    "TIDEMARK_SANITIZED=$<BOOL:${TIDEMARK_ASAN}>" "PYTHONDONTWRITEBYTECODE=1")
  if(TIDEMARK_ASAN)
    math(EXPR arg_TIMEOUT "3 * ${arg_TIMEOUT}")
  endif()
  if(arg_PROCESSORS)
    set(beside PROCESSORS ${arg_PROCESSORS})
  else()
    set(beside RUN_SERIAL ON)
  endif()
  set_tests_properties(cli.${name} PROPERTIES SKIP_RETURN_CODE 77 ${beside}
    TIMEOUT ${arg_TIMEOUT} LABELS "cli;${arg_LABELS}" ENVIRONMENT "${environment}")
endfunction()

tm_cli_test(bad_input TIMEOUT 240 PROCESSORS 2)
tm_cli_test(bench TIMEOUT 240 PROCESSORS 1)
tm_cli_test(edges TIMEOUT 120 PROCESSORS 1)
tm_cli_test(quality TIMEOUT 240 PROCESSORS 1)
tm_cli_test(dataset TIMEOUT 120 PROCESSORS 1)
tm_cli_test(generate_golden TIMEOUT 240 PROCESSORS 1)
tm_cli_test(determinism TIMEOUT 240 LABELS no_asan)
tm_cli_test(file TIMEOUT 240 PROCESSORS 1)
tm_cli_test(exports TIMEOUT 240 PROCESSORS 1)
tm_cli_test(profiles TIMEOUT 180 LABELS no_asan)
tm_cli_test(omission TIMEOUT 60 LABELS no_asan)
tm_cli_test(screenshot TIMEOUT 120 LABELS no_asan) # what it adds is the browser's view
tm_cli_test(serve TIMEOUT 120)
set_property(TEST cli.serve APPEND PROPERTY ENVIRONMENT "FAULT_SERVER=$<TARGET_FILE:fault_server>")
tm_cli_test(sampling TIMEOUT 180)
tm_cli_test(endpoint TIMEOUT 180)
set_property(TEST cli.endpoint APPEND PROPERTY ENVIRONMENT
  "FAULT_SERVER=$<TARGET_FILE:fault_server>")
tm_cli_test(connections TIMEOUT 120 LABELS no_asan)
tm_cli_test(foreign TIMEOUT 240 PROCESSORS 1)
tm_cli_test(tls TIMEOUT 120 PROCESSORS 1)
tm_cli_test(search TIMEOUT 240 LABELS no_asan)
set_property(TEST cli.search APPEND PROPERTY ENVIRONMENT
  "FAULT_SERVER=$<TARGET_FILE:fault_server>")
tm_cli_test(simulated TIMEOUT 300 LABELS no_asan)
tm_cli_test(telemetry TIMEOUT 180 LABELS no_asan)
set_property(TEST cli.telemetry APPEND PROPERTY ENVIRONMENT
  "FAKE_NVML_PATH=$<TARGET_FILE:fake_nvml>")
tm_cli_test(model TIMEOUT 180 PROCESSORS 1)
tm_cli_test(gpu_configs TIMEOUT 180 PROCESSORS 2)
tm_cli_test(signals TIMEOUT 180 PROCESSORS 2 LABELS no_asan)
tm_cli_test(crash TIMEOUT 300 PROCESSORS 2 LABELS crash no_asan)

tm_unit_test(launch_filter LIBS tm_cli)
