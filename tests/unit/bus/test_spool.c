#include "proxy/bus/spool.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/bus/spool_directory.h"
#include "tests/unit/check_main.h"

#define MAX_BYTES (1U << 20)
#define SEGMENT 65536

static char directory[DIRECTORY_SIZE];
static struct spool *spool;

static void open_with(uint64_t max_bytes, uint64_t segment_bytes)
{
    char error[600] = "";
    struct spool_options options = {directory, max_bytes, segment_bytes};
    ck_assert_msg(spool_open(&options, NULL, &spool, error, sizeof error) == OK, "%s", error);
}

static void reopen(void)
{
    spool_close(&spool);
    open_with(MAX_BYTES, SEGMENT);
}

static void setup(void)
{
    directory_make(directory);
    open_with(MAX_BYTES, SEGMENT);
}

static void teardown(void)
{
    spool_close(&spool);
    directory_remove(directory);
}

static struct spool_counts counts(void)
{
    struct spool_counts c;
    spool_count(spool, &c);
    return c;
}

static struct spool_record record(enum spool_kind kind, uint8_t debts, const char *key)
{
    return (struct spool_record){
        .kind = kind, .debts = debts, .version = 77, .timestamp_ms = 88, .sender = 5, .message = 6, .count = 7, .key = span_str(key)};
}

static struct spool_entry *add(enum spool_kind kind, uint8_t debts, const char *key)
{
    struct spool_record r = record(kind, debts, key);
    struct spool_entry *e = NULL;
    ck_assert_int_eq(spool_add(spool, &r, &e), OK);
    return e;
}

static struct spool_entry *keep(enum spool_kind kind, uint8_t debts, const char *key)
{
    struct spool_entry *e = add(kind, debts, key);
    ck_assert_int_eq(spool_commit(spool), OK);
    return e;
}

/* "a b c": the keys in order. */
static const char *keys(void)
{
    static char text[4096];
    size_t used = 0;
    text[0] = '\0';
    for (struct spool_entry *e = spool_first(spool); e != NULL; e = spool_next(spool, e)) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.*s", used > 0 ? " " : "", e->key_len, e->key);
    }
    return text;
}

START_TEST(what_was_committed_is_found_again)
{
    keep(SPOOL_OWED, DEBT_BUS, "a");
    add(SPOOL_OWED, DEBT_NODE, "b");
    keep(SPOOL_OWED, DEBTS, "c");
    keep(SPOOL_RESERVED, 0, "d");
    add(SPOOL_OWED, DEBT_BUS, "not committed");
    reopen();
    ck_assert_str_eq(keys(), "a b c d");
    struct spool_entry *e = spool_first(spool);
    ck_assert_uint_eq(e->version, 77);
    ck_assert_uint_eq(e->timestamp_ms, 88);
    ck_assert_uint_eq(e->sender, 5);
    ck_assert_uint_eq(e->message, 6);
    ck_assert_uint_eq(e->count, 7);
    ck_assert_uint_eq(e->debts, DEBT_BUS);
    struct spool_counts c = counts();
    ck_assert_uint_eq(c.entries, 4);
    ck_assert_uint_eq(c.reserved, 1);
    ck_assert_uint_eq(c.owed_to_bus, 2);
    ck_assert_uint_eq(c.owed_to_nodes, 2);
    ck_assert_uint_eq(c.damages, 0);
}
END_TEST

START_TEST(a_pattern_stays_a_pattern)
{
    struct spool_record r = record(SPOOL_OWED, DEBTS, "user:*");
    struct spool_entry *e;
    r.is_pattern = true;
    ck_assert_int_eq(spool_add(spool, &r, &e), OK);
    keep(SPOOL_OWED, DEBTS, "user:*");
    reopen();
    ck_assert_str_eq(keys(), "user:* user:*");
    e = spool_first(spool);
    ck_assert(e->is_pattern);
    ck_assert_uint_eq(e->debts, DEBTS);
    spool_clear(spool, e, DEBT_NODE);
    ck_assert_int_eq(spool_commit(spool), OK);
    reopen();
    e = spool_first(spool);
    ck_assert(e->is_pattern);
    ck_assert_uint_eq(e->debts, DEBT_BUS);
    ck_assert(!spool_next(spool, e)->is_pattern);
}
END_TEST

