tm_unit_test(tokenizer LIBS tm_model)
