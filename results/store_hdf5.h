/*
 * HDF5 with our errors and our rules: opened groups that know their path, attributes and columns by
 * the rows of store_schema.h, texts, and the two-phase commit that keeps a file readable whenever
 * its writer dies. Inner header of results/store*.c, which are the only files that see hdf5.h.
 *
 * Commit: a group is built unlinked, flushed with everything in it, and only then linked under its
 * parent and flushed again. Metadata is never evicted between flushes (store_hdf5_access), so on
 * disk the group exists whole or not at all.
 */
#pragma once

#include "results/store.h"
#include "results/store_schema.h"

#include <hdf5.h>

#define STORE_CHUNK_ROWS   ((size_t)16384)
#define STORE_CHUNK_TOKENS ((size_t)65536) // also the largest chunk that a reader accepts

struct store {
    hid_t file;
    char *path;
    bool writable;
    uint32_t *steps; // (n_steps) numbers of the complete steps, ascending
    size_t n_steps;
    hid_t pending; // group of a step folded and not finished, unlinked; -1: none
    struct step_info pending_info;
};

/* An open group (or the file's root) and how to call it in messages. */
struct store_group {
    const struct store *store;
    hid_t id;
    char path[96];
};

/* "FILE: PATH/NAME: WHAT (HDF5's innermost reason)". NAME may be NULL. Returns -1. */
int store_hdf5_fail(struct err *e, const struct store_group *g, const char *name, const char *what);
/* A call that was allowed to fail has failed: its reason belongs to no message. */
void store_hdf5_forget(void);

/* Property lists of new files and of opening. Quiet HDF5 down. Close them with H5Pclose. */
hid_t store_hdf5_creation(void);
hid_t store_hdf5_access(void);

/* One more complete step in s->steps. */
void store_hdf5_add_step(struct store *s, uint32_t number);

/* Everything written so far is on the disk. */
int store_hdf5_flush(struct store *s, struct err *e) ERR_CHECKED;

/* A new unlinked group that will be called PATH; or one linked at once under its parent. */
int store_hdf5_group_anonymous(const struct store *s, const char *path, struct store_group *out,
                               struct err *e) ERR_CHECKED;
int store_hdf5_group_create(const struct store_group *parent, const char *name,
                            struct store_group *out, struct err *e) ERR_CHECKED;
int store_hdf5_group_open(const struct store_group *parent, const char *name,
                          struct store_group *out, struct err *e) ERR_CHECKED;
void store_hdf5_group_close(struct store_group *g);
void store_hdf5_root(const struct store *s, struct store_group *out);
bool store_hdf5_has(const struct store_group *g, const char *name);

/* Flush, link G under PARENT as NAME in place of what has that name, flush. */
int store_hdf5_commit(struct store *s, const struct store_group *parent, const char *name,
                      const struct store_group *g, struct err *e) ERR_CHECKED;

/* Type of a field in the file, new reference. */
hid_t store_hdf5_type(const struct store_field *f);
/* Whether TYPE of an attribute or dataset is the field's; a text may have another fixed width. */
bool store_hdf5_matches(hid_t type, const struct store_field *f);

/* A field's value between its place in a C struct and its form in the file. */
void store_hdf5_pack(const struct store_field *f, const void *row, void *element);
bool store_hdf5_unpack(const struct store_field *f, const void *element,
                       void *row); // false: not in the enum

/* One attribute, or one row of an attribute table. */
int store_hdf5_write_attribute(const struct store_group *g, const struct store_field *f,
                               const void *row, struct err *e) ERR_CHECKED;
int store_hdf5_write_attributes(const struct store_group *g, const struct store_table *t,
                                const void *row, struct err *e) ERR_CHECKED;
int store_hdf5_read_attribute(const struct store_group *g, const struct store_field *f, void *row,
                              struct err *e) ERR_CHECKED;
int store_hdf5_read_attributes(const struct store_group *g, const struct store_table *t, void *row,
                               struct err *e) ERR_CHECKED;
/* Overwrite an attribute that exists. */
int store_hdf5_update_attribute(const struct store_group *g, const struct store_field *f,
                                const void *row, struct err *e) ERR_CHECKED;

/* A scalar dataset of UTF-8 text; TEXT is NUL-terminated, malloc'd on reading. */
int store_hdf5_write_text(const struct store_group *g, const char *name, const char *text,
                          const char *long_name, struct err *e) ERR_CHECKED;
int store_hdf5_read_text(const struct store_group *g, const char *name, char **text,
                         struct err *e) ERR_CHECKED;

/* units, long_name, missing_value, flag_values and flag_meanings of a dataset. */
int store_hdf5_describe(const struct store_group *g, hid_t dataset, const struct store_field *f,
                        struct err *e) ERR_CHECKED;