START_TEST(debts_are_paid_one_by_one)
{
    struct spool_entry *e = keep(SPOOL_OWED, DEBTS, "k");
    spool_clear(spool, e, DEBT_NODE);
    ck_assert_uint_eq(counts().owed_to_nodes, 0);
    ck_assert_int_eq(spool_commit(spool), OK);
    reopen();
    ck_assert_str_eq(keys(), "k");
    e = spool_first(spool);
    ck_assert_uint_eq(e->debts, DEBT_BUS);
    spool_clear(spool, e, DEBT_BUS);
    ck_assert_uint_eq(counts().entries, 0);
    ck_assert_int_eq(spool_commit(spool), OK);
    reopen();
    ck_assert_str_eq(keys(), "");
    ck_assert_int_eq(directory_count(directory, ".spool", NULL), 0); /* nothing in them is needed */
    ck_assert_uint_eq(counts().bytes, 0);
}
END_TEST

START_TEST(a_reservation_is_cancelled_promoted_or_found)
{
    struct spool_entry *cancelled = add(SPOOL_RESERVED, 0, "cancelled");
    struct spool_entry *promoted = add(SPOOL_RESERVED, 0, "promoted");
    keep(SPOOL_RESERVED, 0, "found");
    spool_clear(spool, cancelled, DEBTS);
    spool_promote(spool, promoted, 99, DEBT_BUS);
    ck_assert_uint_eq(counts().reserved, 1);
    ck_assert_uint_eq(counts().owed_to_bus, 1);
    ck_assert_int_eq(spool_commit(spool), OK);
    reopen();
    ck_assert_str_eq(keys(), "promoted found");
    struct spool_entry *e = spool_first(spool);
    ck_assert_uint_eq(e->kind, SPOOL_OWED);
    ck_assert_uint_eq(e->version, 99);
    ck_assert_uint_eq(e->debts, DEBT_BUS);
    ck_assert_uint_eq(spool_next(spool, e)->kind, SPOOL_RESERVED);
}
END_TEST

START_TEST(a_promotion_never_moves_the_version_back)
{
    struct spool_entry *e = keep(SPOOL_RESERVED, 0, "k");
    spool_promote(spool, e, 5, DEBTS);
    ck_assert_uint_eq(e->version, 77);
}
END_TEST

/* --- crashes --- */

static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    char *bytes = malloc(MAX_BYTES);
    *len = fread(bytes, 1, MAX_BYTES, f);
    fclose(f);
    return bytes;
}

static void write_file(const char *path, const char *bytes, size_t len)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, len, f), len);
    fclose(f);
}

/* Five records; `ends` gets where each ends. */
static size_t make_five(char *path, size_t ends[static 5])
{
    struct stat st;
    static const char *const names[] = {"first", "second", "third", "fourth", "fifth"};
    for (size_t i = 0; i < 5; i++) {
        keep(SPOOL_OWED, DEBT_BUS, names[i]);
        ck_assert_int_eq(directory_count(directory, ".spool", path), 1);
        ck_assert_int_eq(stat(path, &st), 0);
        ends[i] = (size_t)st.st_size;
    }
    return ends[4];
}

START_TEST(cut_off_at_every_byte)
{
    char path[512];
    size_t ends[5];
    size_t len;
    size_t size = make_five(path, ends);
    spool_close(&spool);
    char *bytes = read_file(path, &len);
    ck_assert_uint_eq(len, size);
    for (size_t cut = 0; cut <= size; cut++) {
        write_file(path, bytes, cut);
        open_with(MAX_BYTES, SEGMENT);
        uint64_t whole = 0;
        while (whole < 5 && ends[whole] <= cut) {
            whole++;
        }
        ck_assert_uint_eq(counts().entries, whole);
        ck_assert_uint_eq(counts().damages, 0); /* nothing that anybody was promised */
        keep(SPOOL_OWED, DEBT_BUS, "after");    /* and on it goes */
        reopen();
        ck_assert_uint_eq(counts().entries, whole + 1);
        ck_assert_uint_eq(counts().damages, 0);
        spool_close(&spool);
        char other[512];
        while (directory_count(directory, ".spool", other) > 0) {
            unlink(other);
        }
    }
    free(bytes);
    open_with(MAX_BYTES, SEGMENT);
}
END_TEST

START_TEST(space_that_was_never_written_is_cut_off_too)
{
    char path[512];
    size_t ends[5];
    size_t size = make_five(path, ends);
    spool_close(&spool);
    ck_assert_int_eq(truncate(path, (off_t)(size + 5000)), 0); /* zeros */
    open_with(MAX_BYTES, SEGMENT);
    ck_assert_uint_eq(counts().entries, 5);
    ck_assert_uint_eq(counts().damages, 0);
}
END_TEST

