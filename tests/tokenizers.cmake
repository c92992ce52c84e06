# Our tokenizers against another library's (tests/tokenizers); it comes from PyPI, see run-tests.
add_executable(encode_corpus tokenizers/encode_corpus.c)
target_link_libraries(encode_corpus PRIVATE tm_model)

function(tm_tokenizers_test name)
  add_test(NAME tokenizers.${name}
    COMMAND ${TM_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/tokenizers/${name}.py ${ARGN})
  set_tests_properties(tokenizers.${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 240
    ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
endfunction()

# tests/perf/tokenizers.sh compares more; under sanitizers the point is that they find nothing
set(TM_AGREE_SIZE --bytes 1000000 --vocab 3000)
if(TIDEMARK_ASAN)
  set(TM_AGREE_SIZE --bytes 200000 --vocab 600)
endif()
tm_tokenizers_test(agree $<TARGET_FILE:encode_corpus> ${TM_AGREE_SIZE})
tm_tokenizers_test(prompts $<TARGET_FILE:tidemark>)
