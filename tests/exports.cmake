# Our exports, read by the tools' own parsers (tests/exports), which come from PyPI.
add_test(NAME exports.accept COMMAND ${TM_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/exports/accept.py)
set_tests_properties(exports.accept PROPERTIES SKIP_RETURN_CODE 77 RUN_SERIAL ON TIMEOUT 400
  LABELS no_asan ENVIRONMENT "${TM_MPI_ENVIRONMENT};TIDEMARK=$<TARGET_FILE:tidemark>")
