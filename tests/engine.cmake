# The engine: architectures, weights, kernels, generation.
add_library(tm_test_chain STATIC support/chain.c)
target_link_libraries(tm_test_chain PUBLIC tm_workers)

tm_unit_test(arch LIBS tm_model)
tm_unit_test(split LIBS tm_model)
tm_unit_test(layout LIBS tm_model)
tm_unit_test(routing LIBS tm_model)
tm_unit_test(fill LIBS tm_workers)
tm_unit_test(formats LIBS tm_workers)
tm_unit_test(weights LIBS tm_workers)
tm_unit_test(gguf LIBS tm_workers)
tm_unit_test(safetensors LIBS tm_workers)
tm_unit_test(maker LIBS tm_workers)
tm_unit_test(kernels LIBS tm_workers)
tm_unit_test(attention LIBS tm_workers)
tm_unit_test(layers LIBS tm_workers)
tm_unit_test(router LIBS tm_workers)
tm_unit_test(family_oracle LIBS tm_test_chain PkgConfig::JANSSON)
tm_unit_test(generate_golden LIBS tm_test_chain PkgConfig::JANSSON)

# Not a test: prints rates, see the head of the file.
add_executable(engine_speed EXCLUDE_FROM_ALL perf/engine_speed.c)
target_link_libraries(engine_speed PRIVATE tm_test_chain)
