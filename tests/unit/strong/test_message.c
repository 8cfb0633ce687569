/* What:    messages between controllers: what is written is read, and nothing else is. */
#include "proxy/strong/message.h"
#include "tests/unit/check_main.h"

static const struct message full = {
    .kind = MESSAGE_BEACON,
    .status = MESSAGE_STALE,
    .mode = 3,
    .sidecar = 0x0102030405060708,
    .voters = UINT64_MAX,
    .wall_ms = 1700000000123,
    .ring = 5,
    .number = 6,
    .digest = 7,
    .version = 8,
    .left_us = 9,
    .inbox = {"_INBOX.abc", 10},
    .body = {"a\0b", 3},
};

START_TEST(all_fields)
{
    char bytes[MESSAGE_MAX];
    struct message m;
    size_t len = message_write(&full, bytes);
    ck_assert_int_eq(message_read(span_of(bytes, len), &m), OK);
    ck_assert_int_eq(m.kind, full.kind);
    ck_assert_int_eq(m.status, full.status);
    ck_assert_uint_eq(m.mode, full.mode);
    ck_assert_uint_eq(m.sidecar, full.sidecar);
    ck_assert_uint_eq(m.voters, full.voters);
    ck_assert_uint_eq(m.wall_ms, full.wall_ms);
    ck_assert_uint_eq(m.ring, full.ring);
    ck_assert_uint_eq(m.number, full.number);
    ck_assert_uint_eq(m.digest, full.digest);
    ck_assert_uint_eq(m.version, full.version);
    ck_assert_uint_eq(m.left_us, full.left_us);
    ck_assert(span_eq(m.inbox, full.inbox));
    ck_assert(span_eq(m.body, full.body));
}
END_TEST

START_TEST(largest)
{
    char bytes[MESSAGE_MAX];
    char inbox[MESSAGE_INBOX_MAX], body[MESSAGE_BODY_MAX];
    memset(inbox, 'i', sizeof inbox);
    memset(body, 'b', sizeof body);
    struct message m = {.kind = MESSAGE_RULE, .inbox = span_of(inbox, sizeof inbox - 1), .body = span_of(body, sizeof body)};
    struct message back;
    size_t len = message_write(&m, bytes);
    ck_assert_uint_le(len, sizeof bytes);
    ck_assert_int_eq(message_read(span_of(bytes, len), &back), OK);
    ck_assert(span_eq(back.body, m.body));
}
END_TEST

START_TEST(every_cut_and_every_byte_more_is_refused)
{
    char bytes[MESSAGE_MAX + 1];
    struct message m;
    size_t len = message_write(&full, bytes);
    bytes[len] = 'x';
    for (size_t i = 0; i <= len + 1; i++) {
        ck_assert_int_eq(message_read(span_of(bytes, i), &m), i == len ? OK : ERR_PROTOCOL);
    }
}
END_TEST

START_TEST(bad_heads)
{
    static const struct {
        size_t at;
        char value;
        enum err err;
    } cases[] = {{0, 'T', ERR_PROTOCOL}, {1, 2, ERR_UNSUPPORTED}, {2, 0, ERR_PROTOCOL}, {2, MESSAGE_KINDS, ERR_PROTOCOL}, {3, MESSAGE_STATUSES, ERR_PROTOCOL},
                 {5, 1, ERR_PROTOCOL}, {6, 1, ERR_PROTOCOL}, {MESSAGE_HEAD - 1, 1, ERR_PROTOCOL}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char bytes[MESSAGE_MAX];
        struct message m;
        size_t len = message_write(&full, bytes);
        bytes[cases[i].at] = cases[i].value;
        ck_assert_int_eq(message_read(span_of(bytes, len), &m), cases[i].err);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("message");
    TCase *tc = tcase_create("message");
    tcase_add_test(tc, all_fields);
    tcase_add_test(tc, largest);
    tcase_add_test(tc, every_cut_and_every_byte_more_is_refused);
    tcase_add_test(tc, bad_heads);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
