/*
 * Any bytes as what a client sends; the first byte seeds how they are cut. However they are cut, the
 * same requests come out, with the same end or the same refusal.
 */
#include "core/err.h"
#include "core/http_request.h"
#include "core/rng.h"
#include "core/str.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BODY 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_text(struct str *out, struct http_request_text t)
{
    str_printf(out, "%zu:", t.n);
    str_append(out, t.s, t.n);
}

static void put_request(struct str *out, const struct http_request_parts *r)
{
    put_text(out, r->method);
    put_text(out, r->target);
    put_text(out, r->path);
    put_text(out, r->body);
    str_printf(out, "%d %d %zu\n", r->minor, r->keep_alive, r->n_headers);
    for (size_t i = 0; i < r->n_headers; i++) {
        put_text(out, r->headers[i].name);
        put_text(out, r->headers[i].value);
    }
}

/*
 * All requests in the bytes as text, as a connection reads them: with up to `step` more bytes shown
 * each time, drawn from `seed`; 0: all at once. The shown bytes lie in a block of their own size.
 */
static void read_all(struct str *out, const char *bytes, size_t n, size_t step, uint64_t seed)
{
    size_t begin = 0, shown = 0, used = 0;
    struct http_request_parser p = {.max_body_bytes = MAX_BODY};
    char *buf = malloc(n + 1);
    while (begin + shown < n) {
        size_t more = step ? 1 + (size_t)rng_below(step, seed, RNG_SHUFFLE, begin + shown, 0) : n;
        size_t left = n - begin - shown;
        more = more < left ? more : left;
        memcpy(buf + shown, bytes + begin + shown, more);
        shown += more;
        enum http_request_state s;
        while (shown && (s = http_request_feed(&p, buf, shown, &used)) == HTTP_REQUEST_DONE) {
            struct http_request_parts r;
            CHECK(used <= shown && used >= p.head_bytes + p.body_bytes);
            http_request_view(&p, buf, &r);
            put_request(out, &r);
            memmove(buf, buf + used, shown - used);
            begin += used;
            shown -= used;
            p = (struct http_request_parser){.max_body_bytes = MAX_BODY};
        }
        if (p.status) {
            str_printf(out, "refused %d", p.status);
            break;
        }
    }
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str whole = {0}, cut = {0}, bytewise = {0};
    if (size == 0) {
        return 0;
    }
    const char *bytes = (const char *)data + 1;
    read_all(&whole, bytes, size - 1, 0, 0);
    read_all(&cut, bytes, size - 1, 1 + data[0], data[0]);
    read_all(&bytewise, bytes, size - 1, 1, 0);
    CHECK(whole.len == cut.len && (whole.len == 0 || memcmp(whole.data, cut.data, cut.len) == 0));
    CHECK(whole.len == bytewise.len &&
          (whole.len == 0 || memcmp(whole.data, bytewise.data, whole.len) == 0));
    str_free(&whole);
    str_free(&cut);
    str_free(&bytewise);
    return 0;
}
