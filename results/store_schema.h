/*
 * The schema of the result file as data: every column and attribute, once. Writing, reading,
 * validating and the tables of results/schema.md all come from these rows, so they cannot differ.
 * Inner header of results/store*.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/str.h"
#include "results/store.h"

enum field_type {
    FIELD_I64,
    FIELD_U64,
    FIELD_I32,
    FIELD_U32,
    FIELD_U16,
    FIELD_U8,
    FIELD_F64,
    FIELD_F32,
    FIELD_BOOL,  // bool, stored as u8
    FIELD_ENUM,  // C enum (int), stored as u8
    FIELD_ENUM8, // u8 that holds an enum
    FIELD_TEXT,  // char[width], UTF-8, NUL-padded
};

/* One member of a C struct = one 1-D dataset of a table, or one attribute. */
struct store_field {
    const char *name;
    enum field_type type;
    size_t offset; // in the row's struct
    size_t width;  // FIELD_TEXT
    const char *units;
    const char *long_name;
    bool may_miss;            // the type's missing value stands for "none"
    const char *const *names; // (n_names) of an enum's values
    uint8_t n_names;
};

struct store_table {
    const char *group; // below the file's root, or below /steps/NNNN
    bool in_step;
    bool is_attributes; // of the group, one row; else columns
    const char *scale;  // field that is the dimension scale of the rows; NULL: none
    const char *axis;   // its name
    size_t row_bytes;
    const struct store_field *fields; // (n_fields)
    size_t n_fields;
};

/* The root group's attributes. */
struct store_root {
    char schema_name[32];
    char schema_version[16];
    char uuid[40];
    char name[128];
    char created_utc[32];
    int64_t created_unix_ns;
    int64_t t0_ns;
    char time_base[64];
    char tool_version[32];
    char tool_git_sha[48];
};

/* One metric of a step's summary. */
struct store_summary_row {
    char metric[32];
    double n, mean, sd, min, p50, p90, p95, p99, p999, max, lo95, hi95;
};

/* The main numbers of the report, as attributes of /analysis. */
struct store_answers {
    char saturation_verdict[24];
    double saturation_rate_rps, saturation_lo95_rps, saturation_hi95_rps;
    double saturation_output_tokens_per_s;
    double slo_rate_rps, slo_lo95_rps, slo_hi95_rps;
    double usd_per_m_input, usd_per_m_output;
};

extern const struct store_table store_schema_root, store_schema_ranks, store_schema_ranks_after,
    store_schema_engine, store_schema_edges, store_schema_gpus, store_schema_index,
    store_schema_answers;
extern const struct store_table store_schema_step, store_schema_requests, store_schema_path_first,
    store_schema_path_last, store_schema_workers, store_schema_series, store_schema_gpu_samples,
    store_schema_summary;
extern const struct store_field store_schema_stage_us; // named "stage_SS_us" per stage
extern const struct store_field store_schema_complete; // attribute of / and of each step: a bool
extern const struct store_field store_schema_offsets, store_schema_dt_us;

/* The field of that name, which the table has. */
const struct store_field *store_schema_field(const struct store_table *t, const char *name);

/* Whether files of an older minor version lack the field: it then reads as zero, a u32
 * or i32 column that may miss as missing. */
bool store_schema_is_recent(const struct store_field *f);

/* Bytes of one element in the file. */
size_t store_schema_bytes(const struct store_field *f);

/* Name of a stage's column into buf (>= 16 bytes). */
const char *store_schema_stage_name(unsigned stage, char *buf, size_t cap);

/* The tables of schema.md: a heading per group, a row per column or attribute. */
void store_schema_markdown(struct str *out);
