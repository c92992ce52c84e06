/*
 * The text that a model's quality is judged by, as llama.cpp's tools/perplexity cuts one (2025): chunks of
 * `context` tokens, each read from an empty cache; what the model says behind positions `first` =
 * context / 2 and after it is judged by the token that follows in the chunk. A tokenizer that begins a
 * text with BOS has it in place of each chunk's first token. Tokens behind the last whole chunk are
 * left out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"
#include "model/token_ids.h"

#define BENCH_TEXT_CONTEXT     512u // where nothing else is asked for and the model has as much
#define BENCH_TEXT_MIN_CONTEXT 8u

struct bench_text {
    struct token_ids ids; // (n_chunks, context), those left out behind them
    uint32_t context, n_chunks, first;
    size_t n_tokens; // of the file
    bool has_bos;
};

/*
 * `file` is UTF-8 text, or where its name ends in ".ids", ids (model/
 * token_ids.h), which are taken as they are. context 0: the usual one; max_chunks 0: all. ERR_INPUT: not
 * that, less than one chunk, more than the model's context.
 */
int bench_text_open(struct bench_text *t, const char *file, const char *model, const struct arch *a,
                    uint32_t context, uint32_t max_chunks, struct err *e) ERR_CHECKED;
void bench_text_free(struct bench_text *t);

/* Positions of a chunk that are judged, of all chunks. */
uint32_t bench_text_judged(const struct bench_text *t);
size_t bench_text_all_judged(const struct bench_text *t);