START_TEST(damage_at_every_byte)
{
    char path[512];
    size_t ends[5];
    size_t len;
    size_t size = make_five(path, ends);
    spool_close(&spool);
    char *bytes = read_file(path, &len);
    for (size_t at = 0; at < size; at++) {
        bytes[at] ^= 0x10;
        write_file(path, bytes, size);
        open_with(MAX_BYTES, SEGMENT);
        uint64_t whole = 0;
        while (at >= SPOOL_HEADER_LEN && ends[whole] <= at) {
            whole++;
        }
        ck_assert_uint_eq(counts().entries, whole); /* what is before it, and nothing of what is behind */
        spool_close(&spool);
        bytes[at] ^= 0x10;
        char bad[512];
        while (directory_count(directory, ".bad", bad) > 0) {
            unlink(bad);
        }
    }
    free(bytes);
    open_with(MAX_BYTES, SEGMENT);
}
END_TEST

START_TEST(damage_is_counted_and_the_file_kept)
{
    char path[512];
    size_t ends[5];
    size_t len;
    make_five(path, ends);
    spool_close(&spool);
    char *bytes = read_file(path, &len);
    bytes[ends[1] + 40] ^= 1; /* in the third */
    write_file(path, bytes, len);
    free(bytes);
    open_with(MAX_BYTES, SEGMENT);
    ck_assert_str_eq(keys(), "first second");
    ck_assert_uint_eq(counts().damages, 1);
    spool_clear(spool, spool_first(spool), DEBTS);
    spool_clear(spool, spool_first(spool), DEBTS);
    ck_assert_int_eq(spool_commit(spool), OK);
    ck_assert_int_eq(directory_count(directory, ".bad", NULL), 1);
    reopen();
    ck_assert_uint_eq(counts().damages, 0);
    ck_assert_uint_eq(counts().entries, 0);
}
END_TEST

START_TEST(a_cut_in_an_older_segment_is_damage)
{
    char path[512];
    size_t ends[5];
    size_t size = make_five(path, ends);
    reopen();
    keep(SPOOL_OWED, DEBT_BUS, "newer");
    spool_close(&spool);
    ck_assert_int_eq(truncate(path, (off_t)size - 1), 0);
    open_with(MAX_BYTES, SEGMENT);
    ck_assert_str_eq(keys(), "first second third fourth newer");
    ck_assert_uint_eq(counts().damages, 1);
}
END_TEST

START_TEST(a_segment_under_another_name_is_none)
{
    char path[512];
    char other[512];
    size_t ends[5];
    make_five(path, ends);
    spool_close(&spool);
    snprintf(other, sizeof other, "%s/%016x.spool", directory, 9);
    ck_assert_int_eq(rename(path, other), 0);
    open_with(MAX_BYTES, SEGMENT);
    ck_assert_uint_eq(counts().entries, 0);
    ck_assert_uint_eq(counts().damages, 1);
}
END_TEST

/* --- space --- */

START_TEST(segments_come_and_go)
{
    struct spool_entry *old[4096];
    uint32_t n = 0;
    for (uint32_t i = 0; i < 4096; i++) {
        char key[100];
        snprintf(key, sizeof key, "key-%u-%060u", i, i);
        old[n++] = add(SPOOL_OWED, DEBT_BUS, key);
        if (n % 64 == 0) {
            ck_assert_int_eq(spool_commit(spool), OK);
        }
    }
    int most = directory_count(directory, ".spool", NULL);
    ck_assert_int_ge(most, 7);
    for (uint32_t i = 0; i < 2048; i++) {
        spool_clear(spool, old[i], DEBT_BUS);
    }
    ck_assert_int_eq(spool_commit(spool), OK);
    ck_assert_int_lt(directory_count(directory, ".spool", NULL), most);
    reopen();
    ck_assert_uint_eq(counts().entries, 2048);
    while (spool_first(spool) != NULL) {
        spool_clear(spool, spool_first(spool), DEBT_BUS);
    }
    ck_assert_int_eq(spool_commit(spool), OK);
    ck_assert_int_eq(directory_count(directory, ".spool", NULL), 1);
}
END_TEST

