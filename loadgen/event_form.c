#include "loadgen/event_form.h"

#include <string.h>

#define FIELD   "data: "
#define N_FIELD (sizeof FIELD - 1)
#define STOP    "\n\n"
#define N_STOP  (sizeof STOP - 1)

/* A byte of a string that stands for itself. */
static bool is_plain(char c)
{
    return (unsigned char)c >= 0x20 && c != '"' && c != '\\';
}

size_t event_form_match(const struct event_form *f, const char *at, const char *end,
                        struct reply *out)
{
    size_t n = (size_t)(end - at);
    if (f->n_before == 0 || n < f->n_before + f->n_after ||
        memcmp(at, f->bytes, f->n_before) != 0) {
        return 0;
    }
    const char *text = at + f->n_before, *last = end - f->n_after, *stop = text;
    while (stop < last && is_plain(*stop)) {
        stop++;
    }
    if (memcmp(stop, f->bytes + f->n_before, f->n_after) != 0) {
        return 0;
    }
    *out = f->reply;
    *(f->is_reasoning ? &out->reasoning : &out->content) =
        (struct json_text){text, (size_t)(stop - text)};
    return (size_t)(stop - at) + f->n_after;
}

/* One text, which is no error's, in one line. */
static bool is_fit(const char *data, size_t len, const struct reply *r)
{
    bool has_one = (r->content.len > 0) != (r->reasoning.len > 0) && r->message.len == 0;
    size_t n = N_FIELD + len - r->content.len - r->reasoning.len + N_STOP;
    return has_one && n <= EVENT_FORM_BYTES && !memchr(data, '\n', len) && !memchr(data, '\r', len);
}

void event_form_learn(struct event_form *f, const char *data, size_t len, const struct reply *r)
{
    f->n_before = 0;
    if (!is_fit(data, len, r)) {
        return;
    }
    f->is_reasoning = r->reasoning.len > 0;
    struct json_text text = f->is_reasoning ? r->reasoning : r->content;
    size_t before = (size_t)(text.data - data), after = len - before - text.len;
    memcpy(f->bytes, FIELD, N_FIELD);
    memcpy(f->bytes + N_FIELD, data, before);
    f->n_before = N_FIELD + before;
    memcpy(f->bytes + f->n_before, text.data + text.len, after);
    memcpy(f->bytes + f->n_before + after, STOP, N_STOP);
    f->n_after = after + N_STOP;
    f->reply = *r;
    f->reply.content = f->reply.reasoning = (struct json_text){"", 0};
}
