#include "results/store_hdf5.h"

#include "core/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ELEMENT_MAX_BYTES    ((size_t)256)
#define TEXT_MAX_BYTES       ((size_t)64 << 20)
#define FIELD_TEXT_MAX_BYTES 4096u

/* --- errors --------------------------------------------------------------------------------------- */

/* HDF5 forgets why a call failed at the next one, so the reason is kept when the failing call ends. */
static _Thread_local char reason[160];

static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *arg)
{
    (void)arg;
    if (n == 0 && error->desc != NULL) {
        snprintf(reason, sizeof reason, "%s", error->desc);
    }
    return 0;
}

static herr_t on_failure(hid_t stack, void *arg)
{
    return H5Ewalk2(stack, H5E_WALK_UPWARD, keep_innermost, arg);
}

void store_hdf5_forget(void)
{
    reason[0] = '\0';
}

int store_hdf5_fail(struct err *e, const struct store_group *g, const char *name, const char *what)
{
    bool at_root = g->path[1] == '\0', has_reason = reason[0] != '\0';
    err_set(e, ERR_ENV, "%s: %s%s%s%s%s%s%s%s", g->store->path, at_root ? "" : g->path,
            at_root || name == NULL ? "" : "/", name == NULL ? "" : name,
            at_root && name == NULL ? "" : ": ", what, has_reason ? " (" : "", reason,
            has_reason ? ")" : "");
    store_hdf5_forget();
    return -1;
}

/* --- the file ------------------------------------------------------------------------------------- */

