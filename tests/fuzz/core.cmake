tm_fuzz_test(config LIBS tm_core)
