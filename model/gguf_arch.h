/*
 * What a GGUF file says its model is, as struct arch. Its metadata are translated to the keys of
 * config.json and read as such (model/arch_config.h); what converters leave out is filled in as
 * llama.cpp infers it. Architectures: llama, qwen2, gemma2, gpt-oss, deepseek2 (V3 and R1).
 */
#pragma once

#include "model/arch.h"
#include "model/gguf.h"

int gguf_arch_read(const struct gguf *g, struct arch *a, struct err *e) ERR_CHECKED;
