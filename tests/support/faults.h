/*
 * Replies that go wrong, or that are right in a way that trips clients up, each under a name:
 * "stall", or with a time of its own "stall=2s". A reply is a script: bytes, cut into packets, with
 * a wait before each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/httpd.h"

#define FAULTS_MAX_CUTS 4096

struct faults_cut {
    size_t end;      // in `bytes`
    int64_t wait_ns; // before this packet, from the one before it
};

struct faults_script {
    struct str bytes;
    struct faults_cut cuts[FAULTS_MAX_CUTS];
    int n_cuts, next;
    size_t sent;
    enum httpd_then then; // after the last packet; HTTPD_MORE: nothing, until the client leaves
    int64_t idle_ns;      // HTTPD_END
};

struct faults_request {
    bool chat;
    int64_t n_tokens; // asked for
    int64_t prompt_tokens;
    const char *model;
};

/* False: there is no such fault. */
bool faults_write(struct faults_script *s, const char *name, const struct faults_request *r);

/* "name  what it does", one line each, for people; names alone by index (NULL past the end). */
const char *faults_name(int i);
const char *faults_help(int i);