START_TEST(full_and_empty_again)
{
    char key[KEY_MAX + 1];
    uint32_t kept = 0;
    struct spool_entry *e;
    memset(key, 'k', KEY_MAX);
    key[KEY_MAX] = '\0';
    struct spool_record r = record(SPOOL_OWED, DEBT_BUS, key);
    while (spool_add(spool, &r, &e) == OK) {
        kept++;
        ck_assert_int_eq(spool_commit(spool), OK);
    }
    ck_assert_uint_ge(kept, MAX_BYTES / (SPOOL_RECORD_MAX + SPOOL_CLEARED_LEN) * 9 / 10);
    ck_assert_uint_le(counts().bytes, MAX_BYTES);
    ck_assert_int_eq(spool_add(spool, &r, &e), ERR_SPOOL_FULL);
    reopen();
    ck_assert_uint_eq(counts().entries, kept);
    ck_assert_int_eq(spool_add(spool, &r, &e), ERR_SPOOL_FULL);
    for (uint32_t i = 0; i < kept / 2; i++) {
        spool_clear(spool, spool_first(spool), DEBTS);
        ck_assert_int_eq(spool_commit(spool), OK);
        ck_assert_uint_le(counts().bytes, MAX_BYTES);
    }
    ck_assert_int_eq(spool_add(spool, &r, &e), OK);
    ck_assert_int_eq(spool_commit(spool), OK);
}
END_TEST

/* One entry in each segment is never cleared: what they hold must not fill the spool. */
START_TEST(a_few_that_stay_do_not_fill_it)
{
    uint32_t stay = 0;
    for (uint32_t i = 0; i < 60000; i++) {
        char key[100];
        snprintf(key, sizeof key, "key-%u-%060u", i, i);
        struct spool_entry *e = add(SPOOL_OWED, DEBT_NODE, key);
        if (i % 500 == 0) {
            stay++;
        } else {
            spool_clear(spool, e, DEBTS);
        }
        if (i % 100 == 0) {
            ck_assert_int_eq(spool_commit(spool), OK);
        }
    }
    ck_assert_int_eq(spool_commit(spool), OK);
    ck_assert_uint_eq(counts().entries, stay);
    ck_assert_uint_le(counts().bytes, MAX_BYTES);
    uint64_t last = 0;
    for (struct spool_entry *e = spool_first(spool); e != NULL; e = spool_next(spool, e)) {
        ck_assert_uint_gt(e->id, last); /* still by age */
        last = e->id;
    }
    reopen();
    uint32_t found = 0;
    last = 0;
    for (struct spool_entry *e = spool_first(spool); e != NULL; e = spool_next(spool, e)) {
        ck_assert_uint_gt(e->id, last);
        last = e->id;
        unsigned number;
        ck_assert_int_eq(sscanf(e->key, "key-%u-", &number), 1);
        found += number % 500 == 0;
    }
    ck_assert_uint_eq(found, stay);
}
END_TEST

/* --- a disk that does not take it --- */

static void limit_files(rlim_t bytes)
{
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

START_TEST(a_full_disk_and_room_again)
{
    char path[512];
    struct stat st;
    keep(SPOOL_OWED, DEBT_BUS, "before");
    directory_count(directory, ".spool", path);
    ck_assert_int_eq(stat(path, &st), 0);
    limit_files((rlim_t)st.st_size + 100); /* room for one more and a half */
    for (int i = 0; i < 3; i++) {
        add(SPOOL_OWED, DEBT_BUS, "lost-1");
        add(SPOOL_OWED, DEBT_BUS, "lost-2");
        ck_assert_int_eq(spool_commit(spool), ERR_SPOOL);
        ck_assert_ptr_nonnull(spool_problem(spool));
        ck_assert_str_eq(keys(), "before");
        ck_assert_uint_eq(counts().entries, 1);
        ck_assert_uint_eq(counts().failures, (uint64_t)i + 1);
    }
    keep(SPOOL_OWED, DEBT_BUS, "fits"); /* nothing half-written is in front of it */
    limit_files(RLIM_INFINITY);
    keep(SPOOL_OWED, DEBT_BUS, "after");
    ck_assert_ptr_null(spool_problem(spool));
    reopen();
    ck_assert_str_eq(keys(), "before fits after");
    ck_assert_uint_eq(counts().damages, 0);
}
END_TEST

START_TEST(no_room_for_a_segment)
{
    limit_files(10);
    for (int i = 0; i < 3; i++) {
        add(SPOOL_OWED, DEBT_BUS, "lost");
        ck_assert_int_eq(spool_commit(spool), ERR_SPOOL);
    }
    spool_probe(spool);
    ck_assert_int_eq(spool_commit(spool), ERR_SPOOL);
    ck_assert_int_eq(directory_count(directory, ".spool", NULL), 0);
    limit_files(RLIM_INFINITY);
    spool_probe(spool);
    ck_assert_int_eq(spool_commit(spool), OK);
    ck_assert_ptr_null(spool_problem(spool));
    ck_assert_uint_eq(counts().entries, 0);
}
END_TEST

START_TEST(clearing_on_a_full_disk)
{
    struct spool_entry *e = keep(SPOOL_OWED, DEBT_BUS, "k");
    limit_files(10);
    spool_clear(spool, e, DEBT_BUS);
    ck_assert_int_eq(spool_commit(spool), ERR_SPOOL);
    ck_assert_uint_eq(counts().entries, 0);
    limit_files(RLIM_INFINITY);
    reopen();
    ck_assert_str_eq(keys(), "k"); /* too much rather than too little */
}
END_TEST

/* --- the start --- */

static const char *refusal(const char *path)
{
    static char error[600];
    struct spool *other = NULL;
    struct spool_options options = {path, MAX_BYTES, SEGMENT};
    ck_assert_int_eq(spool_open(&options, NULL, &other, error, sizeof error), ERR_IO);
    ck_assert_ptr_null(other);
    return error;
}

START_TEST(one_process_at_a_time)
{
    ck_assert_ptr_nonnull(strstr(refusal(directory), "another process uses this directory"));
    keep(SPOOL_OWED, DEBT_BUS, "k");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) { /* what dies without a word lets go of it */
        spool_close(&spool);
        open_with(MAX_BYTES, SEGMENT);
        keep(SPOOL_OWED, DEBT_BUS, "child");
        raise(SIGKILL);
    }
    spool_close(&spool);
    waitpid(pid, NULL, 0);
    open_with(MAX_BYTES, SEGMENT);
    ck_assert_ptr_nonnull(strstr(keys(), "k"));
}
END_TEST

