#include "core/http_reply.h"

static const struct {
    int status;
    const char *reason;
} reasons[] = {
    {200, "OK"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {413, "Content Too Large"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {505, "HTTP Version Not Supported"},
};

const char *http_reply_reason(int status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == status) {
            return reasons[i].reason;
        }
    }
    return "Unknown";
}

void http_reply_put_head(struct str *out, const struct http_reply_head *h)
{
    str_printf(out, "HTTP/1.1 %d %s\r\nServer: tidemark\r\nContent-Type: %s\r\n", h->status,
               http_reply_reason(h->status), h->type);
    if (h->framing == HTTP_REPLY_CHUNKED) {
        str_puts(out, "Transfer-Encoding: chunked\r\n");
    } else if (h->framing == HTTP_REPLY_LENGTH) {
        str_printf(out, "Content-Length: %zu\r\n", h->length);
    }
    if (!h->keep_alive || h->framing == HTTP_REPLY_TO_CLOSE) {
        str_puts(out, "Connection: close\r\n");
    }
    str_printf(out, "%s\r\n", h->more ? h->more : "");
}

void http_reply_put(struct str *out, int status, const char *type, bool keep_alive,
                    const char *more, const void *body, size_t n)
{
    const struct http_reply_head h = {
        .status = status,
        .type = type,
        .framing = HTTP_REPLY_LENGTH,
        .length = n,
        .keep_alive = keep_alive,
        .more = more,
    };
    http_reply_put_head(out, &h);
    str_append(out, body, n);
}

void http_reply_put_chunk(struct str *out, const void *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    char size[18];
    size_t at = sizeof size;
    size[--at] = '\n';
    size[--at] = '\r';
    for (size_t v = n; v; v >>= 4) {
        size[--at] = digits[v & 15];
    }
    str_append(out, size + at, sizeof size - at);
    str_append(out, bytes, n);
    str_append(out, "\r\n", 2);
}
