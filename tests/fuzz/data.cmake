tm_fuzz_test(tokenizer LIBS tm_model)
tm_fuzz_test(sharegpt LIBS tm_datasets)
tm_fuzz_test(trace LIBS tm_datasets)
tm_fuzz_test(ids_cache LIBS tm_datasets)
