#include "proxy/cache/namespace.h"

#include "tests/unit/check_main.h"

static struct config config;
static struct namespaces namespaces;

static void make(const char *const *prefixes, uint32_t count)
{
    config = (struct config){.namespace_count = count};
    config.namespaces = xcalloc(count, sizeof *config.namespaces);
    for (uint32_t i = 0; i < count; i++) {
        config.namespaces[i].prefix = xstrdup(prefixes[i]);
    }
    namespaces_init(&namespaces, &config);
}

static void drop(void)
{
    namespaces_deinit(&namespaces);
    for (uint32_t i = 0; i < config.namespace_count; i++) {
        free(config.namespaces[i].prefix);
    }
    free(config.namespaces);
}

static const char *find(const char *key)
{
    return namespaces_find(&namespaces, span_str(key))->config->prefix;
}

START_TEST(the_default_alone_takes_everything)
{
    make((const char *[]){""}, 1);
    ck_assert_str_eq(find("anything"), "");
    ck_assert_str_eq(find(""), "");
    drop();
}
END_TEST

START_TEST(the_longest_prefix_wins)
{
    make((const char *[]){"user:admin:", "", "user:", "user:a", "order:", "z"}, 6);
    ck_assert_str_eq(find("user:admin:1"), "user:admin:");
    ck_assert_str_eq(find("user:admin"), "user:a");
    ck_assert_str_eq(find("user:b"), "user:");
    ck_assert_str_eq(find("user:"), "user:");
    ck_assert_str_eq(find("user"), "");
    ck_assert_str_eq(find("order:9"), "order:");
    ck_assert_str_eq(find("orders"), "");
    ck_assert_str_eq(find("zz"), "z");
    ck_assert_str_eq(find("~"), "");
    drop();
}
END_TEST

/* Every key, against the plain search that looks at all prefixes. */
START_TEST(agrees_with_a_plain_search)
{
    const char *prefixes[] = {"", "a", "ab", "abc", "abd", "b", "ba", "bab", "babc", "c:", "c:a:", "c:a:b:", "\xff", "\xff\xff"};
    make(prefixes, ARRAY_LEN(prefixes));
    const char letters[] = "abcd:\xff";
    char key[6];
    for (uint32_t n = 0; n < 6 * 6 * 6 * 6 * 6; n++) {
        uint32_t rest = n;
        for (int i = 0; i < 5; i++, rest /= 6) {
            key[i] = letters[rest % 6];
        }
        key[5] = '\0';
        const char *best = "";
        for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
            if (strncmp(key, prefixes[i], strlen(prefixes[i])) == 0 && strlen(prefixes[i]) > strlen(best)) {
                best = prefixes[i];
            }
        }
        ck_assert_str_eq(find(key), best);
    }
    drop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("namespace");
    TCase *tc = tcase_create("find");
    tcase_add_test(tc, the_default_alone_takes_everything);
    tcase_add_test(tc, the_longest_prefix_wins);
    tcase_add_test(tc, agrees_with_a_plain_search);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
