#include "common/credentials.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/check_main.h"

static char directory[] = "/tmp/outrigger-credentials-XXXXXX";
static char path[64];
static struct reason why;

static void set_up(void)
{
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/users", directory);
}

static void tear_down(void)
{
    unlink(path);
    rmdir(directory);
}

/* A new file in place of the old one, as configuration management does it. */
static void put(struct span text)
{
    char other[80];
    snprintf(other, sizeof other, "%s.new", path);
    FILE *file = fopen(other, "we");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text.data, 1, text.len, file), text.len);
    fclose(file);
    chmod(other, 0600);
    ck_assert_int_eq(rename(other, path), 0);
}

static struct credentials *open_with(const char *text)
{
    struct credentials *c;
    put(span_str(text));
    ck_assert_msg(credentials_open(path, &c, &why) == OK, "%s", why.text);
    return c;
}

static bool matches(struct credentials *c, const char *user, const char *password)
{
    return credentials_match(c, span_str(user), span_str(password));
}

static void refused(struct span text, const char *what)
{
    struct credentials *c;
    char whole[256];
    put(text);
    ck_assert_int_eq(credentials_open(path, &c, &why), ERR_INVALID);
    ck_assert_ptr_null(c);
    snprintf(whole, sizeof whole, "%s%s", path, what);
    ck_assert_str_eq(why.text, whole);
}

START_TEST(only_what_is_listed_matches)
{
    struct credentials *c = open_with("ann:secret\nbob:a:b c\r\n#carl:hash\nann:second");
    ck_assert_uint_eq(credentials_count(c), 4);
    ck_assert(matches(c, "ann", "secret"));
    ck_assert(matches(c, "ann", "second"));
    ck_assert(matches(c, "bob", "a:b c"));
    ck_assert(matches(c, "#carl", "hash"));
    const char *const wrong[][2] = {{"ann", "secre"},   {"ann", "secrets"}, {"ann", "Secret"}, {"an", "secret"}, {"annsecret", ""}, {"ann", ""},
                                    {"", "secret"},     {"", ""},           {"bob", "a"},      {"bob:a", "b c"}, {"carl", "hash"},  {"ann", "a:b c"},
                                    {"ann", "second\r"}, {"bob", "secret"}};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        ck_assert_msg(!matches(c, wrong[i][0], wrong[i][1]), "%s %s", wrong[i][0], wrong[i][1]);
    }
    credentials_close(&c);
    ck_assert_ptr_null(c);
}
END_TEST

START_TEST(a_zero_byte_or_too_much_never_matches)
{
    struct credentials *c = open_with("ann:secret\n");
    char large[300];
    memset(large, 'x', sizeof large);
    ck_assert(!credentials_match(c, SPAN_LIT("ann"), SPAN_LIT("secret\0")));
    ck_assert(!credentials_match(c, SPAN_LIT("ann\0secret"), SPAN_LIT("\0")));
    ck_assert(!credentials_match(c, SPAN_LIT("\0ann"), SPAN_LIT("secret")));
    for (size_t len = 240; len <= sizeof large; len++) {
        ck_assert(!credentials_match(c, span_of(large, len), SPAN_LIT("secret")));
        ck_assert(!credentials_match(c, SPAN_LIT("ann"), span_of(large, len)));
        ck_assert(!credentials_match(c, span_of(large, len), span_of(large, len)));
    }
    credentials_close(&c);
}
END_TEST

START_TEST(malformed_lines_are_named)
{
    refused(SPAN_LIT("ann:secret\n\nbob:b\n"), ":2: is empty; every line is user:password");
    refused(SPAN_LIT("ann:secret\nbob\n"), ":2: has no \":\"; every line is user:password");
    refused(SPAN_LIT(":secret\n"), ":1: has no user before the \":\"");
    refused(SPAN_LIT("ann:\n"), ":1: has no password behind the \":\"");
    refused(SPAN_LIT("ann:se\0cret\n"), ":1: has a control character in it");
    refused(SPAN_LIT("ann:se\tcret\n"), ":1: has a control character in it");
    refused(SPAN_LIT(""), ": is empty: nobody could use the cache");
}
END_TEST

