#include "loadgen/endpoint.h"

#include "core/clock.h"
#include "core/mem.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define KEY_MAX_BYTES 65536

#define ROW(key_, type_, def_, lo_, hi_, help_, field_)                                            \
    .key = (key_), .type = (type_), .def = (def_), .lo = (double)(lo_), .hi = (double)(hi_),       \
    .help = (help_), .offset = offsetof(struct endpoint_config, field_)

static const struct opt rows[] = {
    {ROW("target.url", OPT_STRINGS, NULL, 0, 0,
         "openai: where the API is, up to and with /v1; several: requests are spread over them",
         urls)},
    {ROW("target.url_weights", OPT_NUMBERS, NULL, 1e-6, 1e6,
         "openai: how much of the load each URL gets; empty: alike", url_weights)},
    {ROW("target.api", OPT_CHOICE, "chat", 0, 0, "openai: chat/completions or completions", api),
     .choices = "chat|completions"},
    {ROW("target.stream", OPT_BOOL, "true", 0, 0, "openai: answers as server-sent events", stream)},
    {ROW("target.usage", OPT_CHOICE, "final", 0, 0,
         "openai: token counts of the server in the last event, in every event, or not asked for",
         usage),
     .choices = "final|continuous|none"},
    {ROW("target.prompt", OPT_CHOICE, "text", 0, 0,
         "openai: prompts as text, or as token ids (completions only)", prompt),
     .choices = "text|ids"},
    {ROW("target.http", OPT_CHOICE, "auto", 0, 0,
         "openai: HTTP version; auto: 1.1, and what the server prefers over TLS", http),
     .choices = "auto|1.1|2"},
    {ROW("target.api_key_env", OPT_STRING, NULL, 0, 0,
         "openai: environment variable that holds the API key", api_key_env)},
    {ROW("target.api_key_file", OPT_STRING, NULL, 0, 0, "openai: file that holds the API key",
         api_key_file)},
    {ROW("target.headers", OPT_STRINGS, NULL, 0, 0,
         "openai: more headers, \"Name: value\"; ${VAR} in a value is the environment's", headers)},
    {ROW("target.insecure", OPT_BOOL, "false", 0, 0, "openai: any certificate will do", insecure)},
    {ROW("target.ca_file", OPT_STRING, NULL, 0, 0,
         "openai: PEM file of certificates to trust; none: the system's", ca_file)},
    {ROW("target.cert_file", OPT_STRING, NULL, 0, 0, "openai: PEM file of the client's certificate",
         cert_file)},
    {ROW("target.key_file", OPT_STRING, NULL, 0, 0, "openai: PEM file of its key", key_file)},
    {ROW(
        "target.proxy", OPT_STRING, NULL, 0, 0,
        "openai: proxy to go through, a password in it as ${VAR}; none: none, whatever the environment says",
        proxy)},
    {ROW("target.tokenizer", OPT_STRING, NULL, 0, 0,
         "openai: folder with the model's tokenizer.json, to count tokens with", tokenizer)},
    {ROW("target.context", OPT_INT, "0", 0, 1 << 24,
         "openai: tokens of prompt and output together; 0: as the server says, else 32768",
         context)},
    {ROW("target.min_tokens", OPT_BOOL, "true", 0, 0,
         "openai: with load.ignore_eos, also send min_tokens", min_tokens)},
    {ROW("target.max_tokens_key", OPT_CHOICE, "max_tokens", 0, 0,
         "openai: what the bound of an output is called", max_tokens_key),
     .choices = "max_tokens|max_completion_tokens"},
    {ROW("target.temperature", OPT_NUMBER, "0", 0, 10,
         "openai, stages: sampling temperature; 0: the likeliest token each time", temperature)},
    {ROW("target.top_p", OPT_NUMBER, "1", 1e-6, 1,
         "openai, stages: only the likeliest tokens that make up this share", top_p)},
    {ROW("target.top_k", OPT_INT, "0", 0, 1 << 24,
         "openai, stages: only so many of the likeliest tokens; 0: all", top_k)},
    {ROW("target.min_p", OPT_NUMBER, "0", 0, 1,
         "openai, stages: only tokens this likely beside the likeliest", min_p)},
    {ROW("target.seed", OPT_INT, "1", 0, 0, "stages: the draws of all requests follow from it",
         seed)},
    {ROW("target.extra_body", OPT_STRING, NULL, 0, 0,
         "openai: JSON object to merge into every request; its keys win, null drops one",
         extra_body)},
    {ROW("target.local_addresses", OPT_STRINGS, NULL, 0, 0,
         "openai: addresses to connect from, in turn, where ports run short", local_addresses)},
    {ROW("target.connects", OPT_NUMBER, "0", 0, 1e6,
         "openai: most new connections per second and load rank; 0: as many as it takes",
         connects_rps)},
    {ROW("target.connect_timeout", OPT_DURATION, "30s", 1e6, 3600e9, "openai: for a connection",
         connect_timeout_ns)},
    {ROW("target.first_timeout", OPT_DURATION, "10m", 1e6, 86400e9,
         "openai: from sending to the first token", first_timeout_ns)},
    {ROW("target.timeout", OPT_DURATION, "1h", 1e6, 86400e9, "openai: from sending to the end",
         total_timeout_ns)},
    {ROW("target.check", OPT_BOOL, "true", 0, 0,
         "openai: ask the server for its models before the run", check)},
    {ROW("target.metrics", OPT_STRING, "auto", 0, 0,
         "openai: URL of its Prometheus metrics; auto: /metrics of the first URL; none", metrics)},
    {ROW("target.metrics_rate", OPT_NUMBER, "2", 1, 10, "openai: looks at the metrics per second",
         metrics_hz)},
    {ROW("target.server", OPT_STRING, NULL, 0, 0, "openai: name of the server; none: as it says",
         server)},
    {ROW("target.server_version", OPT_STRING, NULL, 0, 0, "openai: its version; none: as it says",
         server_version)},
    {ROW("target.instance", OPT_STRING, NULL, 0, 0,
         "openai: type of the machine that it runs on, a label; cost.instance has the price",
         instance)},
    {ROW("target.accelerator", OPT_STRING, NULL, 0, 0, "openai: what computes there", accelerator)},
    {ROW("target.accelerators", OPT_INT, "0", 0, 1 << 20, "openai: how many of them; 0: not said",
         accelerators)},
};

