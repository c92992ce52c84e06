tm_fuzz_test(record LIBS tm_results)
tm_fuzz_test(journal LIBS tm_results)
tm_fuzz_test(fold LIBS tm_results)
tm_fuzz_test(vllm LIBS tm_results)
