tm_fuzz_test(batch LIBS tm_workers)
tm_fuzz_test(costs LIBS tm_workers PkgConfig::JANSSON)
tm_fuzz_test(fabric LIBS tm_workers)
