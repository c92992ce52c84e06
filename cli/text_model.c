#include "cli/text_model.h"

#include <stdlib.h>
#include <unistd.h>

#include "core/mem.h"
#include "workers/weights/maker.h"

static bool is_endpoint(const struct run_config *c)
{
    return c->target.kind == TARGET_OPENAI;
}

static bool has_file(const char *folder, const char *name)
{
    char *path = xasprintf("%s/%s", folder, name);
    bool is_there = access(path, F_OK) == 0;
    free(path);
    return is_there;
}

/* A simulated model may be a config.json and nothing else; what was made of a preset has no words. */
static bool may_lack_tokenizer(const struct run_config *c, const char *folder)
{
    bool is_sim = c->target.kind == TARGET_STAGES && c->target.backend == TARGET_BACKEND_SIM;
    return (is_sim || has_file(folder, MAKER_FILE)) && !has_file(folder, "tokenizer.json");
}

static bool has_tokenizer(const struct run_config *c)
{
    const char *model = c->target.model;
    return is_endpoint(c)          ? c->endpoint.tokenizer != NULL
           : arch_is_folder(model) ? !may_lack_tokenizer(c, model)
                                   : tokenizer_is_there(model);
}

int text_model_open(const struct run_config *c, struct arch *a, struct err *e)
{
    if (!is_endpoint(c)) {
        return arch_open(c->target.model, a, e);
    }
    int64_t context = c->endpoint.context > 0 ? c->endpoint.context : ENDPOINT_CONTEXT;
    *a = (struct arch){.vocab = TOKENIZER_MAX_VOCAB, .max_context = (int)context};
    return 0;
}

int text_model_tokenizer(const struct run_config *c, struct arch *a, struct tokenizer **out,
                         struct err *e)
{
    *out = NULL;
    if (!has_tokenizer(c)) {
        return 0;
    }
    if (tokenizer_open(out, is_endpoint(c) ? c->endpoint.tokenizer : c->target.model, a->vocab,
                       e)) {
        return -1;
    }
    if (is_endpoint(c)) {
        a->vocab = tokenizer_vocab(*out);
    }
    return 0;
}

struct dataset_model text_model_dataset(const struct run_config *c, const struct arch *a,
                                        const struct tokenizer *tok)
{
    return (struct dataset_model){
        .tok = tok,
        .vocab = a->vocab,
        .context = a->max_context,
        .may_estimate = is_endpoint(c),
    };
}
