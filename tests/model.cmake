tm_unit_test(tokenizer LIBS tm_model)
tm_unit_test(splitters LIBS tm_model PkgConfig::JANSSON)

# Other libraries' ids on the same texts (tests/tokenizers); the Python package comes from PyPI.
add_executable(encode_corpus tokenizers/encode_corpus.c)
target_link_libraries(encode_corpus PRIVATE tm_model)