const struct opt_table endpoint_options = {rows, sizeof rows / sizeof rows[0]};

/* --- checks -------------------------------------------------------------------------------------- */

static int check_url(const char *url, struct err *e)
{
    const char *host = strstr(url, "://");
    bool is_http = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
    if (!is_http || !host || host[3] == '\0' || host[3] == '/') {
        return err_set(e, ERR_INPUT, "target.url: %.100s (http://HOST[:PORT]/v1 or https://...)",
                       url);
    }
    size_t n_authority = strcspn(host + 3, "/?#");
    if (memchr(host + 3, '@', n_authority)) {
        return err_set(e, ERR_INPUT, "target.url: has a password in it (use target.api_key_env)");
    }
    if (strpbrk(url, " \t\r\n?#")) {
        return err_set(e, ERR_INPUT, "target.url: %.100s (no spaces, no ? and no #)", url);
    }
    return 0;
}

/* Whether a header of this name is likely to hold a secret. */
static bool is_secret_name(const char *name, size_t len)
{
    static const char *const words[] = {"auth", "key", "token", "secret", "cookie", "password"};
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
        size_t n = strlen(words[w]);
        for (size_t i = 0; i + n <= len; i++) {
            if (strncasecmp(name + i, words[w], n) == 0) {
                return true;
            }
        }
    }
    return false;
}

static int check_header(const char *line, struct err *e)
{
    const char *colon = strchr(line, ':');
    size_t len = colon ? (size_t)(colon - line) : 0;
    if (len == 0 || strcspn(line, " \t") < len || strpbrk(line, "\r\n")) {
        return err_set(e, ERR_INPUT, "target.headers: %.60s (\"Name: value\" is the form)",
                       colon ? line : "no colon");
    }
    if (is_secret_name(line, len) && !strstr(colon, "${")) {
        return err_set(
            e, ERR_INPUT,
            "target.headers: %.*s: a secret has no place in a config; write ${VAR} and set "
            "VAR in the environment",
            (int)len, line);
    }
    return 0;
}

