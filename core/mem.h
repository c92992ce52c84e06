/*
 * Memory for start-up objects (x*: die with one line when memory is out) and arenas: many small
 * allocations freed whole. What scales with user input uses plain malloc and a checked error.
 */
#pragma once

#include <stddef.h>

void *xmalloc(size_t n_bytes);
void *xcalloc(size_t n, size_t each_bytes);
void *xrealloc(void *p, size_t n_bytes);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* 64-byte aligned, zeroed; free() releases it. Returns NULL when memory is out. */
void *mem_aligned(size_t n_bytes);

/*
 * Zeroed memory in large pages where the system gives them; NULL when it is out. No page is touched
 * before the caller does: on a machine with several memory nodes a page lies near who writes first.
 */
void *mem_pages(size_t n_bytes);
void mem_pages_free(void *p, size_t n_bytes); // p may be NULL

struct arena {
    struct arena_block *head;
    size_t n_bytes; // handed out in all
};

/* 16-byte aligned, uninitialised; NULL when memory is out. A zeroed struct arena is ready. */
void *arena_alloc(struct arena *a, size_t n_bytes);
char *arena_strdup(struct arena *a, const char *s, size_t len);
void arena_free(struct arena *a);
