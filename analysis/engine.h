/*
 * What the workers computed with, as the report says it: of all of them together, and of each. From
 * the file's meta/engine. Pure.
 */
#pragma once

#include "core/str.h"
#include "results/store.h"

struct json_t;

/*
 * New reference, null without workers. Texts in which ranks differ name all of them; bytes are of one
 * replica, weight_bytes and n_weights as held by its ranks together.
 *
 *   {backend, device, kernels, threads, placement, weights, weights_stored, weight_bytes, n_weights,
 *    bytes_per_weight, kv_cache, kv_bytes_per_token, kv_tokens, moe_routing, moe_zipf, transport,
 *    hops, hops_between_hosts,
 *    ranks[]{rank, replica, stage, tensor, host, numa, pci, first_layer, n_layers, threads, cores, kernels,
 *            weights, weight_bytes, bytes_per_weight, kv_bytes_per_token},
 *    edges[]{from, to, kind, transport, same_host}}
 *
 * hops are those of hidden states from stage to stage, in a replica, in the one that goes between hosts most.
 */
struct json_t *engine_json(const struct store_meta *m);

/* One line of it, without a newline; nothing of null. */
void engine_line(const struct json_t *engine, struct str *out);