static int check_extra_body(const char *text, struct err *e)
{
    json_error_t why;
    json_t *extra = json_loads(text, 0, &why);
    if (!json_is_object(extra)) {
        json_decref(extra);
        return err_set(e, ERR_INPUT, "target.extra_body: not a JSON object (%s)",
                       extra ? "another value" : why.text);
    }
    static const char *const ours[] = {"prompt", "messages", "stream"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        if (json_object_get(extra, ours[i])) {
            json_decref(extra);
            return err_set(e, ERR_INPUT, "target.extra_body: may not have \"%s\"", ours[i]);
        }
    }
    json_decref(extra);
    return 0;
}

/* Length of "USER[:PASSWORD]" of "[SCHEME://][USER[:PASSWORD]@]HOST...", from *user on; 0: none. */
static size_t user_of(const char *url, const char **user)
{
    const char *scheme = strstr(url, "://");
    *user = scheme ? scheme + 3 : url;
    const char *at = memrchr(*user, '@', strcspn(*user, "/?#"));
    return at ? (size_t)(at - *user) : 0;
}

int endpoint_check_secrets(const struct endpoint_config *c, struct err *e)
{
    const char *user;
    if (user_of(c->metrics, &user) > 0) {
        return err_set(e, ERR_INPUT, "target.metrics: has a password in it");
    }
    size_t n = c->proxy ? user_of(c->proxy, &user) : 0;
    const char *colon = n > 0 ? memchr(user, ':', n) : NULL, *secret = colon ? colon : user;
    return n == 0 || memmem(secret, n - (size_t)(secret - user), "${", 2)
               ? 0
               : err_set(e, ERR_INPUT,
                         "target.proxy: has a password in it (write ${VAR}@HOST and set VAR in the "
                         "environment)");
}

int endpoint_check(const struct endpoint_config *c, struct err *e)
{
    if (c->urls.n == 0) {
        return err_set(e, ERR_INPUT, "target.url: missing (http://HOST[:PORT]/v1)");
    }
    for (size_t i = 0; i < c->urls.n; i++) {
        if (check_url(c->urls.v[i], e) != 0) {
            return -1;
        }
    }
    if (c->url_weights.n > 0 && c->url_weights.n != c->urls.n) {
        return err_set(e, ERR_INPUT, "target.url_weights: %zu for %zu URLs", c->url_weights.n,
                       c->urls.n);
    }
    for (size_t i = 0; i < c->urls.n && c->http == HTTP_2 && !http_has_h2c(); i++) {
        if (strncmp(c->urls.v[i], "http://", 7) == 0) {
            return err_set(e, ERR_INPUT,
                           "target.http: 2 on http:// needs libcurl 8.0 (this is %.20s)",
                           http_library());
        }
    }
    if (c->prompt == ENDPOINT_IDS && (c->api != ENDPOINT_COMPLETIONS || !c->tokenizer)) {
        return err_set(e, ERR_INPUT,
                       "target.prompt: ids needs target.api=completions and target.tokenizer");
    }
    if (c->api_key_env && c->api_key_file) {
        return err_set(e, ERR_INPUT, "target.api_key_env, target.api_key_file: both (one of them)");
    }
    if (c->key_file && !c->cert_file) {
        return err_set(e, ERR_INPUT, "target.key_file: needs target.cert_file");
    }
    for (size_t i = 0; i < c->headers.n; i++) {
        if (check_header(c->headers.v[i], e) != 0) {
            return -1;
        }
    }
    return c->extra_body ? check_extra_body(c->extra_body, e) : 0;
}

/* --- secrets --------------------------------------------------------------------------------------- */

