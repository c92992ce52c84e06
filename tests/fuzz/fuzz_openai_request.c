/*
 * Any bytes as the body of a request; the first byte chooses the endpoint. What is taken is within
 * its bounds, what is refused leaves one line and nothing to free.
 */
#include "core/err.h"
#include "workers/openai_request.h"
#include "workers/sampler.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct openai_request r;
    struct err e = {0};
    if (size == 0) {
        return 0;
    }
    if (openai_request_parse(&r, (data[0] & 1) != 0, (const char *)data + 1, size - 1, &e)) {
        CHECK(e.code == ERR_INPUT && e.msg[0] && !strchr(e.msg, '\n') && !r.model);
        return 0;
    }
    CHECK(r.model && r.prompt_tokens >= 0 && r.max_tokens >= 0 && r.min_tokens >= 0);
    CHECK(r.max_tokens == 0 || r.min_tokens <= r.max_tokens);
    CHECK(sampler_check(&r.sampling, ERR_INPUT, &e) == 0);
    CHECK(r.chat ? r.messages != NULL : r.prompt != NULL);
    for (size_t i = 0; i < r.stops.n; i++) {
        CHECK(r.stops.texts[i][0] && strlen(r.stops.texts[i]) <= STOPS_MAX_BYTES);
    }
    openai_request_free(&r);
    return 0;
}
