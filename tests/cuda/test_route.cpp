/* Routing on the device against workers/router.c, and the sorting of slots against a plain one. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/route.h"

extern "C" {
#include "workers/router.h"
}

#include <algorithm>

static struct arch softmax_arch(int n_experts, int top_k)
{
    struct arch a = {};
    a.moe.n_experts = n_experts, a.moe.top_k = top_k, a.moe.router = ARCH_ROUTER_SOFTMAX;
    return a;
}

static struct arch groups_arch(int n_experts, int top_k, int n_groups, int top_groups, bool normalise)
{
    struct arch a = softmax_arch(n_experts, top_k);
    a.moe.router = ARCH_ROUTER_GROUPS;
    a.moe.n_groups = n_groups, a.moe.top_groups = top_groups, a.moe.normalise = normalise, a.moe.scale = 2.5f;
    return a;
}

/* What an expert is chosen by. */
static double choice_of(const struct arch *a, float logit, float correction)
{
    return a->moe.router == ARCH_ROUTER_GROUPS ? 1 / (1 + exp(-(double)logit)) + correction : logit;
}

/* Choices within a rounding of each other may change places; how many of a token's did. */
static size_t check_experts(const struct arch *a, const int32_t *got, const int *want, const float *logits,
                            const float *correction)
{
    std::vector<int32_t> g(got, got + a->moe.top_k), w(want, want + a->moe.top_k), more, less;
    assert_true(std::is_sorted(g.begin(), g.end()) && std::adjacent_find(g.begin(), g.end()) == g.end());
    assert_in_range(g.back(), 0, a->moe.n_experts - 1);
    std::set_difference(g.begin(), g.end(), w.begin(), w.end(), std::back_inserter(more));
    std::set_difference(w.begin(), w.end(), g.begin(), g.end(), std::back_inserter(less));
    for (size_t i = 0; i < more.size(); i++) {
        expect_near(choice_of(a, logits[more[i]], correction[more[i]]),
                    choice_of(a, logits[less[i]], correction[less[i]]), 2e-7);
    }
    return more.size();
}

struct routed {
    struct arch a;
    size_t n, n_experts, top_k;
    device_array<float> logits, correction, weights;
    device_array<int32_t> experts, drawn;

    routed(const struct arch &a_, int n_)
        : a(a_), n((size_t)n_), n_experts((size_t)a.moe.n_experts), top_k((size_t)a.moe.top_k),
          logits(n * n_experts), correction(n_experts), weights(n * top_k, NAN), experts(n * top_k, -1),
          drawn(n * top_k)
    {
        logits.draw(-4, 4), correction.draw(-0.1f, 0.1f);
    }

    void run(const struct moe_routing *how)
    {
        route_tokens r = {};
        r.n = (int)n, r.n_experts = a.moe.n_experts, r.top_k = a.moe.top_k, r.router = a.moe.router;
        r.n_groups = a.moe.n_groups, r.top_groups = a.moe.top_groups;
        r.normalise = a.moe.normalise, r.scale = a.moe.scale;
        r.logits = logits.device(), r.correction = correction.device();
        r.drawn = how->kind == ROUTER_MODEL ? nullptr : drawn.device();
        r.experts = experts.device(), r.weights = weights.device();
        route_queue(&r, nullptr);
        device_finish();
        experts.fetch(), weights.fetch();
    }
};

static struct router_place place_of(size_t token)
{
    struct router_place place = {};
    place.layer = 3, place.token = (int32_t)(7 * token), place.pos = (uint32_t)token;
    return place;
}

/* How many choices changed places. */
static size_t check(routed &t, struct moe_routing how)
{
    std::vector<int> want(t.n * t.top_k);
    std::vector<float> weights(t.n * t.top_k);
    for (size_t i = 0; i < t.n; i++) {
        const struct router_place place = place_of(i);
        router_choose(&t.a, &how, &t.logits.host[i * t.n_experts], t.correction.host.data(), &place,
                      &want[i * t.top_k], &weights[i * t.top_k]);
        std::copy_n(want.begin() + (long)(i * t.top_k), t.top_k, t.drawn.host.begin() + (long)(i * t.top_k));
    }
    t.run(&how);
    size_t n_moved = 0;
    for (size_t i = 0; i < t.n; i++) {
        const size_t at = i * t.top_k;
        const size_t moved = check_experts(&t.a, &t.experts.host[at], &want[at],
                                           &t.logits.host[i * t.n_experts], t.correction.host.data());
        for (size_t k = 0; k < t.top_k && moved == 0; k++) {
            // exp may be off by a unit in the last place, top_k of them are added
            expect_near(t.weights.host[at + k], weights[at + k], 5e-7 * fabs(weights[at + k]));
        }
        n_moved += moved;
    }
    return n_moved;
}

static const struct moe_routing model_routing = {ROUTER_MODEL, 0};

static void largest_logits(void **state)
{
    (void)state;
    const int forms[][2] = {{1, 1}, {2, 1}, {8, 2}, {31, 31}, {32, 4}, {33, 4}, {128, 4},
                            {200, 64}, {256, 8}, {257, 6}, {1000, 10}, {1024, 64}};
    for (const auto &form : forms) {
        routed t(softmax_arch(form[0], form[1]), 37);
        assert_int_equal(check(t, model_routing), 0); // of logits as they are
    }
}