static int key_of_environment(const char *name, char **key, struct err *e)
{
    const char *value = getenv(name);
    size_t len = value ? strcspn(value, "\r\n") : 0;
    if (len == 0) {
        return err_set(e, ERR_INPUT, "target.api_key_env: %s is not set in the environment", name);
    }
    *key = xasprintf("%.*s", (int)len, value);
    return 0;
}

/* The first line. */
static int key_of_file(const char *path, char **key, struct err *e)
{
    struct str text = {0};
    if (str_read_file(&text, path, KEY_MAX_BYTES, e) != 0) {
        return err_wrap(e, "target.api_key_file");
    }
    size_t len = text.len > 0 ? strcspn(text.data, "\r\n") : 0;
    if (len == 0) {
        err_set(e, ERR_INPUT, "target.api_key_file: %s: its first line is empty (the key)", path);
    } else {
        *key = xasprintf("%.*s", (int)len, text.data);
    }
    str_free(&text);
    return len > 0 ? 0 : -1;
}

static void add_secret(struct endpoint *p, const char *value)
{
    if (strlen(value) >= ENDPOINT_SECRET_BYTES) {
        p->secrets = xrealloc(p->secrets, (p->n_secrets + 1) * sizeof *p->secrets);
        p->secrets[p->n_secrets++] = xstrdup(value);
    }
}

static int read_key(struct endpoint *p, struct err *e)
{
    const struct endpoint_config *c = p->cfg;
    if ((c->api_key_env && key_of_environment(c->api_key_env, &p->key, e) != 0) ||
        (c->api_key_file && key_of_file(c->api_key_file, &p->key, e) != 0)) {
        return -1;
    }
    if (p->key) {
        add_secret(p, p->key);
    }
    return 0;
}

/* A line of `key`, "Name: ${VAR}", with the environment's value in the variable's place. */
static int expand(struct endpoint *p, const char *key, const char *line, struct str *out,
                  struct err *e)
{
    while (*line) {
        const char *end = strncmp(line, "${", 2) == 0 ? strchr(line, '}') : NULL;
        if (!end) {
            str_append(out, line++, 1);
            continue;
        }
        char *name = xasprintf("%.*s", (int)(end - line - 2), line + 2);
        const char *value = getenv(name);
        if (!value || strpbrk(value, "\r\n")) {
            err_set(e, ERR_INPUT, "%s: %.60s is %s", key, name,
                    value ? "more than one line" : "not set in the environment");
            free(name);
            return -1;
        }
        str_puts(out, value);
        add_secret(p, value);
        free(name);
        line = end + 1;
    }
    return 0;
}

static int make_headers(struct endpoint *p, struct err *e)
{
    const struct opt_strings *more = &p->cfg->headers;
    const char **lines = xcalloc(more->n + 4, sizeof *lines);
    struct str *expanded = xcalloc(more->n + 1, sizeof *expanded);
    char *authorization = p->key ? xasprintf("Authorization: Bearer %s", p->key) : NULL;
    size_t n = 0;
    int rc = 0;
    lines[n++] = "Content-Type: application/json";
    lines[n++] = "Expect:"; // never wait for a 100 before the body
    if (authorization) {
        lines[n++] = authorization;
    }
    for (size_t i = 0; i < more->n && rc == 0; i++) {
        rc = expand(p, "target.headers", more->v[i], &expanded[i], e);
        lines[n++] = expanded[i].data;
    }
    if (rc == 0) {
        p->headers = http_headers_create(lines, n);
    }
    for (size_t i = 0; i < more->n; i++) {
        str_free(&expanded[i]);
    }
    free(authorization);
    free(expanded);
    free(lines);
    return rc;
}

/* Files that libcurl would open at the first connection. */
static int check_files(const struct endpoint_config *c, struct err *e)
{
    const char *const files[][2] = {{"target.ca_file", c->ca_file},
                                    {"target.cert_file", c->cert_file},
                                    {"target.key_file", c->key_file}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (files[i][1] && access(files[i][1], R_OK) != 0) {
            return err_set(e, ERR_INPUT, "%s: %s: %s", files[i][0], files[i][1], strerror(errno));
        }
    }
    return 0;
}

