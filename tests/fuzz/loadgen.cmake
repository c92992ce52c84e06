tm_fuzz_test(json_scan LIBS tm_core)
tm_fuzz_test(sse LIBS tm_loadgen)
tm_fuzz_test(reply LIBS tm_loadgen)
tm_fuzz_test(metrics LIBS tm_loadgen)
