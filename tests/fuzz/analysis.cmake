tm_fuzz_test(prices LIBS tm_analysis)
