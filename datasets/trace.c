#include "datasets/trace.h"

#include "core/clock.h"
#include "datasets/trace_line.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_T_NS (INT64_MAX / 4)

struct reader {
    const struct trace_input *in;
    bool has_blocks;
    struct trace_columns columns; // of a CSV
    int64_t first_ns, last_ns;    // of the lines so far
    struct entries entries;
    struct trace_request line;
};

/* --- requests --------------------------------------------------------------------------------- */

static enum entries_reason judge(const struct reader *r, int64_t since_ns)
{
    const struct opt_window *w = &r->in->cfg->window;
    const struct trace_input *in = r->in;
    int64_t n_in = in->in->is_forced ? lengths_shortest(in->in) : r->line.n_in;
    int64_t n_out = in->out->is_forced ? lengths_shortest(in->out) : r->line.n_out;
    if (since_ns < w->from_ns || (w->to_ns > 0 && since_ns >= w->to_ns)) {
        return ENTRIES_OUTSIDE_WINDOW;
    }
    if (n_in == 0 || n_out == 0) {
        return ENTRIES_ZERO_TOKENS;
    }
    return n_in + n_out > in->context ? ENTRIES_CONTEXT : ENTRIES_N_REASONS;
}

static int keep(struct reader *r, uint64_t index, int64_t t_ns, struct err *e)
{
    struct entries *s = &r->entries;
    struct entry entry = {
        .index = index,
        .t_ns = t_ns,
        .data_at = s->n_blocks,
        .turn_at = s->n_turns,
        .n_data = (uint32_t)r->line.n_blocks,
        .n_turns = 1,
    };
    struct turn turn = {.n_in = (uint32_t)r->line.n_in, .n_out = (uint32_t)r->line.n_out};
    for (size_t i = 0; i < r->line.n_blocks; i++) {
        if (entries_add_block(s, r->line.blocks[i], e) != 0) {
            return -1;
        }
    }
    return entries_add_turn(s, &turn, e) != 0 ? -1 : entries_add(s, &entry, e);
}

static int add_request(struct reader *r, struct err *e)
{
    struct entries *s = &r->entries;
    const struct dataset_config *cfg = r->in->cfg;
    uint64_t index = s->n_source++;
    int64_t since_ns = r->line.t_ns - r->first_ns;
    enum entries_reason reason = judge(r, since_ns);
    if (reason != ENTRIES_N_REASONS) {
        s->filtered[reason]++;
        return 0;
    }
    double scaled_ns = (double)(since_ns - cfg->window.from_ns) * cfg->time_scale;
    if (!(scaled_ns < (double)MAX_T_NS)) {
        return err_set(e, ERR_INPUT, "time_scale %g puts it too far away", cfg->time_scale);
    }
    return keep(r, index, llround(scaled_ns), e);
}

/* --- lines ------------------------------------------------------------------------------------ */

static int parse_line(struct reader *r, struct trace_span line, struct err *e)
{
    int rc = r->has_blocks ? trace_line_mooncake(line, &r->line, e)
                           : trace_line_csv(&r->columns, line, &r->line, e);
    if (rc != 0) {
        return -1;
    }
    if (r->entries.n_source == 0) {
        r->first_ns = r->last_ns = r->line.t_ns;
    }
    if (r->line.t_ns < r->last_ns) {
        return err_set(e, ERR_INPUT, "its time is before that of the line above (times must rise)");
    }
    r->last_ns = r->line.t_ns;
    return add_request(r, e);
}

/* The next line without its end. */
static bool next_line(const char **at, const char *end, struct trace_span *line)
{
    if (*at == end) {
        return false;
    }
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    const char *stop = newline != NULL ? newline : end;
    *line = (struct trace_span){*at, (size_t)(stop - *at)};
    if (line->len > 0 && line->s[line->len - 1] == '\r') {
        line->len--;
    }
    *at = newline != NULL ? newline + 1 : end;
    return true;
}

/* The end of the text without empty last lines. */
static const char *last_end(const char *text, size_t len)
{
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r')) {
        len--;
    }
    return text + len;
}

bool trace_has_blocks(const char *text, size_t len)
{
    return len > 0 && text[0] == '{';
}

static int parse_lines(struct reader *r, const char *text, size_t len, const char *where,
                       struct err *e)
{
    const char *at = text, *end = last_end(text, len);
    struct trace_span line = {text, 0};
    size_t n = 1;
    if (!r->has_blocks) {
        next_line(&at, end, &line);
        if (trace_line_header(&r->columns, line, e) != 0) {
            return err_wrap(e, "%s:1", where);
        }
        n++;
    }
    for (; next_line(&at, end, &line); n++) {
        if (parse_line(r, line, e) != 0) {
            return err_wrap(e, "%s:%zu", where, n);
        }
    }
    return 0;
}

int trace_parse(struct entries *out, const struct trace_input *in, const char *text, size_t len,
                const char *where, struct err *e)
{
    struct reader r = {.in = in, .has_blocks = trace_has_blocks(text, len)};
    int rc = parse_lines(&r, text, len, where, e);
    if (rc == 0) {
        rc = entries_check(&r.entries, where, "request", e);
    }
    free(r.line.blocks);
    if (rc != 0) {
        entries_free(&r.entries);
        return -1;
    }
    *out = r.entries;
    return 0;
}
