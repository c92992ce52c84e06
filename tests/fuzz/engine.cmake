tm_fuzz_test(safetensors LIBS tm_workers)
tm_fuzz_test(arch LIBS tm_model)
tm_fuzz_test(gguf LIBS tm_model)
tm_fuzz_test(gguf_tokenizer LIBS tm_model)
