/* What: a region's record to text and back, and texts that are none. */
#include "proxy/strong/record.h"
#include "tests/unit/check_main.h"

static enum err parse(const char *text, struct lease_record *out)
{
    return record_read(span_str(text), out);
}

START_TEST(round_trip)
{
    static const struct lease_record records[] = {
        {1, false, 0, 0}, {2, true, 0xdeadbeef, 7}, {3, false, UINT64_MAX, UINT64_MAX}, {RECORD_NUMBER_MAX, true, UINT64_MAX, UINT64_MAX}};
    for (size_t i = 0; i < ARRAY_LEN(records); i++) {
        char text[RECORD_MAX];
        struct lease_record back;
        size_t len = record_write(&records[i], text);
        ck_assert_uint_lt(len, RECORD_MAX);
        ck_assert_int_eq(record_read(span_of(text, len), &back), OK);
        ck_assert(back.number == records[i].number && back.is_ready == records[i].is_ready && back.ring == records[i].ring && back.holder == records[i].holder);
        for (size_t n = 0; n < len; n++) { /* cut off anywhere, or with a byte that is none of ours */
            ck_assert_int_ne(record_read(span_of(text, n), &back), OK);
            char bad[RECORD_MAX];
            memcpy(bad, text, len);
            bad[n] = '\0';
            ck_assert_int_ne(record_read(span_of(bad, len), &back), OK);
            bad[n] = 'G';
            ck_assert_int_ne(record_read(span_of(bad, len), &back), OK);
        }
    }
    char text[RECORD_MAX];
    ck_assert_uint_eq(record_write(&records[1], text), strlen("1 2 1 00000000deadbeef 0000000000000007"));
    ck_assert_str_eq(text, "1 2 1 00000000deadbeef 0000000000000007");
}
END_TEST

START_TEST(what_is_no_record)
{
    static const char *const texts[] = {
        "", " ", "1", "1 2", "1 2 1 0 0", "0 2 1 00000000deadbeef 0000000000000007", "1 0 1 00000000deadbeef 0000000000000007",
        "1 02 1 00000000deadbeef 0000000000000007", "1 +2 1 00000000deadbeef 0000000000000007", "1 -2 1 00000000deadbeef 0000000000000007",
        "1 2 2 00000000deadbeef 0000000000000007", "1 2 1 00000000DEADBEEF 0000000000000007", "1 2 1 00000000deadbeef 0000000000000007 ",
        "1 2 1 00000000deadbeef 0000000000000007\n", " 1 2 1 00000000deadbeef 0000000000000007", "1  2 1 00000000deadbeef 0000000000000007",
        "1 4611686018427387905 1 00000000deadbeef 0000000000000007", "1 18446744073709551617 1 00000000deadbeef 0000000000000007",
        "1 18446744073709551615 1 00000000deadbeef 0000000000000007", "1 2 1 000000000deadbeef 0000000000000007",
        "{\"number\":2}", "1 2 1 10000000000000000 0000000000000007", "1 2 1 00000000deadbeef 00000000000000070000000000000000000000000000000"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct lease_record record = {.number = 77};
        ck_assert_msg(parse(texts[i], &record) != OK, "\"%s\"", texts[i]);
        ck_assert_uint_eq(record.number, 77);
    }
    struct lease_record record;
    ck_assert_int_eq(parse("2 2 1 00000000deadbeef 0000000000000007", &record), ERR_UNSUPPORTED);
}
END_TEST

START_TEST(numbers)
{
    ck_assert_uint_eq(record_next_held(0), 2);
    ck_assert_uint_eq(record_next_held(2), 4);
    ck_assert_uint_eq(record_next_held(3), 4);
    ck_assert_uint_eq(record_next_suspended(0), 1);
    ck_assert_uint_eq(record_next_suspended(2), 3);
    ck_assert_uint_eq(record_next_suspended(3), 3);
    ck_assert(record_is_held(&(struct lease_record){.number = 2}));
    ck_assert(!record_is_held(&(struct lease_record){.number = 0}));
    ck_assert(!record_is_held(&(struct lease_record){.number = 3}));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("strong/record");
    TCase *tc = tcase_create("record");
    tcase_add_test(tc, round_trip);
    tcase_add_test(tc, what_is_no_record);
    tcase_add_test(tc, numbers);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
