/*
 * The tensors of a GGUF file by weights_id: names and shapes as llama.cpp's converters write them.
 * They differ from Hugging Face's in three ways that are undone here: Llama's query and key rows of a
 * head alternate between its halves, Gemma's norms hold 1 + w, and the experts of a layer lie in one
 * tensor each for gate, up and down.
 */
#pragma once

#include "model/gguf.h"
#include "workers/weights/weights.h"

/* As weights_find; t->dtype is left to the caller. */
int gguf_tensors_find(const struct gguf *g, const struct arch *a, enum weights_id id, int layer,
                      int expert, struct weights_tensor *t, struct err *e) ERR_CHECKED;
