# Fuzz targets: tests/fuzz/fuzz_<name>.c defines LLVMFuzzerTestOneInput, tests/fuzz/corpus/<name>
# holds its inputs. With any compiler the corpus is replayed as test fuzz.<name>. To look for more,
# for as long as wanted: tests/fuzz/long.sh, or TIDEMARK_FUZZ by hand as it does.
#
# Each part lists its targets in a file of its own, tests/fuzz/<part>.cmake.
if(TIDEMARK_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "TIDEMARK_FUZZ needs clang: -DCMAKE_C_COMPILER=clang")
  endif()
  # Coverage and checks in every library, the fuzzer's main only in the targets.
  target_compile_options(tm_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=undefined)
  target_link_options(tm_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined)
endif()

function(tm_fuzz_test name)
  cmake_parse_arguments(arg "" "" "LIBS" ${ARGN})
  set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${name})
  if(TIDEMARK_FUZZ)
    add_executable(fuzz_${name} fuzz/fuzz_${name}.c)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    set(replay -runs=0)
  else()
    add_executable(fuzz_${name} fuzz/fuzz_${name}.c fuzz/replay_main.c)
    set(replay)
  endif()
  target_link_libraries(fuzz_${name} PRIVATE ${arg_LIBS} tm_core)
  add_test(NAME fuzz.${name} COMMAND fuzz_${name} ${replay} ${corpus})
  set_tests_properties(fuzz.${name} PROPERTIES TIMEOUT 120
    ENVIRONMENT "TIDEMARK_SOURCE=${PROJECT_SOURCE_DIR}")
endfunction()

file(GLOB fuzz_parts CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/*.cmake)
foreach(part ${fuzz_parts})
  include(${part})
endforeach()