START_TEST(directories_that_are_no_good)
{
    char path[200];
    ck_assert_ptr_nonnull(strstr(refusal("/dev/null"), "/dev/null: can not open the directory: Not a directory"));
    ck_assert_ptr_nonnull(strstr(refusal("/no/such/place"), "/no/such/place: can not make the directory: No such file or directory"));
    ck_assert_ptr_nonnull(strstr(refusal("/proc/self"), "can not write in the directory"));
    snprintf(path, sizeof path, "%s/%016x.spool", directory, 3);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    spool_close(&spool);
    ck_assert_ptr_nonnull(strstr(refusal(directory), "can not be opened: Is a directory"));
    ck_assert_int_eq(rmdir(path), 0);
    open_with(MAX_BYTES, SEGMENT);
}
END_TEST

START_TEST(other_files_are_left_alone)
{
    static const char *const names[] = {"1.spool", "000000000000000G.spool", "0000000000000000.spool", "notes", "0000000000000001.spool.old"};
    spool_close(&spool);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        write_file(path, "x", 1);
    }
    open_with(MAX_BYTES, SEGMENT);
    ck_assert_uint_eq(counts().damages, 0);
    keep(SPOOL_OWED, DEBT_BUS, "k");
    reopen();
    ck_assert_str_eq(keys(), "k");
    ck_assert_int_eq(directory_count(directory, "notes", NULL) + directory_count(directory, ".old", NULL), 1);
}
END_TEST

START_TEST(it_makes_its_directory)
{
    char path[200];
    struct stat st;
    struct spool *other = NULL;
    char error[600];
    snprintf(path, sizeof path, "%s/new", directory);
    struct spool_options options = {path, MAX_BYTES, SEGMENT};
    ck_assert_int_eq(spool_open(&options, NULL, &other, error, sizeof error), OK);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700);
    spool_close(&other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("spool");
    TCase *t = tcase_create("spool");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, what_was_committed_is_found_again);
    tcase_add_test(t, a_pattern_stays_a_pattern);
    tcase_add_test(t, debts_are_paid_one_by_one);
    tcase_add_test(t, a_reservation_is_cancelled_promoted_or_found);
    tcase_add_test(t, a_promotion_never_moves_the_version_back);
    tcase_add_test(t, cut_off_at_every_byte);
    tcase_add_test(t, space_that_was_never_written_is_cut_off_too);
    tcase_add_test(t, damage_at_every_byte);
    tcase_add_test(t, damage_is_counted_and_the_file_kept);
    tcase_add_test(t, a_cut_in_an_older_segment_is_damage);
    tcase_add_test(t, a_segment_under_another_name_is_none);
    tcase_add_test(t, segments_come_and_go);
    tcase_add_test(t, full_and_empty_again);
    tcase_add_test(t, a_few_that_stay_do_not_fill_it);
    tcase_add_test(t, a_full_disk_and_room_again);
    tcase_add_test(t, no_room_for_a_segment);
    tcase_add_test(t, clearing_on_a_full_disk);
    tcase_add_test(t, one_process_at_a_time);
    tcase_add_test(t, directories_that_are_no_good);
    tcase_add_test(t, other_files_are_left_alone);
    tcase_add_test(t, it_makes_its_directory);
    suite_add_tcase(suite, t);
    return check_main(suite);
}