/* Order of links kept, no time stamps, all attributes in the object's header. */
static void group_rules(hid_t creation)
{
    H5Pset_link_creation_order(creation, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    H5Pset_obj_track_times(creation, false);
    H5Pset_attr_phase_change(creation, 64, 32);
}

hid_t store_hdf5_creation(void)
{
    hid_t p = H5Pcreate(H5P_FILE_CREATE);
    group_rules(p);
    return p;
}

hid_t store_hdf5_access(void)
{
    H5Eset_auto2(H5E_DEFAULT, on_failure, NULL);
    store_hdf5_forget();
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(p, H5F_CLOSE_STRONG);
    // HDF5 1.8's format: its metadata has checksums (1.10.8 can crash on damage in the older one),
    // and no "open for writing" mark that a killed writer would leave (as the newer one has).
    H5Pset_libver_bounds(p, H5F_LIBVER_V18, H5F_LIBVER_V18);
    H5Pset_file_locking(p, true, true); // goes on where the file system has no locks
    // No metadata reaches the disk but by a flush.
    H5AC_cache_config_t cache = {.version = H5AC__CURR_CACHE_CONFIG_VERSION};
    H5Pget_mdc_config(p, &cache);
    cache.evictions_enabled = false;
    cache.incr_mode = H5C_incr__off;
    cache.flash_incr_mode = H5C_flash_incr__off;
    cache.decr_mode = H5C_decr__off;
    H5Pset_mdc_config(p, &cache);
    return p;
}

void store_hdf5_root(const struct store *s, struct store_group *out)
{
    *out = (struct store_group){.store = s, .id = s->file, .path = "/"};
}

void store_hdf5_add_step(struct store *s, uint32_t number)
{
    s->steps = xrealloc(s->steps, (s->n_steps + 1) * sizeof *s->steps);
    size_t at = s->n_steps++;
    for (; at > 0 && s->steps[at - 1] > number; at--) {
        s->steps[at] = s->steps[at - 1];
    }
    s->steps[at] = number;
}

int store_hdf5_flush(struct store *s, struct err *e)
{
    struct store_group root;
    store_hdf5_root(s, &root);
    int *fd = NULL;
    if (H5Fflush(s->file, H5F_SCOPE_LOCAL) < 0 ||
        H5Fget_vfd_handle(s->file, H5P_DEFAULT, (void **)&fd) < 0 || fd == NULL) {
        return store_hdf5_fail(e, &root, NULL, "cannot be written");
    }
    if (fsync(*fd) != 0) {
        return err_set(e, ERR_ENV, "%s: cannot be written to disk: %m", s->path);
    }
    return 0;
}

/* --- groups --------------------------------------------------------------------------------------- */

/*
 * Room for the links of hundreds of steps in the first block of the group's header, so that a commit
 * changes one block in place.
 */
static hid_t group_creation(void)
{
    hid_t p = H5Pcreate(H5P_GROUP_CREATE);
    group_rules(p);
    H5Pset_link_phase_change(p, 4096, 2048);
    return p;
}

static void set_path(struct store_group *out, const struct store_group *parent, const char *name)
{
    const char *slash = parent->path[1] == '\0' ? "" : "/";
    snprintf(out->path, sizeof out->path, "%.60s%s%.32s", parent->path, slash, name);
}

int store_hdf5_group_anonymous(const struct store *s, const char *path, struct store_group *out,
                               struct err *e)
{
    *out = (struct store_group){.store = s};
    snprintf(out->path, sizeof out->path, "%s", path);
    hid_t creation = group_creation();
    out->id = H5Gcreate_anon(s->file, creation, H5P_DEFAULT);
    H5Pclose(creation);
    return out->id < 0 ? store_hdf5_fail(e, out, NULL, "cannot be made") : 0;
}

int store_hdf5_group_create(const struct store_group *parent, const char *name,
                            struct store_group *out, struct err *e)
{
    *out = (struct store_group){.store = parent->store};
    set_path(out, parent, name);
    hid_t creation = group_creation();
    if (parent->path[1] == '\0') { // the run's own groups: /steps above all
        H5Pset_est_link_info(creation, 128, 4);
    }
    out->id = H5Gcreate2(parent->id, name, H5P_DEFAULT, creation, H5P_DEFAULT);
    H5Pclose(creation);
    return out->id < 0 ? store_hdf5_fail(e, out, NULL, "cannot be made") : 0;
}

/* Only hard links: a file from outside does not get to name other files. */
bool store_hdf5_has(const struct store_group *g, const char *name)
{
    H5L_info_t info;
    bool has = H5Lexists(g->id, name, H5P_DEFAULT) > 0 &&
               H5Lget_info(g->id, name, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD;
    store_hdf5_forget();
    return has;
}

int store_hdf5_group_open(const struct store_group *parent, const char *name,
                          struct store_group *out, struct err *e)
{
    *out = (struct store_group){.store = parent->store, .id = -1};
    set_path(out, parent, name);
    if (!store_hdf5_has(parent, name)) {
        return store_hdf5_fail(e, parent, name, "is missing");
    }
    out->id = H5Gopen2(parent->id, name, H5P_DEFAULT);
    return out->id < 0 ? store_hdf5_fail(e, out, NULL, "cannot be opened") : 0;
}

void store_hdf5_group_close(struct store_group *g)
{
    if (g->id > 0 && g->id != g->store->file) {
        H5Gclose(g->id);
    }
    g->id = 0;
}

int store_hdf5_commit(struct store *s, const struct store_group *parent, const char *name,
                      const struct store_group *g, struct err *e)
{
    if (store_hdf5_flush(s, e) != 0) {
        return -1;
    }
    if (store_hdf5_has(parent, name) && H5Ldelete(parent->id, name, H5P_DEFAULT) < 0) {
        return store_hdf5_fail(e, parent, name, "cannot be replaced");
    }
    if (H5Olink(g->id, parent->id, name, H5P_DEFAULT, H5P_DEFAULT) < 0) {
        return store_hdf5_fail(e, parent, name, "cannot be linked");
    }
    return store_hdf5_flush(s, e);
}

/* --- values --------------------------------------------------------------------------------------- */

hid_t store_hdf5_type(const struct store_field *f)
{
    switch (f->type) {
    case FIELD_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case FIELD_U64:
        return H5Tcopy(H5T_STD_U64LE);
    case FIELD_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case FIELD_U32:
        return H5Tcopy(H5T_STD_U32LE);
    case FIELD_U16:
        return H5Tcopy(H5T_STD_U16LE);
    case FIELD_U8:
    case FIELD_BOOL:
    case FIELD_ENUM:
    case FIELD_ENUM8:
        return H5Tcopy(H5T_STD_U8LE);
    case FIELD_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case FIELD_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case FIELD_TEXT:
        break;
    }
    hid_t t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, f->width);
    H5Tset_cset(t, H5T_CSET_UTF8);
    H5Tset_strpad(t, H5T_STR_NULLPAD);
    return t;
}

void store_hdf5_pack(const struct store_field *f, const void *row, void *element)
{
    const char *from = (const char *)row + f->offset;
    if (f->type == FIELD_ENUM) {
        int v;
        memcpy(&v, from, sizeof v);
        *(uint8_t *)element = (uint8_t)v;
    } else if (f->type == FIELD_TEXT) {
        memset(element, 0, f->width);
        memcpy(element, from, strnlen(from, f->width - 1));
    } else {
        memcpy(element, from, store_schema_bytes(f));
    }
}

bool store_hdf5_unpack(const struct store_field *f, const void *element, void *row)
{
    char *to = (char *)row + f->offset;
    uint8_t small = *(const uint8_t *)element;
    if ((f->n_names > 0 && small >= f->n_names) || (f->type == FIELD_BOOL && small > 1)) {
        return false;
    }
    if (f->type == FIELD_ENUM) {
        int v = small;
        memcpy(to, &v, sizeof v);
    } else if (f->type == FIELD_BOOL) {
        bool v = small != 0;
        memcpy(to, &v, sizeof v);
    } else {
        memcpy(to, element, store_schema_bytes(f));
    }
    if (f->type == FIELD_TEXT) {
        to[f->width - 1] = '\0';
    }
    return true;
}

/* --- attributes ----------------------------------------------------------------------------------- */

static int write_attribute(const struct store_group *g, hid_t object, const char *name, hid_t type,
                           hsize_t n, const void *value, struct err *e)
{
    hid_t space = n == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &n, NULL);
    hid_t a = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t status = a < 0 ? -1 : H5Awrite(a, type, value);
    if (a >= 0) {
        H5Aclose(a);
    }
    H5Sclose(space);
    return status < 0 ? store_hdf5_fail(e, g, name, "attribute cannot be written") : 0;
}

