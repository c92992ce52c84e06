/* The greedy choice on the device against plain C. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/head.h"

extern "C" {
#include "workers/batch.h"
}

#include <algorithm>

struct head {
    int n, vocab;
    device_array<float> logits, capped;
    device_array<head_found> parts, found;

    head(int n_, int vocab_)
        : n(n_), vocab(vocab_), logits((size_t)n * (size_t)vocab),
          capped((size_t)n * (size_t)vocab, NAN), parts((size_t)n * HEAD_PARTS), found((size_t)n)
    {
        logits.draw(-30, 30);
    }

    float *row(int i) { return &logits.host[(size_t)i * (size_t)vocab]; }

    void run(float softcap, int32_t first, bool wants_rows, bool in_place = false)
    {
        head_rows h = {};
        h.n = n, h.vocab = vocab, h.first = first, h.softcap = softcap, h.logits = logits.device();
        h.capped = in_place ? logits.device() : wants_rows ? capped.device() : nullptr;
        h.parts = parts.device(), h.found = found.device();
        head_queue(&h, nullptr);
        device_finish();
        found.fetch(), capped.fetch();
        if (in_place) {
            capped.host = logits.host;
            logits.fetch();
            std::swap(capped.host, logits.host);
        }
    }
};

static void check(int n, int vocab, float softcap, bool in_place)
{
    head h(n, vocab);
    h.run(softcap, 1000, true, in_place);
    for (int i = 0; i < n; i++) {
        const float *row = h.row(i), *capped = &h.capped.host[(size_t)i * (size_t)vocab];
        for (int k = 0; k < vocab; k++) {
            const double want = softcap > 0 ? softcap * tanh((double)row[k] / softcap) : row[k];
            expect_near(capped[k], want, softcap > 0 ? 4e-7 * fabs(want) + 1e-7 : 0); // float32's tanh
        }
        const int best = (int)(std::max_element(capped, capped + vocab) - capped); // the first of equals
        assert_int_equal(h.found.host[(size_t)i].id, 1000 + best);
        expect_near(h.found.host[(size_t)i].value, capped[best], 0);
    }
}

static void the_largest_of_each_row(void **state)
{
    (void)state;
    for (int vocab : {1, 2, 3, 4, 255, 1000, 1001, 1024, 8192, 32768 + 4, 50257}) {
        check(1, vocab, 0, false);
        check(3, vocab, 30, false); // where many reach the cap, equals are many
    }
    check(2, 3000, 30, true);
    check(2, 3001, 0, true);
}

static void the_lowest_of_equals(void **state)
{
    (void)state;
    head h(4, 40000);
    std::fill(h.logits.host.begin(), h.logits.host.end(), 1.5f);
    h.row(1)[39999] = 2, h.row(1)[1234] = 2;
    std::fill_n(h.row(2), 40000, -3e38f);
    std::fill_n(h.row(3), 40000, -0.0f), h.row(3)[20] = 0;
    h.run(0, 0, false);
    assert_int_equal(h.found.host[0].id, 0);
    assert_int_equal(h.found.host[1].id, 1234);
    assert_int_equal(h.found.host[2].id, 0);
    assert_int_equal(h.found.host[3].id, 0);
}

static void logits_that_are_not_finite(void **state)
{
    (void)state;
    const float wrong[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int vocab : {1, 5, 12000}) {
        head h(6, vocab);
        for (int i = 0; i < 4; i++) {
            h.row(i)[device_random()() % (uint64_t)vocab] = wrong[i];
        }
        std::fill_n(h.row(4), vocab, -INFINITY);
        h.run(0, 3, false);
        for (size_t i = 0; i < 5; i++) {
            assert_int_equal(h.found.host[i].id, BATCH_NOT_FINITE);
            assert_true(h.found.host[i].value == INFINITY);
        }
        assert_in_range(h.found.host[5].id, 3, 3 + vocab - 1);
        h.run(30, 3, true); // an infinity is at the cap; what is no number stays none
        assert_int_equal(h.found.host[0].id, BATCH_NOT_FINITE);
        assert_int_equal(h.found.host[1].id, BATCH_NOT_FINITE);
        assert_true(h.found.host[2].value == 30);
        assert_in_range(h.found.host[3].id, 3, 3 + vocab - 1);
    }
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_of_each_row),
        cmocka_unit_test(the_lowest_of_equals),
        cmocka_unit_test(logits_that_are_not_finite),
    };
    return device_test_run(tests, nullptr, nullptr);
}