/* --- opening --------------------------------------------------------------------------------------- */

static void make_urls(struct endpoint *p)
{
    const struct endpoint_config *c = p->cfg;
    double sum = 0.0, before = 0.0;
    p->urls = xcalloc(c->urls.n, sizeof *p->urls);
    p->shares = xcalloc(c->urls.n, sizeof *p->shares);
    for (size_t i = 0; i < c->urls.n; i++) {
        p->urls[i] = endpoint_sibling(
            p, i, c->api == ENDPOINT_CHAT ? "/chat/completions" : "/completions", false);
        sum += c->url_weights.n > 0 ? c->url_weights.v[i] : 1.0;
    }
    for (size_t i = 0; i < c->urls.n; i++) {
        before += c->url_weights.n > 0 ? c->url_weights.v[i] : 1.0;
        p->shares[i] = before / sum;
    }
}

int endpoint_open(struct endpoint *p, const struct endpoint_config *c, struct err *e)
{
    *p = (struct endpoint){.cfg = c};
    p->http = (struct http_settings){
        .version = (enum http_version)c->http,
        .insecure = c->insecure,
        .ca_file = c->ca_file,
        .cert_file = c->cert_file,
        .key_file = c->key_file,
        .user_agent = "tidemark",
        .local_addresses = c->local_addresses.v,
        .n_local_addresses = c->local_addresses.n,
        .connect_timeout_ns = c->connect_timeout_ns,
        .connects_rps = c->connects_rps,
    };
    if (check_files(c, e) != 0 || read_key(p, e) != 0 || make_headers(p, e) != 0 ||
        (c->proxy && expand(p, "target.proxy", c->proxy, &p->proxy, e) != 0)) {
        endpoint_close(p);
        return -1;
    }
    p->http.proxy = p->proxy.data;
    make_urls(p);
    return 0;
}

void endpoint_close(struct endpoint *p)
{
    for (size_t i = 0; p->urls && i < p->cfg->urls.n; i++) {
        free(p->urls[i]);
    }
    http_headers_free(p->headers);
    free(p->urls);
    free(p->shares);
    for (size_t i = 0; i < p->n_secrets; i++) {
        free(p->secrets[i]);
    }
    free(p->secrets);
    free(p->key);
    str_free(&p->proxy);
    *p = (struct endpoint){0};
}

size_t endpoint_pick(const struct endpoint *p, double u)
{
    size_t i = 0;
    while (i + 1 < p->cfg->urls.n && u >= p->shares[i]) {
        i++;
    }
    return i;
}

char *endpoint_sibling(const struct endpoint *p, size_t i, const char *path, bool from_root)
{
    const char *url = p->cfg->urls.v[i];
    size_t len = strlen(url);
    if (from_root) {
        const char *host = strstr(url, "://") + 3;
        len = (size_t)(host - url) + strcspn(host, "/");
    }
    while (len > 0 && url[len - 1] == '/') {
        len--;
    }
    return xasprintf("%.*s%s", (int)len, url, path);
}

/* Bytes of the longest secret that text begins with; 0: of none. */
static size_t secret_len(const struct endpoint *p, const char *text, size_t len)
{
    size_t longest = 0;
    for (size_t i = 0; i < p->n_secrets; i++) {
        size_t n = strlen(p->secrets[i]);
        if (n > longest && n <= len && memcmp(text, p->secrets[i], n) == 0) {
            longest = n;
        }
    }
    return longest;
}

void endpoint_quote(const struct endpoint *p, const char *text, size_t len, size_t max_bytes,
                    struct str *out)
{
    size_t end = out->len + max_bytes;
    for (size_t i = 0; i < len && out->len < end;) {
        size_t secret = secret_len(p, text + i, len - i);
        if (secret > 0) {
            str_puts(out, "***");
            i += secret;
            continue;
        }
        char c = iscntrl((unsigned char)text[i]) ? ' ' : text[i];
        bool again = c == ' ' && out->len > 0 && out->data[out->len - 1] == ' ';
        str_append(out, &c, again ? 0 : 1);
        i++;
    }
}
