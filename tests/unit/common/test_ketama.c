/* The ring by itself; tests/e2e/test_ketama.py holds it against libmemcached for many pools. */
#include <check.h>

#include "common/ketama.h"
#include "tests/unit/check_main.h"

static struct ketama *ring_of(const struct ketama_node *nodes, uint32_t count)
{
    struct ketama *ring;
    ck_assert_int_eq(ketama_create(nodes, count, &ring), OK);
    return ring;
}

static uint32_t pick_number(const struct ketama *ring, const char *fmt, unsigned number)
{
    char key[64];
    int len = snprintf(key, sizeof key, fmt, number);
    return ketama_pick(ring, span_of(key, (size_t)len));
}

static const struct ketama_node three[] = {{"10.0.0.1", 11211, 1}, {"10.0.0.2", 11211, 1}, {"10.0.0.3", 11211, 1}};
static const struct ketama_node mixed[] = {
    {"cache-a.example", 11311, 1}, {"cache-b.example", 11211, 2}, {"/run/memcached.sock", 0, 3}, {"::1", 11212, 10}};

/* What memcached_generate_hash() of libmemcached 1.1.4 answered for key:0 to key:47, and for 250 times x. */
START_TEST(known_vectors)
{
    static const struct {
        const struct ketama_node *nodes;
        uint32_t count;
        const char *expected;
        uint32_t expected_long;
    } cases[] = {
        {three, ARRAY_LEN(three), "110210001011112120012100220200120200222010002021", 0},
        {mixed, ARRAY_LEN(mixed), "020333331331232323323133331333223333323333231333", 2},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ketama *ring = ring_of(cases[i].nodes, cases[i].count);
        for (unsigned k = 0; cases[i].expected[k] != '\0'; k++) {
            ck_assert_uint_eq(pick_number(ring, "key:%u", k), (uint32_t)(cases[i].expected[k] - '0'));
        }
        char key[250];
        memset(key, 'x', sizeof key);
        ck_assert_uint_eq(ketama_pick(ring, span_of(key, sizeof key)), cases[i].expected_long);
        ketama_destroy(&ring);
        ck_assert_ptr_null(ring);
    }
}
END_TEST

/* 25 equal nodes have 156 points each, not 160: 1/25 * 160 / 4 * 25 is a little less than 40 in floats. Letters are nodes. */
START_TEST(rounding_as_in_libmemcached)
{
    static const char expected[] = "NKKQPYKMGAGXKOKLOGSIYLUICKLEJAHCIKGTFQFAMXHTJADBILWPUEKLBUIUHEUDHQMXHPGNWKBONDIS"
                                   "HFTLMESNHMEDHQTWXTDNGEIMCMNXLBOJMLFNIYAORHOGMPHUQYPGSOFPONGTPBTCNTGXEJTKXDSUVHHG"
                                   "UPYRAWNJQVMGWQWSOWJCSVVMJMRPFEYPNKWMKTEIFRIOKOVWCIXCPGRWVGFNOYOFWJCQUULXWGFELYJG";
    struct ketama_node nodes[25];
    char hosts[25][32];
    for (uint32_t i = 0; i < 25; i++) {
        snprintf(hosts[i], sizeof hosts[i], "10.0.0.%u", i + 1);
        nodes[i] = (struct ketama_node){hosts[i], 11211, 1};
    }
    struct ketama *ring = ring_of(nodes, 25);
    for (unsigned k = 0; expected[k] != '\0'; k++) {
        ck_assert_uint_eq(pick_number(ring, "key:%u", k), (uint32_t)(expected[k] - 'A'));
    }
    static const unsigned behind_the_last[] = {2720, 3076, 7274, 12980}; /* that point is node 24's, the first is node 16's */
    for (size_t i = 0; i < ARRAY_LEN(behind_the_last); i++) {
        ck_assert_uint_eq(pick_number(ring, "key:%u", behind_the_last[i]), 16);
    }
    ketama_destroy(&ring);
}
END_TEST

/* A key that hashes to the very value of a point belongs to that point: a node's labels are such keys. */
START_TEST(on_a_point)
{
    struct ketama *ring = ring_of(three, ARRAY_LEN(three));
    for (unsigned i = 0; i < 40; i++) {
        ck_assert_uint_eq(pick_number(ring, "10.0.0.1-%u", i), 0);
        ck_assert_uint_eq(pick_number(ring, "10.0.0.2-%u", i), 1);
        ck_assert_uint_eq(pick_number(ring, "10.0.0.3-%u", i), 2);
    }
    ketama_destroy(&ring);
}
END_TEST

