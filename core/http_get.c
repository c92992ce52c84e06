#include "core/http_get.h"

#include "core/clock.h"
#include "core/http_curl.h"
#include "core/mem.h"

#include <curl/curl.h>
#include <stdlib.h>

#define MAX_BODY_BYTES (16u << 20)

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct str *body = arg;
    if (body->len + size * n > MAX_BODY_BYTES) {
        return CURL_WRITEFUNC_ERROR;
    }
    str_append(body, bytes, size * n);
    return size * n;
}

struct http_getter {
    CURL *easy;
    char message[CURL_ERROR_SIZE];
};

int http_get_open(struct http_getter **out, const struct http_settings *s,
                  struct http_headers *headers, struct err *e)
{
    if (http_curl_begin(e) != 0) {
        return -1;
    }
    struct http_getter *g = xcalloc(1, sizeof *g);
    g->easy = http_curl_easy(s);
    curl_easy_setopt(g->easy, CURLOPT_HTTPHEADER, headers ? headers->list : NULL);
    curl_easy_setopt(g->easy, CURLOPT_ERRORBUFFER, g->message);
    curl_easy_setopt(g->easy, CURLOPT_WRITEFUNCTION, on_body);
    *out = g;
    return 0;
}

int http_get_url(struct http_getter *g, const char *url, int64_t timeout_ns, int *status,
                 struct str *body, struct err *e)
{
    long response = 0;
    g->message[0] = '\0';
    curl_easy_setopt(g->easy, CURLOPT_URL, url);
    curl_easy_setopt(g->easy, CURLOPT_TIMEOUT_MS, (long)(timeout_ns / NS_PER_MS));
    curl_easy_setopt(g->easy, CURLOPT_WRITEDATA, body);
    CURLcode code = curl_easy_perform(g->easy);
    curl_easy_getinfo(g->easy, CURLINFO_RESPONSE_CODE, &response);
    *status = (int)response;
    if (code != CURLE_OK) {
        return err_set(e, ERR_ENV, "%s: %s", url,
                       g->message[0] ? g->message : curl_easy_strerror(code));
    }
    return 0;
}

void http_get_close(struct http_getter *g)
{
    if (g) {
        curl_easy_cleanup(g->easy);
        free(g);
    }
}

int http_get(const struct http_settings *s, const char *url, struct http_headers *headers,
             int64_t timeout_ns, int *status, struct str *body, struct err *e)
{
    struct http_getter *g;
    if (http_get_open(&g, s, headers, e) != 0) {
        return -1;
    }
    int rc = http_get_url(g, url, timeout_ns, status, body, e);
    http_get_close(g);
    return rc;
}
