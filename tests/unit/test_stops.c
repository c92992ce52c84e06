#include "model/stops.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "core/rng.h"

/* Push `text` in pieces of at most `piece` bytes, or of random ones (0); what is shown must be `want`. */
static void check(const struct stops *s, const char *text, size_t piece, uint64_t seed,
                  const char *want, int hit)
{
    struct stops_stream t = {0};
    struct str shown = {0};
    bool ended = false;
    const size_t n = strlen(text);
    for (size_t at = 0, k = 0; at < n; k++) {
        size_t most = piece ? piece : 1 + rng_below(5, seed, RNG_SHUFFLE, k, 0);
        size_t len = n - at < most ? n - at : most;
        ended = stops_push(s, &t, text + at, len, &shown);
        at += len;
        // Never more than what is shown in the end, so no part of a stop text either.
        assert_true(shown.len <= strlen(want));
    }
    if (!ended) {
        stops_finish(&t, &shown);
    }
    assert_string_equal(shown.data ? shown.data : "", want);
    assert_int_equal(t.hit, hit);
    assert_int_equal(ended, hit > 0);
    stops_stream_free(&t);
    str_free(&shown);
}

static void test_cases(void **state)
{
    (void)state;
    static const struct {
        struct stops stops;
        const char *text, *want;
        int hit;
    } cases[] = {
        {{{0}, 0}, "all of it", "all of it", 0},
        {{{"END"}, 1}, "text END more", "text ", 1},
        {{{"END"}, 1}, "EN", "EN", 0},
        {{{"END"}, 1}, "ENEND", "EN", 1},
        {{{"END"}, 1}, "END", "", 1},
        {{{"aab"}, 1}, "aaaab", "aa", 1},
        {{{"abab", "abac"}, 2}, "ababac", "", 1},
        {{{"abad", "abac"}, 2}, "xabababac", "xabab", 2},
        {{{"bcd", "c"}, 2}, "abcd", "ab", 2}, // the shorter one is complete first
        {{{"cd", "bcd"}, 2}, "abcd", "a", 2}, // both at once: the longer one
        {{{"\n\n"}, 1}, "one\ntwo\n\nthree", "one\ntwo", 1},
        {{{"\xc3\xa9"}, 1}, "caf\xc3\xa8 \xc3\xa9t\xc3\xa9", "caf\xc3\xa8 ", 1},
        {{{"a", "b", "c", "d"}, 4}, "xyzd", "xyz", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t piece = 0; piece < 12; piece++) {
            check(&cases[i].stops, cases[i].text, piece, i, cases[i].want, cases[i].hit);
        }
    }
}

/* Random texts of few letters: however they are cut, the same is shown. */
static void test_pieces(void **state)
{
    (void)state;
    uint32_t n_hits = 0;
    for (uint64_t seed = 0; seed < 3000; seed++) {
        char text[40], texts[STOPS_MAX][5];
        struct stops s = {.n = 1 + rng_below(STOPS_MAX, seed, RNG_TOKENS, 0, 0)};
        for (size_t i = 0; i < s.n; i++) {
            size_t n = 2 + rng_below(3, seed, RNG_TOKENS, 1, i);
            for (size_t k = 0; k < n; k++) {
                texts[i][k] = "abc"[rng_below(3, seed, RNG_TOKENS, 2 + i, k)];
            }
            texts[i][n] = '\0';
            s.texts[i] = texts[i];
        }
        size_t n = 1 + rng_below(sizeof text - 1, seed, RNG_TOKENS, 10, 0);
        for (size_t k = 0; k < n; k++) {
            text[k] = "abc"[rng_below(3, seed, RNG_TOKENS, 11, k)];
        }
        text[n] = '\0';
        struct stops_stream t = {0};
        struct str whole = {0};
        if (!stops_push(&s, &t, text, n, &whole)) {
            stops_finish(&t, &whole);
        }
        n_hits += t.hit > 0;
        const char *want = whole.data ? whole.data : "";
        for (size_t i = 0; i < s.n; i++) {
            assert_null(strstr(want, s.texts[i]));
        }
        check(&s, text, 1, seed, want, t.hit);
        check(&s, text, 0, seed, want, t.hit);
        stops_stream_free(&t);
        str_free(&whole);
    }
    assert_true(n_hits > 500 && n_hits < 2990);
}

static void test_nothing_is_shown_after_the_end(void **state)
{
    (void)state;
    const struct stops s = {{"."}, 1};
    struct stops_stream t = {0};
    struct str shown = {0};
    assert_true(stops_push(&s, &t, "one. two", 8, &shown));
    assert_true(stops_push(&s, &t, " three", 6, &shown));
    assert_string_equal(shown.data, "one");
    stops_stream_free(&t);
    str_free(&shown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_nothing_is_shown_after_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
