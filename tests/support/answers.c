#include "tests/support/answers.h"

#include <stdlib.h>
#include <string.h>

#include "core/err.h"

static void put_answer(struct answers *r)
{
    CHECK(strlen(r->a.type) < sizeof r->a.type);
    str_printf(&r->said, "%d %s [%s] %zu:", r->a.status, r->a.keeps_open ? "stays" : "closes",
               r->a.type, r->body.len);
    str_append(&r->said, r->body.data, r->body.len);
    str_puts(&r->said, "\n");
    str_clear(&r->body);
}

/* The piece lies in a block of its own size: reading past it is seen. */
void answers_take(struct answers *r, const char *bytes, size_t n)
{
    char *piece = malloc(n > 0 ? n : 1);
    CHECK(piece);
    memcpy(piece, bytes, n);
    const char *at = piece, *end = piece + n;
    for (bool goes_on = !r->is_refused; goes_on;) {
        const char *before = at;
        struct http_answer_span span = {0};
        switch (http_answer_take(&r->a, &at, end, &span)) {
        case HTTP_ANSWER_BODY:
            CHECK(r->a.status >= 200 && span.n > 0 && span.bytes >= before && span.n <= n &&
                  span.bytes + span.n == at);
            str_append(&r->body, span.bytes, span.n);
            break;
        case HTTP_ANSWER_OVER:
            put_answer(r);
            http_answer_begin(&r->a);
            break;
        case HTTP_ANSWER_MORE:
            CHECK(at == end);
            goes_on = false;
            break;
        case HTTP_ANSWER_BAD:
            str_printf(&r->said, "refused: %s", r->a.bad);
            r->is_refused = true;
            goes_on = false;
        }
        CHECK(at >= before && at <= end);
    }
    free(piece);
}

void answers_end(struct answers *r)
{
    if (r->is_refused) {
        return;
    }
    if (http_answer_ends_with_connection(&r->a)) {
        put_answer(r);
    } else if (r->a.status > 0 || r->a.head_bytes > 0) {
        str_puts(&r->said, "cut ");
        put_answer(r);
    }
}

void answers_free(struct answers *r)
{
    http_answer_free(&r->a);
    str_free(&r->said);
    str_free(&r->body);
}
