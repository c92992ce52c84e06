# House rules that no compiler checks. Each is a script that prints one line per finding.
find_program(TM_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH REQUIRED) # Debian's, with its modules
set(tm_style ${CMAKE_CURRENT_SOURCE_DIR}/style)

foreach(name includes functions formatting scripts words)
  add_test(NAME style.${name} COMMAND ${TM_PYTHON} ${tm_style}/${name}.py)
endforeach()
add_test(NAME style.symbols COMMAND ${TM_PYTHON} ${tm_style}/symbols.py ${PROJECT_BINARY_DIR})
set_tests_properties(style.includes style.functions style.formatting style.scripts style.words
  style.symbols PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 60 LABELS no_asan)