static void groups_of_experts(void **state)
{
    (void)state;
    const int forms[][4] = {{8, 2, 1, 1},    {8, 3, 4, 2},   {64, 6, 8, 3},   {256, 8, 8, 4},
                            {96, 5, 96, 20}, {384, 8, 1, 1}, {1024, 64, 512, 100}};
    size_t n_moved = 0;
    for (const auto &form : forms) {
        routed t(groups_arch(form[0], form[1], form[2], form[3], true), 41);
        n_moved += check(t, model_routing);
        routed u(groups_arch(form[0], form[1], form[2], form[3], false), 3);
        u.correction.draw(-3, -2); // zeros of groups left out are above all choices
        n_moved += check(u, model_routing);
    }
    assert_in_range(n_moved, 0, 1); // a rounding of exp seldom decides
}

static void equals_and_extremes(void **state)
{
    (void)state;
    routed t(softmax_arch(70, 5), 6);
    for (float &v : t.logits.host) {
        v = (float)(int)(2 * v);
    }
    std::fill_n(t.logits.host.begin(), 70, 0.0f);
    t.logits.host[3] = -0.0f, t.logits.host[0] = -1;
    std::fill_n(t.logits.host.begin() + 70, 70, -INFINITY);
    std::fill_n(t.logits.host.begin() + 73, 5, 80.0f); // what is left has no weight, and a sum
    t.logits.host[140] = 3e38f, t.logits.host[141] = -3e38f;
    assert_int_equal(check(t, model_routing), 0);
    routed g(groups_arch(64, 6, 8, 3, true), 5);
    std::fill(g.logits.host.begin(), g.logits.host.end(), 1.0f);
    std::fill(g.correction.host.begin(), g.correction.host.end(), 0.5f);
    for (size_t i = 64; i < 128; i++) {
        g.logits.host[i] = i % 2 ? 120.0f : -120.0f;
    }
    assert_int_equal(check(g, model_routing), 0);
}

static void not_numbers_stay_in_range(void **state)
{
    (void)state;
    routed t(groups_arch(256, 8, 8, 4, true), 5);
    std::fill_n(t.logits.host.begin(), 2 * 256, NAN);
    routed s(softmax_arch(100, 9), 3);
    std::fill_n(s.logits.host.begin(), 95, NAN);
    for (routed *r : {&t, &s}) {
        r->run(&model_routing);
        for (size_t i = 0; i < r->experts.host.size(); i++) {
            assert_in_range(r->experts.host[i], 0, r->n_experts - 1);
            assert_true(i % r->top_k == 0 || r->experts.host[i] > r->experts.host[i - 1]);
        }
    }
    assert_int_equal(s.experts.host[8], 99); // five numbers go before
    assert_int_equal(s.experts.host[4], 95);
}

static void drawn_experts(void **state)
{
    (void)state;
    routed t(softmax_arch(128, 4), 19), u(groups_arch(256, 8, 8, 4, true), 19);
    assert_int_equal(check(t, {ROUTER_UNIFORM, 0}) + check(u, {ROUTER_ZIPF, 1.1}), 0);
}

/* --- sorting ---------------------------------------------------------------------------------------- */

static void check_sort(int n, int n_experts, int most)
{
    device_array<int32_t> experts((size_t)n + 1), first((size_t)n_experts + 1, -1), sorted((size_t)n + 1, -1);
    device_array<int32_t> of_sorted((size_t)n + 1, -1), place((size_t)n + 1, -1);
    for (int32_t &x : experts.host) {
        x = (int32_t)(device_random()() % (uint64_t)most);
    }
    route_slots s = {n, n_experts, experts.device(), first.device(), sorted.device(), of_sorted.device(),
                     place.device()};
    route_sort_queue(&s, nullptr);
    device_finish();
    first.fetch(), sorted.fetch(), of_sorted.fetch(), place.fetch();
    std::vector<int32_t> want;
    for (int x = 0; x < n_experts; x++) {
        assert_int_equal(first.host[(size_t)x], want.size());
        for (int i = 0; i < n; i++) {
            if (experts.host[(size_t)i] == x) {
                assert_int_equal(place.host[(size_t)i], want.size());
                assert_int_equal(of_sorted.host[want.size()], x);
                want.push_back(i);
            }
        }
    }
    assert_int_equal(first.host[(size_t)n_experts], n);
    assert_true(std::equal(want.begin(), want.end(), sorted.host.begin()));
    assert_int_equal(sorted.host[(size_t)n], -1);
}

static void slots_by_expert(void **state)
{
    (void)state;
    for (int n : {0, 1, 2, 31, 32, 33, 512, 513, 2000}) {
        check_sort(n, 8, 8);
        check_sort(n, 33, 4); // some have none
    }
    check_sort(8 * 64, 256, 256);
    check_sort(17000, 5, 5);
    check_sort(100, 1024, 1024);
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(largest_logits),
        cmocka_unit_test(groups_of_experts),
        cmocka_unit_test(equals_and_extremes),
        cmocka_unit_test(not_numbers_stay_in_range),
        cmocka_unit_test(drawn_experts),
        cmocka_unit_test(slots_by_expert),
    };
    return device_test_run(tests, nullptr, nullptr);
}
