/*
 * Where a run came from: everything needed to argue about its numbers later, as one JSON object.
 * Taken from the machine, the build and an allow-list of environment variables (Slurm job,
 * Kubernetes pod); never the environment as a whole, so no secret can slip in.
 */
#pragma once

#include <stddef.h>

#include "core/err.h"

struct json_t;
struct str;

/* New reference: {argv, git_sha, version, compiler, build_flags, libraries{..}, host, kernel,
 * cpu_model, n_cpus, governor, memory_bytes, slurm{..}, pod{..}, env{..}}. argv is redacted of
 * anything after a key that ends in "key", "token", "secret" or "password". */
struct json_t *provenance_collect(int argc, char **argv, const char *mpi_library);

/* Append TEXT without its secrets: what follows a key as above up to the end becomes "***", and so do
 * user parts of URLs. */
void provenance_redact(const char *text, struct str *out);
/* Only "scheme://user:password@host": the n bytes with "***" for the user part. JSON stays JSON. */
void provenance_redact_urls(const char *text, size_t n, struct str *out);

/* This host's CPU by its name, into buf; empty where it has none. */
void provenance_cpu(char *buf, size_t cap);

/* "2026-11-20T23:49:44Z" into buf (>= 21 bytes). */
const char *provenance_utc(long long unix_ns, char *buf, unsigned long cap);

/* A fresh random UUID (version 4) into buf (>= 37 bytes), from getrandom(2). */
void provenance_uuid(char *buf, unsigned long cap);

/* xxh64 of a file as 16 hex digits into buf (>= 17 bytes). */
int provenance_file_hash(const char *path, char *buf, unsigned long cap, struct err *e) ERR_CHECKED;
