#include "ctl/samples.h"
#include "ctl/top.h"
#include "tests/unit/check_main.h"

#define NONE ((struct span){NULL, 0})

static const char before[] = "# HELP r_total Requests.\n"
                             "# TYPE r_total counter\n"
                             "r_total{command=\"get\",namespace=\"a\"} 10\n"
                             "r_total{command=\"set\",namespace=\"a\"} 1\n"
                             "r_total_more 1000\n"
                             "d_seconds_bucket{command=\"get\",le=\"0.001\"} 5\n"
                             "d_seconds_bucket{command=\"get\",le=\"0.01\"} 5\n"
                             "d_seconds_bucket{command=\"get\",le=\"+Inf\"} 5\n";
static const char after[] = "r_total{command=\"get\",namespace=\"a\"} 30\n"
                            "r_total{command=\"get\",namespace=\"b\"} 5.5\n"
                            "r_total{command=\"set\",namespace=\"a\"} 1\n"
                            "d_seconds_bucket{command=\"get\",le=\"0.001\"} 6\n"
                            "d_seconds_bucket{command=\"get\",le=\"0.01\"} 95\n"
                            "d_seconds_bucket{command=\"get\",le=\"+Inf\"} 105\n"
                            "d_seconds_bucket{command=\"set\",le=\"+Inf\"} 7\n";

START_TEST(test_total)
{
    ck_assert_double_eq(samples_total(before, "r_total", NULL, NONE), 11);
    ck_assert_double_eq(samples_total(after, "r_total", "command", SPAN_LIT("get")), 35.5);
    ck_assert_double_eq(samples_total(after, "r_total", "namespace", SPAN_LIT("a")), 31);
    ck_assert_double_eq(samples_total(after, "r_total", "none", SPAN_LIT("a")), 0);
    ck_assert_double_eq(samples_total("", "r_total", NULL, NONE), 0);
}
END_TEST

START_TEST(test_label)
{
    const char *text = "m{a=\"1\",b=\"x\\\"y,z=\\\"\",c=\"\"} 1\nplain 2\nbroken{a=\"1 3\nbroken{a=1} 4\nend";
    struct sample sample;
    struct span value;
    ck_assert(samples_next(&text, &sample) && span_eq(sample.name, SPAN_LIT("m")));
    ck_assert(samples_label(&sample, "a", &value) && span_eq(value, SPAN_LIT("1")));
    ck_assert(samples_label(&sample, "b", &value) && span_eq(value, SPAN_LIT("x\\\"y,z=\\\"")));
    ck_assert(samples_label(&sample, "c", &value) && value.len == 0);
    ck_assert(!samples_label(&sample, "z", &value) && !samples_label(&sample, "", &value));
    ck_assert(samples_next(&text, &sample) && span_eq(sample.name, SPAN_LIT("plain")) && sample.value == 2);
    ck_assert(!samples_label(&sample, "a", &value));
    ck_assert(samples_next(&text, &sample) && !samples_label(&sample, "a", &value)); /* a=1 */
    ck_assert(!samples_next(&text, &sample));
}
END_TEST

START_TEST(test_quantile)
{
    ck_assert_double_eq(samples_quantile(before, after, "d_seconds", "command", SPAN_LIT("get"), 0.01), 0.001);
    ck_assert_double_eq(samples_quantile(before, after, "d_seconds", "command", SPAN_LIT("get"), 0.5), 0.01);
    ck_assert(samples_quantile(before, after, "d_seconds", "command", SPAN_LIT("get"), 0.99) > 1e6);
    ck_assert_double_lt(samples_quantile(after, after, "d_seconds", "command", SPAN_LIT("get"), 0.5), 0);
    ck_assert_double_lt(samples_quantile(before, after, "d_seconds", "command", SPAN_LIT("none"), 0.5), 0);
}
END_TEST

/* A sidecar that has been started again in between does not have negative rates. */
START_TEST(test_screen)
{
    static const char old[] = "outrigger_requests_total{command=\"get\"} 100\noutrigger_hits_total 10\noutrigger_misses_total 0\n";
    static const char new[] = "outrigger_requests_total{command=\"get\"} 300\noutrigger_hits_total 40\noutrigger_misses_total 10\n";
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    top_draw(out, old, new, 2, "here");
    fclose(out);
    ck_assert_ptr_nonnull(strstr(text, "requests 100.0/s   hit rate 75.0%   hits 15.0/s   misses 5.0/s"));
    ck_assert_ptr_nonnull(strstr(text, "get "));
    free(text);
    out = open_memstream(&text, &len);
    top_draw(out, new, old, 2, "here");
    fclose(out);
    ck_assert_ptr_nonnull(strstr(text, "requests 0.0/s   hit rate -"));
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ctl/samples");
    TCase *tc = tcase_create("samples");
    tcase_add_test(tc, test_total);
    tcase_add_test(tc, test_label);
    tcase_add_test(tc, test_quantile);
    tcase_add_test(tc, test_screen);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
