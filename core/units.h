/*
 * Numbers with units, both ways: "500ms" <-> ns, "4GiB" <-> bytes, "20%" <-> 0.2, "2.5k" <-> 2500.
 * Parsers take the whole string or fail with one line that says what is allowed; no unit may be
 * left out where the quantity has one (a bare number is an error for durations; bytes may be bare).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

/* "250us" "500ms" "12s" "5m" "2h": the result in ns, >= 0. */
int units_parse_duration_ns(const char *s, int64_t *ns, struct err *e) ERR_CHECKED;

/* "4096" "64KiB" "2GB" (decimal and binary suffixes). */
int units_parse_bytes(const char *s, int64_t *bytes, struct err *e) ERR_CHECKED;

/* "20%" or "0.2": a share in [0, 1]. */
int units_parse_share(const char *s, double *share, struct err *e) ERR_CHECKED;

/* "3", "2.5k", "1M", "1e-3": finite. */
int units_parse_number(const char *s, double *x, struct err *e) ERR_CHECKED;

/* Shortest exact text that the parsers read back ("500ms", "12s", "1.5s"). buf >= 32 bytes. */
const char *units_format_duration(int64_t ns, char *buf, size_t cap);
const char *units_format_bytes(int64_t bytes, char *buf, size_t cap);
