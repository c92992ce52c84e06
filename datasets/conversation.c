#include "datasets/conversation.h"

#include "core/json_text.h"
#include "datasets/ids_cache.h"
#include "datasets/sharegpt.h"

#include <string.h>

/* --- loading ---------------------------------------------------------------------------------- */

static int parse(void *arg, struct entries *out, struct err *e)
{
    struct source *s = arg;
    struct sharegpt_input in = {.cfg = &s->cfg,
                                .tok = s->tok,
                                .in = &s->in,
                                .out = &s->out,
                                .context = s->context,
                                .is_mapped = true};
    return sharegpt_parse(out, &in, s->file.data, s->file.len, s->cfg.source, e);
}

/* All that the entries of a file depend on, apart from the file. */
static struct ids_cache_key key_of(const struct source *s)
{
    return (struct ids_cache_key){
        .file_hash = s->file.hash,
        .file_len = s->file.len,
        .tokenizer_hash = tokenizer_hash(s->tok),
        .vocab = (uint32_t)tokenizer_vocab(s->tok),
        .filter = (uint32_t)s->cfg.filter,
        .turns = (uint32_t)s->cfg.turns,
        .context = s->context,
        .shortest_in = s->in.is_forced ? lengths_shortest(&s->in) : 0,
        .shortest_out = s->out.is_forced ? lengths_shortest(&s->out) : 0,
    };
}

int conversation_load(struct source *s, struct err *e)
{
    if (s->tok == NULL && !s->may_estimate) {
        return err_set(e, ERR_INPUT,
                       "load.dataset: %s has text, which needs a model folder with tokenizer.json",
                       s->cfg.source);
    }
    s->n_special = sharegpt_n_special(s->tok);
    if (s->tok == NULL || !s->cfg.use_cache) {
        return parse(s, &s->entries, e);
    }
    struct ids_cache_key key = key_of(s);
    return ids_cache_get(&s->entries, &key, parse, s, &s->was_cached, e);
}

/* --- events ----------------------------------------------------------------------------------- */

static const struct turn *turn_of(const struct source *s, const struct entry *entry, uint32_t turn)
{
    CHECK(turn < entry->n_turns);
    return &s->entries.turns[entry->turn_at + turn];
}

void conversation_get(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                      struct prompt *p)
{
    const struct entry *entry = source_shuffled(s, seed, i);
    const struct turn *t = turn_of(s, entry, turn);
    *p = (struct prompt){.entry = entry->index, .turn = turn, .n_turns = entry->n_turns};
    p->n_in = s->in.is_forced ? 0 : t->n_in;
    p->n_out = s->out.is_forced ? 0 : t->n_out;
    p->conversation = source_is_multi(s) ? i + 1 : 0;
    source_draw_lengths(s, seed, i, p);
}

/* n ids out of fewer: what stands behind the special ones again and again. */
static const int32_t *repeated(const int32_t *ids, uint32_t have, uint32_t n_special, uint32_t n,
                               int32_t *scratch)
{
    uint32_t head = have > n_special ? n_special : 0;
    for (uint32_t k = 0; k < n; k++) {
        scratch[k] = k < have ? ids[k] : ids[head + (k - head) % (have - head)];
    }
    return scratch;
}

const int32_t *conversation_ids(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn,
                                uint32_t n, int32_t *scratch)
{
    if (s->tok == NULL) {
        memset(scratch, 0, n * sizeof *scratch); // not known; the text is what is sent
        return scratch;
    }
    const struct entry *entry = source_shuffled(s, seed, i);
    const int32_t *ids = s->entries.ids.v + entry->data_at;
    uint32_t have = turn_of(s, entry, turn)->n_in;
    return n <= have ? ids : repeated(ids, have, s->n_special, n, scratch);
}

/* --- text ------------------------------------------------------------------------------------- */

static void put_messages(const struct source *s, const struct entry *entry, const struct turn *t,
                         struct prompt_text *out)
{
    const struct message *m = &s->entries.messages[entry->message_at];
    for (uint32_t k = 0; k < t->n_messages; k++) {
        str_append(&out->json, s->file.data + m[k].at, m[k].len);
        prompt_text_end(out, (enum prompt_role)m[k].role);
    }
}

/* Without a tokenizer: the text cut or repeated to SHAREGPT_BYTES_PER_TOKEN bytes a token. */
static void put_about(const struct source *s, const struct entry *entry, uint32_t n,
                      struct prompt_text *out)
{
    const struct message *m = &s->entries.messages[entry->message_at];
    size_t want = (size_t)n * SHAREGPT_BYTES_PER_TOKEN;
    while (want > 0) {
        size_t len = json_text_cut(s->file.data + m->at, m->len, want);
        str_append(&out->json, s->file.data + m->at, len);
        want = len < want && len == m->len ? want - len : 0;
    }
    prompt_text_end(out, (enum prompt_role)m->role);
}

void conversation_text(const struct source *s, uint64_t seed, uint64_t i, uint32_t turn, uint32_t n,
                       struct prompt_text *out)
{
    const struct entry *entry = source_shuffled(s, seed, i);
    const struct turn *t = turn_of(s, entry, turn);
    if (n == t->n_in) {
        put_messages(s, entry, t, out);
    } else if (s->tok == NULL) {
        put_about(s, entry, n, out);
    } else {
        const int32_t *ids = s->entries.ids.v + entry->data_at;
        str_clear(&out->plain);
        for (uint32_t have = 0; have < n;) { // repeated as its ids are
            uint32_t skip = have > 0 && t->n_in > s->n_special ? s->n_special : 0;
            uint32_t more = t->n_in - skip < n - have ? t->n_in - skip : n - have;
            tokenizer_decode(s->tok, ids + skip, more, have > 0, &out->plain);
            have += more;
        }
        json_text_escape(&out->json, out->plain.data, out->plain.len);
        prompt_text_end(out, PROMPT_USER);
    }
}

const char *conversation_note(const struct source *s)
{
    if (source_is_multi(s)) {
        return "each answered human turn is a request; its prompt is the conversation up to it, "
               "with the dataset's own replies";
    }
    if (s->cfg.filter == DATASET_FILTER_FIRST_TURN && !s->out.is_forced) {
        return "output lengths are drawn from the published ShareGPT table, independently of the "
               "prompt; those over the context are drawn again and counted";
    }
    return "prompt and output length of a request come from one conversation";
}
