tm_unit_test(tokenizer LIBS tm_model)
tm_unit_test(utf8 LIBS tm_model)
tm_unit_test(normal_form LIBS tm_model)
tm_unit_test(splitters LIBS tm_model PkgConfig::JANSSON)
