#include "workers/edges_plan.h"

#include "core/clock.h"
#include "core/err.h"

#define MIN_MESSAGES 3
#define MAX_MESSAGES 1000
#define MAX_SIZE_NS  (200 * NS_PER_MS) // longer does not make a figure better

int edges_plan_rounds(int n_ranks)
{
    return n_ranks % 2 == 0 ? n_ranks - 1 : n_ranks;
}

/* The circle: the last of an even number stays, the others turn by one place a round. */
int edges_plan_partner(int n_ranks, int round, int rank)
{
    const int n = n_ranks + n_ranks % 2,
              turning = n - 1; // an odd number gets one that is not there
    int partner;
    CHECK(round >= 0 && round < turning && rank >= 0 && rank < n_ranks);
    if (rank == n - 1) {
        // Who would meet itself: 2 x partner = round (mod turning), turning being odd.
        partner = round % 2 == 0 ? round / 2 : (round + turning) / 2;
    } else {
        partner = (round - rank + turning) % turning;
        partner = partner == rank ? n - 1 : partner;
    }
    return partner < n_ranks ? partner : -1;
}

int edges_plan_sizes(size_t max_bytes, size_t *sizes)
{
    int n = 0;
    for (size_t bytes = EDGES_PLAN_MIN_BYTES; bytes < max_bytes && n < EDGES_PLAN_MAX_SIZES - 1;
         bytes *= EDGES_PLAN_FACTOR) {
        sizes[n++] = bytes;
    }
    sizes[n++] = max_bytes;
    return n;
}

int64_t edges_plan_turn_ns(int64_t left_ns, int n_rounds_left)
{
    CHECK(n_rounds_left > 0);
    return left_ns > 0 ? left_ns / n_rounds_left / 2 : 0;
}

int edges_plan_messages(double message_ns, int64_t left_ns, int n_sizes_left, bool is_first)
{
    CHECK(n_sizes_left > 0);
    // Half of an even share, but for the last size: larger ones take longer.
    double share_ns = (double)(left_ns > 0 ? left_ns : 0) / (2 * n_sizes_left - 1);
    share_ns = share_ns < MAX_SIZE_NS ? share_ns : MAX_SIZE_NS;
    message_ns = message_ns > 1 ? message_ns : 1;
    const double n = share_ns / message_ns;
    if (n >= MIN_MESSAGES) {
        return n < MAX_MESSAGES ? (int)n : MAX_MESSAGES;
    }
    // A few large ones may take the shares of sizes that are then left out.
    return is_first || MIN_MESSAGES * message_ns <= (double)left_ns ? MIN_MESSAGES : 0;
}
