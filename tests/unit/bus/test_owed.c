#include "proxy/bus/owed.h"

#include "tests/unit/check_main.h"

static struct owed *owed;

static void setup(void)
{
    owed = owed_create();
}

static void teardown(void)
{
    owed_destroy(&owed);
}

START_TEST(as_often_as_it_was_added)
{
    ck_assert(!owed_has(owed, SPAN_LIT("k")));
    owed_remove(owed, SPAN_LIT("k"));
    owed_add(owed, SPAN_LIT("k"));
    owed_add(owed, SPAN_LIT("k"));
    ck_assert(owed_has(owed, SPAN_LIT("k")));
    ck_assert(!owed_has(owed, SPAN_LIT("kk")));
    ck_assert(!owed_has(owed, SPAN_LIT("")));
    owed_remove(owed, SPAN_LIT("k"));
    ck_assert(owed_has(owed, SPAN_LIT("k")));
    owed_remove(owed, SPAN_LIT("k"));
    ck_assert(!owed_has(owed, SPAN_LIT("k")));
}
END_TEST

START_TEST(many)
{
    char key[20];
    for (uint32_t i = 0; i < 20000; i++) {
        owed_add(owed, span_of(key, (size_t)snprintf(key, sizeof key, "key%u", i)));
    }
    for (uint32_t i = 0; i < 20000; i += 2) {
        owed_remove(owed, span_of(key, (size_t)snprintf(key, sizeof key, "key%u", i)));
    }
    for (uint32_t i = 0; i < 20000; i++) {
        ck_assert_int_eq(owed_has(owed, span_of(key, (size_t)snprintf(key, sizeof key, "key%u", i))), i % 2);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("owed");
    TCase *t = tcase_create("owed");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, as_often_as_it_was_added);
    tcase_add_test(t, many);
    suite_add_tcase(suite, t);
    return check_main(suite);
}