START_TEST(lines_and_users_are_bounded)
{
    char line[300];
    memset(line, 'x', sizeof line);
    line[3] = ':';
    line[255] = '\n';
    put(span_of(line, 256)); /* 255 bytes and the line's end */
    struct credentials *c;
    ck_assert_int_eq(credentials_open(path, &c, &why), OK);
    ck_assert(credentials_match(c, SPAN_LIT("xxx"), span_of(line + 4, 251)));
    ck_assert(!credentials_match(c, SPAN_LIT("xxx"), span_of(line + 4, 250)));
    credentials_close(&c);
    line[255] = 'x';
    line[256] = '\n';
    refused(span_of(line, 257), ":1: is longer than 255 bytes");

    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    for (int i = 0; i < CREDENTIALS_MAX; i++) {
        fprintf(out, "user%d:password%d\n", i, i);
    }
    fflush(out);
    put(span_of(text, len));
    ck_assert_int_eq(credentials_open(path, &c, &why), OK);
    ck_assert_uint_eq(credentials_count(c), CREDENTIALS_MAX);
    ck_assert(matches(c, "user0", "password0") && matches(c, "user1023", "password1023") && !matches(c, "user7", "password8"));
    credentials_close(&c);
    fprintf(out, "one:more\n");
    fclose(out);
    refused(span_of(text, len), ":1025: is one more than 1024 users");
    free(text);
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
    struct credentials *c;
    ck_assert_int_eq(credentials_open(path, &c, &why), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(why.text, "can not read"));
    ck_assert_int_eq(credentials_open(directory, &c, &why), ERR_INVALID);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(credentials_open(path, &c, &why), ERR_INVALID); /* and does not hang */
    ck_assert_ptr_nonnull(strstr(why.text, "not a regular file"));
}
END_TEST

START_TEST(who_may_read_it_is_noticed)
{
    struct credentials *c = open_with("ann:secret\n");
    ck_assert(!credentials_is_exposed(c));
    chmod(path, 0644);
    ck_assert_int_eq(credentials_reload(c, &why), OK);
    ck_assert(credentials_is_exposed(c));
    credentials_close(&c);
}
END_TEST

START_TEST(a_new_file_is_taken_and_a_bad_one_is_not)
{
    struct credentials *c = open_with("ann:old\n");
    ck_assert(!credentials_is_outdated(c));
    put(SPAN_LIT("ann:new\n"));
    ck_assert(credentials_is_outdated(c));
    ck_assert(matches(c, "ann", "old"));
    ck_assert_int_eq(credentials_reload(c, &why), OK);
    ck_assert(!credentials_is_outdated(c));
    ck_assert(matches(c, "ann", "new") && !matches(c, "ann", "old"));

    put(SPAN_LIT("ann\n"));
    ck_assert(credentials_is_outdated(c));
    ck_assert_int_eq(credentials_reload(c, &why), ERR_INVALID);
    ck_assert(!credentials_is_outdated(c)); /* it is not complained of again and again */
    ck_assert(matches(c, "ann", "new"));

    unlink(path);
    ck_assert(credentials_is_outdated(c));
    ck_assert_int_eq(credentials_reload(c, &why), ERR_INVALID);
    ck_assert(!credentials_is_outdated(c));
    ck_assert(matches(c, "ann", "new"));

    put(SPAN_LIT("ann:newest\n"));
    ck_assert(credentials_is_outdated(c));
    ck_assert_int_eq(credentials_reload(c, &why), OK);
    ck_assert(matches(c, "ann", "newest"));
    credentials_close(&c);
}
END_TEST

static _Atomic bool is_over;

static void *match_on(void *arg)
{
    uintptr_t wrong = 0;
    while (!atomic_load(&is_over)) {
        wrong += !matches(arg, "both", "same"); /* is in either table */
    }
    return (void *)wrong;
}

/* Under ThreadSanitizer, too. */
START_TEST(tables_change_under_readers)
{
    struct credentials *c = open_with("both:same\none:1\n");
    pthread_t threads[3];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, match_on, c), 0);
    }
    for (int i = 0; i < 200; i++) {
        put(i % 2 == 0 ? SPAN_LIT("two:2\nboth:same\n") : SPAN_LIT("both:same\n"));
        ck_assert_int_eq(credentials_reload(c, &why), OK);
    }
    atomic_store(&is_over, true);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        ck_assert_ptr_null(wrong);
    }
    credentials_close(&c);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("credentials");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, only_what_is_listed_matches);
    tcase_add_test(tests, a_zero_byte_or_too_much_never_matches);
    tcase_add_test(tests, malformed_lines_are_named);
    tcase_add_test(tests, lines_and_users_are_bounded);
    tcase_add_test(tests, what_is_no_file_is_refused);
    tcase_add_test(tests, who_may_read_it_is_noticed);
    tcase_add_test(tests, a_new_file_is_taken_and_a_bad_one_is_not);
    tcase_add_test(tests, tables_change_under_readers);
    Suite *suite = suite_create("credentials");
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
