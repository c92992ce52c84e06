/*
 * What a tokenizer is made of, for those who read one from a file: model/tokenizer.c (tokenizer.json)
 * and model/gguf_tokenizer.c. Who uses one knows model/tokenizer.h alone.
 */
#pragma once

#include <stdint.h>

#include "model/added.h"
#include "model/bpe.h"
#include "model/detok.h"
#include "model/normalizer.h"
#include "model/postprocessor.h"
#include "model/pretokenizer.h"
#include "model/vocab.h"

struct tokenizer {
    struct vocab vocab;
    struct normalizer *normalizer;
    struct added *added;
    struct pretokenizer pretokenizer;
    struct bpe *bpe;
    struct postprocessor postprocessor;
    struct detok *detok;
    uint64_t hash;
};
