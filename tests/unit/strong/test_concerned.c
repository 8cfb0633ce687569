/* What: which patterns concern strong namespaces: rather too many than too few. */
#include "proxy/strong/strong.h"
#include "tests/unit/check_main.h"

static struct config_namespace namespaces[] = {
    {.prefix = (char *)""},
    {.prefix = (char *)"cart:", .consistency = CONSISTENCY_STRONG},
    {.prefix = (char *)"cart:old:"},
    {.prefix = (char *)"a*b:", .consistency = CONSISTENCY_STRONG},
};

static const struct config config = {.namespaces = namespaces, .namespace_count = ARRAY_LEN(namespaces)};

START_TEST(by_what_both_begin_with)
{
    static const char *const concerned[] = {"*",      "?art:1", "c*",        "cart*",  "cart:*",       "cart:1",  "cart:",    "ca[r]t:",
                                            "[abc]*", "cart?*", "cart:old:*", "*:17",  "a\\*b:*",      "a*",      "\\cart:1", "cart:old:1"};
    static const char *const others[] = {"cart", "car", "user:*", "carts*", "x*", "Cart:*", "a\\?*", "cart-*", "car\\?*", "ab:*"};
    for (size_t i = 0; i < ARRAY_LEN(concerned); i++) {
        ck_assert_msg(strong_is_concerned(&config, span_str(concerned[i])), "%s", concerned[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        ck_assert_msg(!strong_is_concerned(&config, span_str(others[i])), "%s", others[i]);
    }
}
END_TEST

START_TEST(without_a_strong_namespace_none_does)
{
    const struct config eventual = {.namespaces = namespaces, .namespace_count = 1};
    ck_assert(!strong_is_concerned(&eventual, SPAN_LIT("*")));
}
END_TEST

START_TEST(the_default_namespace_may_be_strong)
{
    struct config_namespace fallback = {.prefix = (char *)"", .consistency = CONSISTENCY_STRONG};
    const struct config strong = {.namespaces = &fallback, .namespace_count = 1};
    ck_assert(strong_is_concerned(&strong, SPAN_LIT("*")));
    ck_assert(strong_is_concerned(&strong, SPAN_LIT("x")));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("strong/concerned");
    TCase *tc = tcase_create("concerned");
    tcase_add_test(tc, by_what_both_begin_with);
    tcase_add_test(tc, without_a_strong_namespace_none_does);
    tcase_add_test(tc, the_default_namespace_may_be_strong);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
