/*
 * config.json of the five families into struct arch: keys, defaults and what is refused are those of
 * the families' config classes in huggingface/transformers.
 */
#pragma once

#include "model/arch.h"
#include "model/config_reader.h"

/* `a` begins zeroed. */
int arch_config_read(const struct config_reader *r, struct arch *a) ERR_CHECKED;
