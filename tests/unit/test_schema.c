/* results/schema.md and the tables that drive the code say the same. */
#include "results/store_schema.h"

#include "core/mem.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void schema_md_has_every_row(void **state)
{
    (void)state;
    const char *source = getenv("TIDEMARK_SOURCE");
    if (source == NULL) {
        skip();
    }
    struct err e;
    struct str doc = {0}, tables = {0};
    char *path = xasprintf("%s/results/schema.md", source);
    assert_int_equal(str_read_file(&doc, path, 1 << 20, &e), 0);
    store_schema_markdown(&tables);
    const char *found = strstr(doc.data, tables.data);
    if (found == NULL) {
        print_error("results/schema.md lacks these tables, in this order:\n%s", tables.data);
    }
    assert_non_null(found);
    str_free(&doc);
    str_free(&tables);
    free(path);
}

static void every_field_has_what_readers_need(void **state)
{
    (void)state;
    static const struct store_table *const tables[] = {
        &store_schema_root,      &store_schema_ranks,      &store_schema_index,
        &store_schema_step,      &store_schema_answers,    &store_schema_requests,
        &store_schema_workers,   &store_schema_series,     &store_schema_path_first,
        &store_schema_path_last, &store_schema_summary,    &store_schema_engine,
        &store_schema_gpus,      &store_schema_gpu_samples};
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        for (size_t i = 0; i < tables[t]->n_fields; i++) {
            const struct store_field *f = &tables[t]->fields[i];
            assert_true(f->long_name[0] != '\0' && f->units != NULL);
            assert_true(store_schema_bytes(f) > 0);
            assert_true(f->offset + (f->type == FIELD_TEXT ? f->width : 1) <= tables[t]->row_bytes);
            assert_true((f->type == FIELD_ENUM || f->type == FIELD_ENUM8) == (f->n_names > 0));
            bool is_ns = strlen(f->name) > 3 && strcmp(f->name + strlen(f->name) - 3, "_ns") == 0;
            assert_int_equal(is_ns, strcmp(f->units, "ns") == 0);
        }
    }
}

/* Every byte of a record is in a column: nothing that was measured is dropped. */
static void columns_cover_the_record(void **state)
{
    (void)state;
    uint8_t covered[sizeof(struct record)] = {0};
    static const struct store_table *const tables[] = {
        &store_schema_requests, &store_schema_path_first, &store_schema_path_last};
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < tables[t]->n_fields; i++) {
            const struct store_field *f = &tables[t]->fields[i];
            for (size_t k = 0; k < store_schema_bytes(f); k++) {
                assert_int_equal(covered[f->offset + k]++, 0);
            }
        }
    }
    for (size_t k = 0; k < sizeof covered; k++) {
        assert_int_equal(covered[k], 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schema_md_has_every_row),
        cmocka_unit_test(every_field_has_what_readers_need),
        cmocka_unit_test(columns_cover_the_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
