tm_fuzz_test(batch LIBS tm_workers)
