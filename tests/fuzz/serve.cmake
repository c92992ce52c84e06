tm_fuzz_test(http_request LIBS tm_core)
tm_fuzz_test(http_answer LIBS tm_answers)
tm_fuzz_test(openai_request LIBS tm_workers)