static int write_text_attribute(const struct store_group *g, hid_t object, const char *name,
                                const char *text, struct err *e)
{
    struct store_field f = {.type = FIELD_TEXT, .width = strlen(text) + 1};
    hid_t type = store_hdf5_type(&f);
    int status = write_attribute(g, object, name, type, 1, text, e);
    H5Tclose(type);
    return status;
}

int store_hdf5_write_attribute(const struct store_group *g, const struct store_field *f,
                               const void *row, struct err *e)
{
    char element[ELEMENT_MAX_BYTES];
    CHECK(store_schema_bytes(f) <= sizeof element);
    store_hdf5_pack(f, row, element);
    hid_t type = store_hdf5_type(f);
    int status = write_attribute(g, g->id, f->name, type, 1, element, e);
    H5Tclose(type);
    return status;
}

int store_hdf5_write_attributes(const struct store_group *g, const struct store_table *t,
                                const void *row, struct err *e)
{
    for (size_t i = 0; i < t->n_fields; i++) {
        if (store_hdf5_write_attribute(g, &t->fields[i], row, e) != 0) {
            return -1;
        }
    }
    return 0;
}

bool store_hdf5_matches(hid_t type, const struct store_field *f)
{
    if (type < 0) {
        return false;
    }
    if (f->type == FIELD_TEXT) {
        return H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
               H5Tget_size(type) <= FIELD_TEXT_MAX_BYTES;
    }
    hid_t wanted = store_hdf5_type(f);
    bool same = H5Tequal(type, wanted) > 0;
    H5Tclose(wanted);
    return same;
}

static int open_attribute(const struct store_group *g, const struct store_field *f, hid_t *out,
                          struct err *e)
{
    hid_t a = H5Aopen(g->id, f->name, H5P_DEFAULT);
    if (a < 0) {
        return store_hdf5_fail(e, g, f->name, "attribute is missing");
    }
    hid_t space = H5Aget_space(a), type = H5Aget_type(a);
    bool fits = space >= 0 && type >= 0 && H5Sget_simple_extent_npoints(space) == 1 &&
                store_hdf5_matches(type, f);
    H5Sclose(space);
    H5Tclose(type);
    if (!fits) {
        H5Aclose(a);
        return store_hdf5_fail(e, g, f->name, "attribute has another type than the schema's");
    }
    *out = a;
    return 0;
}

int store_hdf5_read_attribute(const struct store_group *g, const struct store_field *f, void *row,
                              struct err *e)
{
    hid_t a;
    char element[ELEMENT_MAX_BYTES];
    if (open_attribute(g, f, &a, e) != 0) {
        return -1;
    }
    CHECK(store_schema_bytes(f) <= sizeof element);
    hid_t type = store_hdf5_type(f);
    herr_t status = H5Aread(a, type, element);
    H5Tclose(type);
    H5Aclose(a);
    if (status < 0) {
        return store_hdf5_fail(e, g, f->name, "attribute cannot be read");
    }
    if (!store_hdf5_unpack(f, element, row)) {
        return store_hdf5_fail(e, g, f->name,
                               "attribute has a value that the schema does not name");
    }
    return 0;
}

int store_hdf5_read_attributes(const struct store_group *g, const struct store_table *t, void *row,
                               struct err *e)
{
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct store_field *f = &t->fields[i];
        if (store_schema_is_recent(f) && H5Aexists(g->id, f->name) == 0) {
            store_hdf5_unpack(f, (const char[sizeof(uint64_t)]){0}, row);
            continue;
        }
        if (store_hdf5_read_attribute(g, f, row, e) != 0) {
            return -1;
        }
    }
    return 0;
}

int store_hdf5_update_attribute(const struct store_group *g, const struct store_field *f,
                                const void *row, struct err *e)
{
    hid_t a;
    char element[ELEMENT_MAX_BYTES];
    if (open_attribute(g, f, &a, e) != 0) {
        return -1;
    }
    CHECK(store_schema_bytes(f) <= sizeof element);
    store_hdf5_pack(f, row, element);
    hid_t type = store_hdf5_type(f);
    herr_t status = H5Awrite(a, type, element);
    H5Tclose(type);
    H5Aclose(a);
    return status < 0 ? store_hdf5_fail(e, g, f->name, "attribute cannot be written") : 0;
}

