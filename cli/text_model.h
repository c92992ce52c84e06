/*
 * What prompts are made for: the context they must fit, and the tokenizer that counts them. Of stages and
 * the null target that is the model's own folder or file (a preset has no tokenizer); of an endpoint it
 * is target.tokenizer and target.context.
 */
#pragma once

#include "cli/run_config.h"
#include "model/arch.h"
#include "model/tokenizer.h"

/* The dimensions of the model; of an endpoint's only vocab and max_context are set. */
int text_model_open(const struct run_config *c, struct arch *a, struct err *e) ERR_CHECKED;

/* The tokenizer, NULL where there is none. Sets the vocabulary of an endpoint's model. */
int text_model_tokenizer(const struct run_config *c, struct arch *a, struct tokenizer **out,
                         struct err *e) ERR_CHECKED;

/* The same, as a dataset wants to know it. */
struct dataset_model text_model_dataset(const struct run_config *c, const struct arch *a,
                                        const struct tokenizer *tok);
