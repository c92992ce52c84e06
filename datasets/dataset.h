/*
 * What requests contain. A dataset answers one question: what is turn t of event i of a step? The
 * answer is a pure function of (seed, i, t), so every rank can compute every event. It is put
 * together from
 *
 *   sources        one, or several by weight (source.h): the published ShareGPT length table,
 *                  conversations, traces
 *   lengths        as the source says, or forced (lengths.h)
 *   a front        preamble and prefix groups (front.h)
 *   repeats        a share of events asks exactly what an earlier one asked
 *
 * What does not fit the context is filtered when the dataset is opened (or redrawn, where lengths are
 * drawn) and counted, never cut. Immutable once open: any thread may ask.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/opt.h"
#include "datasets/dataset_options.h"
#include "datasets/prompt_text.h"
#include "model/tokenizer.h"

/* What prompts are made for. */
struct dataset_model {
    const struct tokenizer *tok; // NULL: only vocab and context are known; outlives the dataset
    int vocab;                   // bounds drawn ids
    int context;                 // bounds n_in + n_out
    bool may_estimate;           // without a tokenizer, a text is taken to have a token per 4 bytes
};

/* One request: what is asked, at one turn of its conversation. */
struct prompt {
    uint32_t n_in, n_out;
    uint64_t entry;         // index in the source; in the 16 high bits which source of a mix
    uint32_t redrawn;       // draws that did not fit before this one
    uint32_t turn, n_turns; // of its conversation; 0 of 1 where there is none
    uint64_t conversation;  // 0: none
    int64_t think_ns;       // after a user's last reply, before this turn
};

struct dataset_stats { // of one length over the kept requests (or 100,000 draws)
    uint64_t n;
    double min, median, mean, p90, p99, max;
};

struct dataset;

/*
 * ERR_INPUT: missing file, not JSON, a bad line by number, text without a tokenizer (unless lengths
 * may be estimated), nothing left after filtering (with the counts).
 */
int dataset_open(struct dataset **out, const struct dataset_config *cfg,
                 const struct dataset_model *model, struct err *e) ERR_CHECKED;
void dataset_close(struct dataset *d);

/*
 * Turn `turn` of event i under this seed, turn < n_turns (turn 0 tells n_turns): conversations are
 * walked in a seeded order without repetition until exhausted, then in another; traces in order of
 * time under every seed.
 */
void dataset_get(const struct dataset *d, uint64_t seed, uint64_t i, uint32_t turn,
                 struct prompt *p);

/*
 * The token ids (p->n_in) of what dataset_get said of event i: the dataset's own, or `scratch`
 * (p->n_in) filled. The ids of a turn are a prefix of those of the next. No allocation.
 */
const int32_t *dataset_ids(const struct dataset *d, uint64_t seed, uint64_t i,
                           const struct prompt *p, int32_t *scratch);

/*
 * The same prompt as text. Ids and text say the same words; where the ids are not known (no
 * tokenizer), n_in is about the text's length in tokens. Reuses out's memory: once that is large
 * enough, nothing is allocated.
 */
void dataset_text(const struct dataset *d, uint64_t seed, uint64_t i, const struct prompt *p,
                  struct prompt_text *out);

/*
 * Traces: number of arrivals and the time of each since the window's start, scaled. 0 / bug
 * otherwise (also in a mix).
 */
uint64_t dataset_n_arrivals(const struct dataset *d);
int64_t dataset_arrival_ns(const struct dataset *d, uint64_t i);

/* Whether some text's tokens were not counted but estimated: its ids are not known then. */
bool dataset_is_estimated(const struct dataset *d);

/*
 * How many events show all there is: every entry once, for a sampler 10,000. What one seed's events
 * have in common is measured over these (reuse.h).
 */
uint64_t dataset_n_typical(const struct dataset *d);

/* For the result file and `dataset stats`. New reference: {source, kind, filter, hash, entries,
 * filtered{reason: count}, estimated, input_tokens{min,median,mean,p90,p99,max}, output_tokens{..},
 * note}; of a mix the same for each in `sources`. */
struct json_t *dataset_describe(const struct dataset *d);
void dataset_lengths(const struct dataset *d, struct dataset_stats *in, struct dataset_stats *out);
