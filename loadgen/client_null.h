/*
 * The target that answers at once, with all tokens in one chunk: what is measured against it is
 * tidemark itself. Its stamps are taken from the clock like those of any other client.
 */
#pragma once

#include "loadgen/client.h"

/* Replies go to this table. Freed by ops->destroy. */
struct client *client_null_create(struct live_table *t);