START_TEST(one_node)
{
    const struct ketama_node node = {"10.0.0.1", 11211, 7};
    struct ketama *ring = ring_of(&node, 1);
    for (unsigned i = 0; i < 1000; i++) {
        ck_assert_uint_eq(pick_number(ring, "k%u", i), 0);
    }
    ck_assert_uint_eq(ketama_pick(ring, span_of("", 0)), 0);
    ketama_destroy(&ring);
}
END_TEST

START_TEST(even_distribution)
{
    enum { NODES = 10, KEYS = 200000 };
    struct ketama_node nodes[NODES];
    char hosts[NODES][32];
    unsigned found[NODES] = {0};
    for (uint32_t i = 0; i < NODES; i++) {
        snprintf(hosts[i], sizeof hosts[i], "10.0.0.%u", i + 1);
        nodes[i] = (struct ketama_node){hosts[i], 11211, 5};
    }
    struct ketama *ring = ring_of(nodes, NODES);
    for (unsigned i = 0; i < KEYS; i++) {
        found[pick_number(ring, "user:%u", i)]++;
    }
    for (uint32_t i = 0; i < NODES; i++) { /* 160 points each: the share's standard deviation is some 8 % */
        ck_assert_uint_gt(found[i], KEYS / NODES * 3 / 4);
        ck_assert_uint_lt(found[i], KEYS / NODES * 5 / 4);
    }
    ketama_destroy(&ring);
}
END_TEST

START_TEST(weights)
{
    enum { KEYS = 200000 };
    const struct ketama_node nodes[] = {{"10.0.0.1", 11211, 1}, {"10.0.0.2", 11211, 2}, {"10.0.0.3", 11211, 5}};
    unsigned found[3] = {0};
    struct ketama *ring = ring_of(nodes, 3);
    for (unsigned i = 0; i < KEYS; i++) {
        found[pick_number(ring, "user:%u", i)]++;
    }
    for (uint32_t i = 0; i < 3; i++) {
        double share = (double)found[i] / KEYS * 8 / nodes[i].weight;
        ck_assert_msg(share > 0.75 && share < 1.25, "node %u: %.2f of its share", i, share);
    }
    ketama_destroy(&ring);
}
END_TEST

/* A node more takes keys, and moves none between the others. */
START_TEST(a_node_more)
{
    const struct ketama_node nodes[] = {{"a", 11211, 1}, {"b", 11211, 1}, {"c", 11211, 1}, {"d", 11211, 1}};
    struct ketama *before = ring_of(nodes, 2);
    struct ketama *after = ring_of(nodes, 4);
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t now = pick_number(after, "k%u", i);
        ck_assert(now >= 2 || now == pick_number(before, "k%u", i));
    }
    ketama_destroy(&before);
    ketama_destroy(&after);
}
END_TEST

START_TEST(fingerprints)
{
    struct ketama_node nodes[] = {{"a", 11211, 1}, {"b", 11211, 1}, {"c", 11311, 2}};
    struct ketama *ring = ring_of(nodes, 3);
    uint64_t first = ketama_fingerprint(ring);
    ketama_destroy(&ring);
    ring = ring_of(nodes, 3);
    ck_assert_uint_eq(ketama_fingerprint(ring), first);
    ketama_destroy(&ring);
    const struct ketama_node others[][3] = {
        {{"a", 11211, 2}, {"b", 11211, 1}, {"c", 11311, 2}}, /* weight */
        {{"a", 11212, 1}, {"b", 11211, 1}, {"c", 11311, 2}}, /* port */
        {{"x", 11211, 1}, {"b", 11211, 1}, {"c", 11311, 2}}, /* host */
        {{"b", 11211, 1}, {"a", 11211, 1}, {"c", 11311, 2}}, /* order */
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        ring = ring_of(others[i], 3);
        ck_assert_uint_ne(ketama_fingerprint(ring), first);
        ketama_destroy(&ring);
    }
    ring = ring_of(nodes, 2);
    ck_assert_uint_ne(ketama_fingerprint(ring), first);
    ketama_destroy(&ring);
    const struct ketama_node scaled[] = {{"a", 11211, 10}, {"b", 11211, 10}, {"c", 11311, 20}}; /* the same shares */
    ring = ring_of(scaled, 3);
    ck_assert_uint_eq(ketama_fingerprint(ring), first);
    ketama_destroy(&ring);
}
END_TEST

