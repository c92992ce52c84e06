#include "core/http_answer.h"

#include <string.h>
#include <strings.h>

#define MAX_DIGITS  15 // of a length: fits 64 bits in base 16 and 10
#define BARE_DIGITS 8

enum part {
    STATUS_LINE,
    HEADERS,
    BODY_OF_LENGTH, // also one chunk's
    BODY_TO_END,
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_END,
    TRAILER,
    OVER,
};

void http_answer_begin(struct http_answer *a)
{
    struct str line = a->line;
    str_clear(&line);
    *a = (struct http_answer){.line = line};
}

void http_answer_free(struct http_answer *a)
{
    str_free(&a->line);
}

static enum http_answer_got bad(struct http_answer *a, const char *what)
{
    a->bad = what;
    return HTTP_ANSWER_BAD;
}

/* --- the head ---------------------------------------------------------------------------------- */

struct text {
    const char *s;
    size_t n;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct text trim(struct text t)
{
    while (t.n > 0 && is_blank(t.s[0])) {
        t = (struct text){t.s + 1, t.n - 1};
    }
    while (t.n > 0 && is_blank(t.s[t.n - 1])) {
        t.n--;
    }
    return t;
}

static bool is_word(struct text t, const char *word)
{
    return t.n == strlen(word) && strncasecmp(t.s, word, t.n) == 0;
}

/* Whether a comma-separated list has the word. */
static bool has_word(struct text list, const char *word)
{
    bool found = false;
    while (list.n > 0) {
        const char *comma = memchr(list.s, ',', list.n);
        size_t n = comma ? (size_t)(comma - list.s) : list.n;
        found = found || is_word(trim((struct text){list.s, n}), word);
        list = (struct text){list.s + n + (comma != NULL), list.n - n - (comma != NULL)};
    }
    return found;
}

static bool take_length(struct http_answer *a, struct text value)
{
    uint64_t length = 0;
    for (size_t i = 0; i < value.n; i++) {
        if (value.s[i] < '0' || value.s[i] > '9' || i == MAX_DIGITS) {
            return false;
        }
        length = 10 * length + (uint64_t)(value.s[i] - '0');
    }
    if (value.n == 0 || (a->has_length && a->left != length)) {
        return false;
    }
    a->has_length = true;
    a->left = length;
    return true;
}

/* "HTTP/1.1 200 OK"; NULL or what is wrong. */
static const char *take_status_line(struct http_answer *a, struct text line)
{
    if (line.n < 12 || memcmp(line.s, "HTTP/1.", 7) != 0 || line.s[8] != ' ') {
        return "not an answer of HTTP/1.1";
    }
    int status = 0;
    for (int i = 9; i < 12; i++) {
        if (line.s[i] < '0' || line.s[i] > '9') {
            return "not an answer of HTTP/1.1";
        }
        status = 10 * status + (line.s[i] - '0');
    }
    if (status < 100 || status == 101 || (line.n > 12 && line.s[12] != ' ')) {
        return "a status that is none";
    }
    a->status = status;
    a->keeps_open = line.s[7] != '0';
    return NULL;
}

static const char *take_header(struct http_answer *a, struct text line)
{
    const char *colon = memchr(line.s, ':', line.n);
    if (is_blank(line.s[0])) {
        return NULL; // more of the line before, as once was allowed
    }
    if (!colon || colon == line.s) {
        return "a header without a name";
    }
    struct text name = {line.s, (size_t)(colon - line.s)};
    struct text value = trim((struct text){colon + 1, line.n - name.n - 1});
    if (is_word(name, "content-length")) {
        return take_length(a, value) ? NULL : "a content length that is none";
    }
    if (is_word(name, "transfer-encoding")) {
        a->is_chunked = is_word(value, "chunked"); // alone: we ask for no other
        return a->is_chunked || is_word(value, "identity") ? NULL : "an unknown transfer encoding";
    }
    if (is_word(name, "connection")) {
        a->keeps_open =
            has_word(value, "close") ? false : a->keeps_open || has_word(value, "keep-alive");
    } else if (is_word(name, "content-type")) {
        size_t n = value.n < sizeof a->type ? value.n : sizeof a->type - 1;
        memcpy(a->type, value.s, n);
        a->type[n] = '\0';
    }
    return NULL;
}

static void end_head(struct http_answer *a)
{
    if (a->status < 200) { // another head follows
        http_answer_begin(a);
        return;
    }
    bool is_empty = a->status == 204 || a->status == 304;
    if (!is_empty && a->is_chunked) {
        a->part = CHUNK_SIZE;
        a->left = 0;
        a->head_bytes = 0;
    } else if (is_empty || (a->has_length && a->left == 0)) {
        a->part = OVER;
    } else if (a->has_length) {
        a->part = BODY_OF_LENGTH;
    } else {
        a->part = BODY_TO_END;
        a->keeps_open = false;
    }
}

static enum http_answer_got take_line(struct http_answer *a, struct text line)
{
    const char *wrong = NULL;
    line.n -= line.n > 0 && line.s[line.n - 1] == '\r';
    if (a->part == STATUS_LINE) {
        wrong = take_status_line(a, line);
        a->part = HEADERS;
    } else if (line.n > 0 && a->part == HEADERS) {
        wrong = take_header(a, line);
    } else if (line.n == 0 && a->part == HEADERS) {
        end_head(a);
    } else if (line.n == 0) {
        a->part = OVER; // behind the trailer
    }
    return wrong ? bad(a, wrong) : HTTP_ANSWER_MORE;
}

/* One line of head or trailer, as far as it has come. */
static enum http_answer_got take_lines(struct http_answer *a, const char **at, const char *end)
{
    const char *lf = memchr(*at, '\n', (size_t)(end - *at));
    size_t n = (size_t)((lf ? lf : end) - *at);
    struct text line = {*at, n};
    *at += n + (lf != NULL);
    a->head_bytes += n;
    if (a->head_bytes > HTTP_ANSWER_MAX_HEAD_BYTES) {
        return bad(a, "headers that are too long");
    }
    if (!lf) {
        str_append(&a->line, line.s, n);
        return HTTP_ANSWER_MORE;
    }
    if (a->line.len == 0) {
        return take_line(a, line);
    }
    str_append(&a->line, line.s, n);
    struct str whole = a->line; // an interim answer's last line begins another answer
    enum http_answer_got got = take_line(a, (struct text){whole.data, whole.len});
    str_clear(&a->line);
    return got;
}

/* --- the body ---------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* From one chunk to the next as it mostly is, "\r\n1a\r\n" and all of it here, in one go. */
static bool take_bare_size(struct http_answer *a, const char **at, const char *end)
{
    const char *p = *at + 2;
    uint64_t left = 0;
    if (end - p < BARE_DIGITS + 2 || memcmp(*at, "\r\n", 2) != 0) {
        return false;
    }
    for (int i = 0, digit; i < BARE_DIGITS && (digit = hex_digit(*p)) >= 0; i++, p++) {
        left = left << 4 | (uint64_t)digit;
    }
    if (left == 0 || memcmp(p, "\r\n", 2) != 0) {
        return false;
    }
    a->left = left;
    a->part = BODY_OF_LENGTH;
    *at = p + 2;
    return true;
}

static enum http_answer_got take_size(struct http_answer *a, const char **at, const char *end)
{
    int digit = -1;
    while (*at < end && (digit = hex_digit(**at)) >= 0) {
        if (a->left >> (4 * (MAX_DIGITS - 1)) != 0) {
            return bad(a, "a chunk that is too long");
        }
        a->left = a->left << 4 | (uint64_t)digit;
        a->has_digits = true;
        ++*at;
    }
    if (*at < end) {
        if (!a->has_digits) {
            return bad(a, "a chunk without a size");
        }
        a->part = CHUNK_EXTENSION;
    }
    return HTTP_ANSWER_MORE;
}

/* What stands behind a chunk's size is passed over: blanks and extensions, to the end of the line. */
static enum http_answer_got take_extension(struct http_answer *a, const char **at, const char *end)
{
    const char *lf = memchr(*at, '\n', (size_t)(end - *at));
    size_t n = (size_t)((lf ? lf : end) - *at);
    *at += n + (lf != NULL);
    a->head_bytes += n;
    if (a->head_bytes > HTTP_ANSWER_MAX_HEAD_BYTES) {
        return bad(a, "chunk extensions that are too long");
    }
    if (lf) {
        a->part = a->left > 0 ? BODY_OF_LENGTH : TRAILER;
        a->head_bytes = 0;
        a->has_digits = false;
    }
    return HTTP_ANSWER_MORE;
}

static enum http_answer_got take_chunk_end(struct http_answer *a, const char **at)
{
    char c = *(*at)++;
    if (c == '\n') {
        a->part = CHUNK_SIZE;
    } else if (c != '\r') {
        return bad(a, "a chunk that does not end where it says");
    }
    return HTTP_ANSWER_MORE;
}

static enum http_answer_got take_body(struct http_answer *a, const char **at, const char *end,
                                      struct http_answer_span *span)
{
    size_t n = (size_t)(end - *at);
    if (a->part == BODY_OF_LENGTH) {
        n = n < a->left ? n : (size_t)a->left;
        a->left -= n;
        if (a->left == 0) {
            a->part = a->is_chunked ? CHUNK_END : OVER;
        }
    }
    *span = (struct http_answer_span){*at, n};
    *at += n;
    return HTTP_ANSWER_BODY;
}

enum http_answer_got http_answer_take(struct http_answer *a, const char **at, const char *end,
                                      struct http_answer_span *span)
{
    enum http_answer_got got = HTTP_ANSWER_MORE;
    while (got == HTTP_ANSWER_MORE && a->part != OVER && *at < end) {
        switch ((enum part)a->part) {
        case BODY_OF_LENGTH:
        case BODY_TO_END:
            return take_body(a, at, end, span);
        case CHUNK_SIZE:
            got = take_size(a, at, end);
            break;
        case CHUNK_EXTENSION:
            got = take_extension(a, at, end);
            break;
        case CHUNK_END:
            got = take_bare_size(a, at, end) ? HTTP_ANSWER_MORE : take_chunk_end(a, at);
            break;
        default:
            got = take_lines(a, at, end);
        }
    }
    return got == HTTP_ANSWER_MORE && a->part == OVER ? HTTP_ANSWER_OVER : got;
}

bool http_answer_ends_with_connection(const struct http_answer *a)
{
    return a->part == BODY_TO_END || a->part == OVER;
}
