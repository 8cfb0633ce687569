#include <check.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "common/base.h"
#include "common/log.h"
#include "tests/unit/check_main.h"

#define STAMP "2026-11-23T20:15:00.123Z info  "

struct capture {
    struct log *log;
    int fds[2];
};

static void capture_open(struct capture *c, enum log_level level)
{
    ck_assert_int_eq(pipe2(c->fds, O_CLOEXEC), 0);
    fcntl(c->fds[1], F_SETPIPE_SZ, 1 << 20);
    c->log = log_create(c->fds[1], level);
}

/* Everything that was written; ends the log. */
static char *capture_close(struct capture *c)
{
    log_destroy(&c->log);
    ck_assert_ptr_null(c->log);
    close(c->fds[1]);
    size_t cap = 1 << 21;
    size_t len = 0;
    char *text = malloc(cap + 1);
    ssize_t n;
    while ((n = read(c->fds[0], text + len, cap - len)) > 0) {
        len += (size_t)n;
    }
    text[len] = '\0';
    close(c->fds[0]);
    return text;
}

static unsigned lines(const char *text)
{
    unsigned n = 0;
    for (; *text != '\0'; text++) {
        n += *text == '\n';
    }
    return n;
}

START_TEST(test_line)
{
    struct capture c;
    capture_open(&c, LOG_INFO);
    errno = ENOENT;
    log_info(c.log, "pool: node %s is %s", "127.0.0.1:11311", "up");
    ck_assert_int_eq(errno, ENOENT);
    char *text = capture_close(&c);
    ck_assert_str_eq(text + strlen(STAMP), "pool: node 127.0.0.1:11311 is up\n");
    for (size_t i = 0; i < strlen(STAMP); i++) {
        ck_assert(isdigit((unsigned char)STAMP[i]) ? isdigit((unsigned char)text[i]) : text[i] == STAMP[i]);
    }
    free(text);
}
END_TEST

START_TEST(test_levels)
{
    struct capture c;
    capture_open(&c, LOG_WARN);
    ck_assert(!log_is_on(c.log, LOG_DEBUG));
    ck_assert(!log_is_on(c.log, LOG_INFO));
    ck_assert(log_is_on(c.log, LOG_WARN));
    ck_assert(!log_is_on(NULL, LOG_ERROR));
    log_debug(c.log, "no");
    log_info(c.log, "no");
    log_warn(c.log, "yes");
    log_error(c.log, "yes");
    log_error(NULL, "nowhere");
    char *text = capture_close(&c);
    ck_assert_uint_eq(lines(text), 2);
    ck_assert_ptr_nonnull(strstr(text, "Z warn  yes\n"));
    ck_assert_ptr_nonnull(strstr(text, "Z error yes\n"));
    free(text);
    enum log_level level;
    ck_assert_int_eq(log_level_parse("debug", &level), OK);
    ck_assert_int_eq(level, LOG_DEBUG);
    ck_assert_int_eq(log_level_parse("error", &level), OK);
    ck_assert_int_eq(level, LOG_ERROR);
    ck_assert_int_eq(log_level_parse("Info", &level), ERR_INVALID);
    ck_assert_int_eq(log_level_parse("", &level), ERR_INVALID);
}
END_TEST

START_TEST(test_hostile_arguments)
{
    struct capture c;
    capture_open(&c, LOG_INFO);
    log_info(c.log, "key %s", "a\n2026-01-01T00:00:00.000Z error forged\r\t\x1b[31m\x7f\xc2\x9b m\xc3\xb6glich 100%s");
    char *text = capture_close(&c);
    ck_assert_str_eq(text + strlen(STAMP),
                     "key a\\n2026-01-01T00:00:00.000Z error forged\\r\\t\\x1b[31m\\x7f\\xc2\\x9b m\xc3\xb6glich 100%s\n");
    free(text);
}
END_TEST