START_TEST(refused)
{
    char host[1200];
    memset(host, 'h', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    const struct ketama_node no_weight[] = {{"a", 1, 1}, {"b", 1, 0}};
    const struct ketama_node too_long[] = {{"a", 1, 1}, {host, 1, 1}};
    struct ketama *ring = (struct ketama *)(void *)host;
    ck_assert_int_eq(ketama_create(NULL, 0, &ring), ERR_INVALID);
    ck_assert_ptr_null(ring);
    ck_assert_int_eq(ketama_create(no_weight, 2, &ring), ERR_INVALID);
    ck_assert_int_eq(ketama_create(too_long, 2, &ring), ERR_INVALID);
    ck_assert_ptr_null(ring);
    ketama_destroy(&ring); /* of nothing */
}
END_TEST

/* Most weight there can be: no overflow, and a node too light for a point gets no key. */
START_TEST(extremes)
{
    const struct ketama_node nodes[] = {{"a", 11211, UINT32_MAX}, {"b", 11211, UINT32_MAX}, {"c", 11211, 1}};
    struct ketama *ring = ring_of(nodes, 3);
    unsigned found[3] = {0};
    for (unsigned i = 0; i < 10000; i++) {
        found[pick_number(ring, "%u", i)]++;
    }
    ck_assert_uint_gt(found[0], 3000);
    ck_assert_uint_gt(found[1], 3000);
    ck_assert_uint_eq(found[2], 0);
    ketama_destroy(&ring);
}
END_TEST

START_TEST(many_at_once_are_the_same_as_one_by_one)
{
    struct ketama_node nodes[] = {{"10.0.0.1", 11211, 1}, {"10.0.0.2", 11211, 3}, {"10.0.0.3", 11212, 2}};
    struct ketama *many = NULL;
    ck_assert_int_eq(ketama_create(nodes, 3, &many), OK);
    char text[KETAMA_MANY][260];
    for (uint32_t round = 0; round < 2000; round++) {
        struct span keys[KETAMA_MANY];
        uint32_t count = 1 + round % KETAMA_MANY;
        for (uint32_t i = 0; i < count; i++) {
            int len = snprintf(text[i], sizeof text[i], "%*s:%u:%u", (int)(round % 230), "key", round, i);
            keys[i] = span_of(text[i], (size_t)len);
        }
        uint32_t picked[KETAMA_MANY];
        ketama_pick_many(many, keys, count, picked);
        for (uint32_t i = 0; i < count; i++) {
            ck_assert_uint_eq(picked[i], ketama_pick(many, keys[i]));
        }
    }
    ketama_destroy(&many);
}
END_TEST

/* What is told of a key: keys of one point have one node, and no point lies before its keys, but for those behind the last one. */
START_TEST(explained)
{
    enum { KEYS = 20000 };
    struct ketama_node nodes[] = {{"10.0.0.1", 11211, 1}, {"10.0.0.2", 11211, 1}, {"10.0.0.3", 11211, 2}};
    struct ketama *ring;
    ck_assert_int_eq(ketama_create(nodes, ARRAY_LEN(nodes), &ring), OK);
    static struct {
        uint32_t hash, point, node;
    } keys[KEYS];
    uint32_t least = UINT32_MAX;
    for (uint32_t i = 0; i < KEYS; i++) {
        char text[32];
        snprintf(text, sizeof text, "key:%u", i);
        ketama_explain(ring, span_str(text), &keys[i].hash, &keys[i].point);
        keys[i].node = ketama_pick(ring, span_str(text));
        least = keys[i].point < least ? keys[i].point : least;
    }
    uint32_t shared = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        ck_assert(keys[i].point >= keys[i].hash || keys[i].point == least);
        uint32_t other = (i * 7919U) % KEYS;
        for (uint32_t j = other; j < KEYS && j < other + 50; j++) {
            if (j != i && keys[j].point == keys[i].point) {
                shared++;
                ck_assert_uint_eq(keys[j].node, keys[i].node);
            }
        }
    }
    ck_assert_uint_gt(shared, 0);
    ketama_destroy(&ring);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ketama");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, known_vectors);
    tcase_add_test(all, rounding_as_in_libmemcached);
    tcase_add_test(all, on_a_point);
    tcase_add_test(all, one_node);
    tcase_add_test(all, even_distribution);
    tcase_add_test(all, weights);
    tcase_add_test(all, a_node_more);
    tcase_add_test(all, fingerprints);
    tcase_add_test(all, refused);
    tcase_add_test(all, extremes);
    tcase_add_test(all, many_at_once_are_the_same_as_one_by_one);
    tcase_add_test(all, explained);
    suite_add_tcase(suite, all);
    return check_main(suite);
}
