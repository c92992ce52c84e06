/* The host's list of which tile meets which part of its context. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/attention.h"

#include <map>
#include <set>

static uint32_t draw(uint32_t least, uint32_t most)
{
    return std::uniform_int_distribution<uint32_t>(least, most)(device_random());
}

struct seen {
    std::vector<attention_item> items;
    attention_merge merge = {};
};

/* Each token of the batch has parts that follow each other from its window's edge to itself. */
static void expect_covered(const attention_row &r, uint32_t token, int window, const seen &s)
{
    const uint32_t pos = r.pos + token - r.token, w = (uint32_t)window;
    const uint32_t first = w > 0 && pos + 1 > w ? pos + 1 - w : 0;
    assert_true(!s.items.empty() && s.items[0].from <= first);
    for (size_t i = 0; i < s.items.size(); i++) {
        const attention_item &item = s.items[i];
        assert_int_equal(item.row, r.row);
        assert_int_equal(item.pos - r.pos, item.token - r.token);
        assert_true(item.from % CACHE_BLOCK == 0 && item.from < item.to);
        assert_true(i == 0 || item.from == s.items[i - 1].to);
        const uint32_t partial = item.partial + (token - item.token) * item.partial_step;
        if (s.items.size() == 1) {
            assert_int_equal(item.partial, ATTENTION_WHOLE);
        } else {
            assert_int_equal(partial, s.merge.first + i);
        }
    }
    assert_true(s.items.back().to > pos);
    assert_int_equal(s.merge.n, s.items.size() > 1 ? s.items.size() : 0);
}

static void collect(std::map<uint32_t, seen> &tokens, const attention_item *items, uint32_t n,
                    const attention_tile &tile)
{
    for (uint32_t i = 0; i < n; i++) {
        assert_true(items[i].n_tokens >= 1 && (int)items[i].n_tokens <= tile.tokens);
        for (uint32_t t = 0; t < items[i].n_tokens; t++) {
            tokens[items[i].token + t].items.push_back(items[i]);
        }
    }
}

static std::vector<attention_row> random_rows(uint32_t n)
{
    std::vector<attention_row> rows;
    uint32_t token = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t n_tokens = draw(0, 3) ? 1 : draw(1, 600);
        const uint32_t pos = draw(0, 1) ? draw(0, 50) : draw(0, 140000);
        rows.push_back({token, n_tokens, pos, draw(0, 1000)});
        token += n_tokens;
    }
    return rows;
}

static void check(const attention_shape &s, int window)
{
    const std::vector<attention_row> rows = random_rows(draw(1, 80));
    const uint32_t n = (uint32_t)rows.size(), n_tokens = rows.back().token + rows.back().n_tokens;
    attention_limits l;
    attention_work_limits(&l, &s, n, n_tokens);
    std::vector<uint32_t> memory(l.bytes / 4 + 1, 0xcccccccc);
    attention_work w;
    attention_work_fill(&w, memory.data(), &l, &s, window, rows.data(), n);
    assert_true(w.n_small <= l.max_small && w.n_large <= l.max_large && w.n_merges <= l.max_merges);
    std::map<uint32_t, seen> tokens;
    collect(tokens, w.small, w.n_small, attention_work_small(&s));
    collect(tokens, w.large, w.n_large, attention_work_large(&s));
    std::set<uint32_t> partials;
    for (uint32_t i = 0; i < w.n_merges; i++) {
        tokens[w.merges[i].token].merge = w.merges[i];
        for (uint32_t j = 0; j < w.merges[i].n; j++) {
            assert_true(w.merges[i].first + j < l.max_partials);
            assert_true(partials.insert(w.merges[i].first + j).second);
        }
    }
    assert_int_equal(tokens.size(), n_tokens);
    for (const attention_row &r : rows) {
        for (uint32_t t = 0; t < r.n_tokens; t++) {
            expect_covered(r, r.token + t, window, tokens[r.token + t]);
        }
    }
    attention_work_pad(&w, l.max_small, l.max_large, l.max_merges);
    assert_true(memory.back() == 0xcccccccc);
}

static attention_shape shape_of(arch_dtype dtype, int n_heads, int n_kv_heads, int key_dim, int value_dim, bool shared)
{
    attention_shape s = {};
    cache_layout_init(&s.layout, dtype, key_dim, value_dim, n_kv_heads, shared);
    s.n_heads = n_heads, s.n_sms = 132;
    return s;
}

static void each_token_meets_its_context_once(void **state)
{
    (void)state;
    const attention_shape shapes[] = {
        shape_of(ARCH_BF16, 32, 8, 128, 128, false),  shape_of(ARCH_FP8, 28, 4, 128, 128, false),
        shape_of(ARCH_BF16, 16, 8, 256, 256, false),  shape_of(ARCH_INT8, 64, 8, 64, 64, false),
        shape_of(ARCH_BF16, 128, 1, 576, 512, true),  shape_of(ARCH_BF16, 16, 1, 576, 512, true),
        shape_of(ARCH_F32, 32, 8, 128, 128, false),   shape_of(ARCH_F32, 128, 1, 576, 512, true),
        shape_of(ARCH_BF16, 100, 1, 64, 64, false),   shape_of(ARCH_BF16, 17, 17, 64, 64, false),
    };
    for (const attention_shape &s : shapes) {
        for (int window : {0, 0, 1, 128, 4096}) {
            check(s, window);
        }
    }
}

/* One long context among short ones is cut up; a batch that fills the device by itself is not. */
static void parts_where_they_are_needed(void **state)
{
    (void)state;
    const attention_shape s = shape_of(ARCH_BF16, 32, 8, 128, 128, false);
    std::vector<attention_row> rows;
    for (uint32_t i = 0; i < 128; i++) {
        rows.push_back({i, 1, 1000, i});
    }
    attention_limits l;
    attention_work_limits(&l, &s, 128, 128);
    std::vector<char> memory(l.bytes);
    attention_work w;
    attention_work_fill(&w, memory.data(), &l, &s, 0, rows.data(), 128);
    assert_int_equal(w.n_small, 128);
    assert_int_equal(w.n_merges, 0);
    attention_work_fill(&w, memory.data(), &l, &s, 0, rows.data(), 1);
    assert_int_equal(w.n_small, 6); // parts of at least 128 positions, in steps of 64: 192
    rows[5].pos = 100000;
    attention_work_fill(&w, memory.data(), &l, &s, 0, rows.data(), 128);
    assert_int_equal(w.n_merges, 1);
    assert_true(w.n_small > 128 + 20);
    attention_work_fill(&w, memory.data(), &l, &s, 128, rows.data(), 128); // in a window it is like others
    assert_int_equal(w.n_merges, 0);
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(each_token_meets_its_context_once),
        cmocka_unit_test(parts_where_they_are_needed),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