/* CF names the values of an enum by two attributes. */
static int describe_enum(const struct store_group *g, hid_t dataset, const struct store_field *f,
                         struct err *e)
{
    uint8_t values[UINT8_MAX];
    struct str meanings = {0};
    for (unsigned i = 0; i < f->n_names; i++) {
        values[i] = (uint8_t)i;
        str_printf(&meanings, "%s%s", i == 0 ? "" : " ", f->names[i]);
    }
    int status = write_attribute(g, dataset, "flag_values", H5T_STD_U8LE, f->n_names, values, e);
    if (status == 0) {
        status = write_text_attribute(g, dataset, "flag_meanings", meanings.data, e);
    }
    str_free(&meanings);
    return status;
}

static int describe_missing(const struct store_group *g, hid_t dataset, const struct store_field *f,
                            struct err *e)
{
    union {
        int64_t i64;
        uint32_t u32;
        int32_t i32;
        double f64;
        float f32;
    } v;
    memset(&v, 0, sizeof v);
    if (f->type == FIELD_I64) {
        v.i64 = RECORD_NONE;
    } else if (f->type == FIELD_U32) {
        v.u32 = UINT32_MAX;
    } else if (f->type == FIELD_I32) {
        v.i32 = -1;
    } else if (f->type == FIELD_F32) {
        v.f32 = NAN;
    } else {
        CHECK(f->type == FIELD_F64);
        v.f64 = (double)NAN;
    }
    hid_t type = store_hdf5_type(f);
    int status = write_attribute(g, dataset, "missing_value", type, 1, &v, e);
    H5Tclose(type);
    return status;
}

int store_hdf5_describe(const struct store_group *g, hid_t dataset, const struct store_field *f,
                        struct err *e)
{
    if (write_text_attribute(g, dataset, "units", f->units, e) != 0 ||
        write_text_attribute(g, dataset, "long_name", f->long_name, e) != 0) {
        return -1;
    }
    if (f->n_names > 0 && describe_enum(g, dataset, f, e) != 0) {
        return -1;
    }
    return f->may_miss ? describe_missing(g, dataset, f, e) : 0;
}

/* --- texts ---------------------------------------------------------------------------------------- */

int store_hdf5_write_text(const struct store_group *g, const char *name, const char *text,
                          const char *long_name, struct err *e)
{
    struct store_field f = {.type = FIELD_TEXT, .width = strlen(text) + 1};
    hid_t type = store_hdf5_type(&f), space = H5Screate(H5S_SCALAR);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(creation, false);
    hid_t d = H5Dcreate2(g->id, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    int status = 0;
    if (d < 0 || H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0) {
        status = store_hdf5_fail(e, g, name, "cannot be written");
    } else {
        status = write_text_attribute(g, d, "long_name", long_name, e);
    }
    if (d >= 0) {
        H5Dclose(d);
    }
    H5Pclose(creation);
    H5Sclose(space);
    H5Tclose(type);
    return status;
}

/* Bytes of the one string in a dataset, 0 when it is something else. */
static size_t text_bytes(hid_t dataset)
{
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    size_t n = 0;
    if (type >= 0 && space >= 0 && H5Tget_class(type) == H5T_STRING &&
        H5Tis_variable_str(type) == 0 && H5Sget_simple_extent_npoints(space) == 1) {
        n = H5Tget_size(type);
    }
    H5Tclose(type);
    H5Sclose(space);
    return n <= H5Dget_storage_size(dataset) && n <= TEXT_MAX_BYTES ? n : 0;
}

int store_hdf5_read_text(const struct store_group *g, const char *name, char **text, struct err *e)
{
    if (!store_hdf5_has(g, name)) {
        return store_hdf5_fail(e, g, name, "is missing");
    }
    hid_t d = H5Dopen2(g->id, name, H5P_DEFAULT);
    struct store_field f = {.type = FIELD_TEXT, .width = d < 0 ? 0 : text_bytes(d)};
    char *buf = f.width > 0 ? calloc(f.width + 1, 1) : NULL;
    int status = 0;
    if (buf == NULL) {
        status = store_hdf5_fail(e, g, name, "is no readable text");
    } else {
        hid_t type = store_hdf5_type(&f);
        if (H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, buf) < 0) {
            status = store_hdf5_fail(e, g, name, "cannot be read");
        }
        H5Tclose(type);
    }
    if (d >= 0) {
        H5Dclose(d);
    }
    if (status != 0) {
        free(buf);
        return -1;
    }
    *text = buf;
    return 0;
}