START_TEST(test_long_lines)
{
    char huge[100000];
    memset(huge, '\x01', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    struct capture c;
    capture_open(&c, LOG_INFO);
    log_info(c.log, "%s", huge);
    memset(huge, 'x', 959);
    huge[959] = '\0';
    log_info(c.log, "%s", huge);
    char *text = capture_close(&c);
    ck_assert_uint_eq(lines(text), 2);
    char *second = strchr(text, '\n') + 1;
    ck_assert_uint_lt((size_t)(second - text), 4096);
    ck_assert_int_eq(strncmp(second - 8, "\\x01...\n", 8), 0);
    ck_assert_uint_eq(strlen(second), strlen(STAMP) + 959 + 1);
    free(text);
}
END_TEST

START_TEST(test_rate_limit)
{
    struct capture c;
    capture_open(&c, LOG_INFO);
    for (int i = 0; i < 2; i++) {
        for (int n = 0; n < 100 && (i == 0 || n < 1); n++) {
            log_info(c.log, "flood");
        }
        log_info(c.log, "another site");
        if (i == 0) {
            usleep(1050000);
        }
    }
    char *text = capture_close(&c);
    ck_assert_uint_eq(lines(text), LOG_BURST + 3);
    ck_assert_ptr_nonnull(strstr(text, "flood (+90 like this left out)\n"));
    ck_assert_ptr_null(strstr(strstr(text, "(+") + 1, "(+"));
    free(text);
}
END_TEST

/* More call sites than the table has places: still bounded, still written. */
START_TEST(test_many_sites)
{
    struct capture c;
    capture_open(&c, LOG_INFO);
    for (int i = 0; i < 3000; i++) {
        log_write(c.log, LOG_INFO, "some.c", i, "site %d", i);
    }
    char *text = capture_close(&c);
    ck_assert_uint_ge(lines(text), 512);
    ck_assert_ptr_nonnull(strstr(text, " site 511\n"));
    free(text);
}
END_TEST

/* A reader that has stopped reading costs lines, not time; they are counted. */
START_TEST(test_stuck_reader)
{
    struct capture c;
    capture_open(&c, LOG_INFO);
    fcntl(c.fds[1], F_SETPIPE_SZ, 4096);
    char filler[4096] = {0};
    ck_assert_int_eq(write(c.fds[1], filler, sizeof filler), sizeof filler);
    for (int i = 0; i < 4; i++) {
        if (i == 3) {
            ck_assert_int_eq(read(c.fds[0], filler, sizeof filler), sizeof filler);
        }
        log_info(c.log, "line %d", i);
    }
    char *text = capture_close(&c);
    ck_assert_uint_eq(lines(text), 1);
    ck_assert_str_eq(text + strlen(STAMP), "line 3 (+3 like this left out)\n");
    free(text);
}
END_TEST

START_TEST(test_broken_descriptor)
{
    signal(SIGPIPE, SIG_IGN);
    struct log *log = log_create(-1, LOG_INFO);
    log_info(log, "nowhere");
    log_destroy(&log);
    struct capture c;
    capture_open(&c, LOG_INFO);
    close(c.fds[0]);
    log_info(c.log, "nobody reads this");
    log_destroy(&c.log);
    close(c.fds[1]);
}
END_TEST

#define WRITERS 4
#define WRITES 200

static void *writer(void *arg)
{
    struct capture *c = arg;
    for (int i = 0; i < WRITES; i++) {
        log_write(c->log, LOG_INFO, "writer.c", i, "begin %d end", i);
        log_info(c->log, "begin flood end");
    }
    return NULL;
}

START_TEST(test_threads)
{
    struct capture c;
    capture_open(&c, LOG_INFO);
    pthread_t threads[WRITERS];
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_create(&threads[i], NULL, writer, &c);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    char *text = capture_close(&c);
    ck_assert_uint_ge(lines(text), WRITERS * WRITES + LOG_BURST);
    char *rest = text;
    char *line;
    while ((line = strsep(&rest, "\n")) != NULL && *line != '\0') { /* no line is torn */
        ck_assert_int_eq(strncmp(line + strlen(STAMP), "begin ", 6), 0);
        ck_assert(strstr(line, " end") != NULL);
    }
    free(text);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("log");
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, test_line);
    tcase_add_test(tests, test_levels);
    tcase_add_test(tests, test_hostile_arguments);
    tcase_add_test(tests, test_long_lines);
    tcase_add_test(tests, test_rate_limit);
    tcase_add_test(tests, test_many_sites);
    tcase_add_test(tests, test_stuck_reader);
    tcase_add_test(tests, test_broken_descriptor);
    tcase_add_test(tests, test_threads);
    Suite *suite = suite_create("log");
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
