#include "core/mem.h"

#include "core/err.h"
#include "core/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENA_ALIGN     16u
#define ARENA_BLOCK_MIN ((size_t)64 << 10)
#define ARENA_BLOCK_MAX ((size_t)4 << 20)
#define CACHE_LINE      64u
#define LARGE_PAGE      ((size_t)2 << 20)

static _Noreturn void out_of_memory(size_t n_bytes)
{
    log_error("mem", "out of memory (%zu bytes)", n_bytes);
    exit(ERR_ENV);
}

void *xmalloc(size_t n_bytes)
{
    void *p = malloc(n_bytes != 0 ? n_bytes : 1);
    if (p == NULL) {
        out_of_memory(n_bytes);
    }
    return p;
}

void *xcalloc(size_t n, size_t each_bytes)
{
    void *p = calloc(n != 0 ? n : 1, each_bytes != 0 ? each_bytes : 1);
    if (p == NULL) {
        out_of_memory(n * each_bytes);
    }
    return p;
}

void *xrealloc(void *p, size_t n_bytes)
{
    void *q = realloc(p, n_bytes != 0 ? n_bytes : 1);
    if (q == NULL) {
        out_of_memory(n_bytes);
    }
    return q;
}

char *xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(xmalloc(n), s, n);
}

char *xasprintf(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0) {
        out_of_memory(strlen(fmt));
    }
    return s;
}

void *mem_aligned(size_t n_bytes)
{
    if (n_bytes > SIZE_MAX - CACHE_LINE) {
        return NULL;
    }
    size_t n = n_bytes == 0 ? CACHE_LINE : (n_bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    void *p = aligned_alloc(CACHE_LINE, n);
    if (p != NULL) {
        memset(p, 0, n);
    }
    return p;
}

/* What is small comes from the heap, whose bounds the sanitizers watch. */
static bool is_mapped(size_t n_bytes)
{
    return n_bytes >= LARGE_PAGE;
}

void *mem_pages(size_t n_bytes)
{
    if (!is_mapped(n_bytes)) {
        return mem_aligned(n_bytes);
    }
    if (n_bytes > SIZE_MAX - LARGE_PAGE) {
        return NULL;
    }
    // Mapped with room to begin at a large page; what is over on both sides goes back.
    char *p = mmap(NULL, n_bytes + LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    const size_t before = (LARGE_PAGE - (uintptr_t)p % LARGE_PAGE) % LARGE_PAGE;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (n_bytes + page - 1) / page * page;
    if (before > 0) {
        munmap(p, before);
    }
    munmap(p + before + used, LARGE_PAGE - before);
    madvise(p + before, used, MADV_HUGEPAGE); // a wish
    return p + before;
}

void mem_pages_free(void *p, size_t n_bytes)
{
    if (!is_mapped(n_bytes)) {
        free(p);
    } else if (p) {
        munmap(p, n_bytes);
    }
}

struct arena_block {
    struct arena_block *next;
    size_t used_bytes, cap_bytes;
    size_t pad; // keeps data[] on a 16-byte boundary
    unsigned char data[];
};

_Static_assert(sizeof(struct arena_block) % ARENA_ALIGN == 0, "arena data must stay aligned");

/* A block for n_bytes more: at the head, or behind it when it is one large object of its own. */
static struct arena_block *add_block(struct arena *a, size_t n_bytes)
{
    size_t cap = ARENA_BLOCK_MIN;
    if (a->head != NULL && a->head->cap_bytes < ARENA_BLOCK_MAX) {
        cap = a->head->cap_bytes * 2;
    } else if (a->head != NULL) {
        cap = ARENA_BLOCK_MAX;
    }
    bool is_large = n_bytes > cap / 4;
    cap = is_large ? n_bytes : cap;
    struct arena_block *b = malloc(sizeof *b + cap);
    if (b == NULL) {
        return NULL;
    }
    *b = (struct arena_block){.cap_bytes = cap};
    if (is_large && a->head != NULL) {
        b->next = a->head->next;
        a->head->next = b;
    } else {
        b->next = a->head;
        a->head = b;
    }
    return b;
}

void *arena_alloc(struct arena *a, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 2) {
        return NULL;
    }
    size_t n = (n_bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    n = n == 0 ? ARENA_ALIGN : n;
    struct arena_block *b = a->head;
    if (b == NULL || b->cap_bytes - b->used_bytes < n) {
        b = add_block(a, n);
        if (b == NULL) {
            return NULL;
        }
    }
    void *p = b->data + b->used_bytes;
    b->used_bytes += n;
    a->n_bytes += n_bytes;
    return p;
}

char *arena_strdup(struct arena *a, const char *s, size_t len)
{
    char *p = len < SIZE_MAX ? arena_alloc(a, len + 1) : NULL;
    if (p != NULL) {
        memcpy(p, s, len);
        p[len] = '\0';
    }
    return p;
}

void arena_free(struct arena *a)
{
    struct arena_block *b = a->head;
    while (b != NULL) {
        struct arena_block *next = b->next;
        free(b);
        b = next;
    }
    *a = (struct arena){0};
}
