/* Run under ThreadSanitizer too: that is where a wrong memory order shows. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/gate.h"
#include "common/mailbox.h"
#include "tests/unit/check_main.h"

struct letter {
    struct mail mail;
    unsigned sender;
    unsigned number;
};

static bool is_readable(const struct mailbox *box)
{
    struct pollfd p = {.fd = box->fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

/* ---- one thread ---- */

struct reader {
    unsigned numbers[16];
    unsigned count;
    struct mailbox *box;
    struct letter *again;
};

static void deliver_number(struct mail *mail, void *owner)
{
    struct reader *reader = owner;
    reader->numbers[reader->count++] = container_of(mail, struct letter, mail)->number;
}

START_TEST(in_order_and_one_wake_up)
{
    struct mailbox box;
    struct reader reader = {0};
    struct letter letters[5];
    ck_assert_int_eq(mailbox_init(&box), OK);
    ck_assert(!is_readable(&box));
    ck_assert_uint_eq(mailbox_drain(&box, &reader), 0);
    for (unsigned i = 0; i < 5; i++) {
        letters[i] = (struct letter){.mail.deliver = deliver_number, .number = i};
        mailbox_post(&box, &letters[i].mail);
    }
    uint64_t wakes;
    ck_assert_int_eq(read(box.fd, &wakes, sizeof wakes), sizeof wakes);
    ck_assert_uint_eq(wakes, 1); /* five letters, one wake-up */
    ck_assert_uint_eq(mailbox_drain(&box, &reader), 5);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(reader.numbers[i], i);
    }
    ck_assert(!is_readable(&box));
    mailbox_post(&box, &letters[0].mail); /* after a drain the next one wakes again */
    ck_assert(is_readable(&box));
    ck_assert_uint_eq(mailbox_drain(&box, &reader), 1);
    mailbox_deinit(&box);
    ck_assert_int_eq(box.fd, -1);
    mailbox_deinit(&box); /* twice: nothing */
}
END_TEST

START_TEST(wake_without_mail)
{
    struct mailbox box;
    ck_assert_int_eq(mailbox_init(&box), OK);
    ck_assert_int_ne(fcntl(box.fd, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_ne(fcntl(box.fd, F_GETFD) & FD_CLOEXEC, 0);
    mailbox_wake(&box);
    mailbox_wake(&box);
    ck_assert(is_readable(&box));
    ck_assert_uint_eq(mailbox_drain(&box, NULL), 0);
    ck_assert(!is_readable(&box));
    uint64_t full = UINT64_MAX - 1;
    ck_assert_int_eq(write(box.fd, &full, sizeof full), sizeof full);
    mailbox_wake(&box); /* a counter that is full can not hang it */
    ck_assert(is_readable(&box));
    mailbox_deinit(&box);
}
END_TEST

static void deliver_and_post(struct mail *mail, void *owner)
{
    struct reader *reader = owner;
    struct letter *letter = container_of(mail, struct letter, mail);
    deliver_number(mail, owner);
    if (letter->number == 0) {
        letter->number = 7;
        mailbox_post(reader->box, mail); /* the same letter once more, from within */
    }
}

static void deliver_and_free(struct mail *mail, void *owner)
{
    deliver_number(mail, owner);
    free(container_of(mail, struct letter, mail));
}

START_TEST(a_letter_is_its_receivers)
{
    struct mailbox box;
    struct reader reader = {.box = &box};
    ck_assert_int_eq(mailbox_init(&box), OK);
    struct letter posted = {.mail.deliver = deliver_and_post, .number = 0};
    mailbox_post(&box, &posted.mail);
    for (unsigned i = 1; i < 4; i++) {
        struct letter *letter = xcalloc(1, sizeof *letter);
        letter->mail.deliver = deliver_and_free;
        letter->number = i;
        mailbox_post(&box, &letter->mail);
    }
    ck_assert_uint_eq(mailbox_drain(&box, &reader), 4); /* what is posted meanwhile waits */
    ck_assert(is_readable(&box));
    ck_assert_uint_eq(mailbox_drain(&box, &reader), 1);
    static const unsigned expected[] = {0, 1, 2, 3, 7};
    ck_assert_mem_eq(reader.numbers, expected, sizeof expected);
    mailbox_deinit(&box);
}
END_TEST

START_TEST(waits_for_mail_or_for_the_time)
{
    struct mailbox box;
    struct reader reader = {0};
    struct letter letter = {.mail.deliver = deliver_number, .number = 7};
    ck_assert_int_eq(mailbox_init(&box), OK);
    mailbox_wait(&box, &reader, 0); /* long past */
    uint64_t until_us = clock_mono_us() + 2000;
    mailbox_wait(&box, &reader, until_us);
    ck_assert_uint_ge(clock_mono_us(), until_us);
    ck_assert_uint_eq(reader.count, 0);
    mailbox_post(&box, &letter.mail);
    mailbox_wait(&box, &reader, UINT64_MAX);
    ck_assert_uint_eq(reader.count, 1);
    ck_assert_uint_eq(reader.numbers[0], 7);
    mailbox_deinit(&box);
}
END_TEST

START_TEST(a_gate_that_is_closed)
{
    struct mailbox box;
    struct gate gate = {0};
    struct reader reader = {0};
    struct letter letters[2] = {{.mail.deliver = deliver_number, .number = 1}, {.mail.deliver = deliver_number, .number = 2}};
    ck_assert_int_eq(mailbox_init(&box), OK);
    ck_assert(gate_post(&gate, &box, &letters[0].mail));
    ck_assert(gate_close(&gate));
    ck_assert(!gate_close(&gate));
    ck_assert(gate_is_closed(&gate));
    ck_assert(!gate_enter(&gate));
    ck_assert(!gate_post(&gate, &box, &letters[1].mail));
    ck_assert_uint_eq(mailbox_drain(&box, &reader), 1);
    mailbox_deinit(&box);
}
END_TEST

START_TEST(no_descriptor_left)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    struct rlimit none = {0, limit.rlim_max};
    struct mailbox box;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    enum err err = mailbox_init(&box);
    setrlimit(RLIMIT_NOFILE, &limit);
    ck_assert_int_eq(err, ERR_IO);
    mailbox_deinit(&box);
}
END_TEST

/* ---- threads ---- */

enum { SENDERS = 4, LETTERS = 20000 };

struct sender {
    pthread_t thread;
    struct mailbox *box;
    unsigned index;
};

struct receiver {
    unsigned next[SENDERS];
    unsigned total;
};

static void deliver_checked(struct mail *mail, void *owner)
{
    struct receiver *receiver = owner;
    struct letter *letter = container_of(mail, struct letter, mail);
    ck_assert_uint_eq(letter->number, receiver->next[letter->sender]); /* in the sender's order, none lost, none twice */
    receiver->next[letter->sender]++;
    receiver->total++;
    free(letter);
}

static void *send_all(void *arg)
{
    struct sender *sender = arg;
    for (unsigned i = 0; i < LETTERS; i++) {
        struct letter *letter = malloc(sizeof *letter);
        *letter = (struct letter){.mail.deliver = deliver_checked, .sender = sender->index, .number = i};
        mailbox_post(sender->box, &letter->mail);
        if (i % 64 == 0) {
            sched_yield();
        }
    }
    return NULL;
}

/* The receiver sleeps in poll() between drains: a lost wake-up would leave it there. */
START_TEST(many_senders)
{
    struct mailbox box;
    struct receiver receiver = {0};
    struct sender senders[SENDERS];
    ck_assert_int_eq(mailbox_init(&box), OK);
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.box = &box, .index = i};
        ck_assert_int_eq(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
    }
    while (receiver.total < SENDERS * LETTERS) {
        struct pollfd p = {.fd = box.fd, .events = POLLIN};
        int ready = poll(&p, 1, 20000);
        ck_assert_msg(ready == 1 || (ready < 0 && errno == EINTR), "no wake-up, %u letters received", receiver.total);
        mailbox_drain(&box, &receiver);
    }
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(senders[i].thread, NULL);
    }
    ck_assert_uint_eq(mailbox_drain(&box, &receiver), 0);
    mailbox_deinit(&box);
}
END_TEST

/* One letter to and fro: each side owns it in turn. */
struct player {
    pthread_t thread;
    struct mailbox in;
    struct player *other;
    unsigned hits;
    bool done;
};

enum { RALLY = 10000 };

static void hit(struct mail *mail, void *owner)
{
    struct player *player = owner;
    struct letter *ball = container_of(mail, struct letter, mail);
    player->hits++;
    player->done = ball->number >= RALLY - 1; /* the last two letters end one side each */
    if (ball->number++ < RALLY) {
        mailbox_post(&player->other->in, mail);
    }
}

static void *play(void *arg)
{
    struct player *player = arg;
    while (!player->done) {
        struct pollfd p = {.fd = player->in.fd, .events = POLLIN};
        if (poll(&p, 1, 20000) == 0) {
            abort();
        }
        mailbox_drain(&player->in, player);
    }
    return NULL;
}

START_TEST(to_and_fro)
{
    struct player a = {0}, b = {0};
    a.other = &b;
    b.other = &a;
    ck_assert_int_eq(mailbox_init(&a.in), OK);
    ck_assert_int_eq(mailbox_init(&b.in), OK);
    struct letter ball = {.mail.deliver = hit};
    pthread_create(&a.thread, NULL, play, &a);
    pthread_create(&b.thread, NULL, play, &b);
    mailbox_post(&a.in, &ball.mail);
    pthread_join(a.thread, NULL);
    pthread_join(b.thread, NULL);
    ck_assert_uint_eq(a.hits + b.hits, RALLY + 1);
    mailbox_deinit(&a.in);
    mailbox_deinit(&b.in);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mailbox");
    TCase *alone = tcase_create("one thread");
    tcase_add_test(alone, in_order_and_one_wake_up);
    tcase_add_test(alone, wake_without_mail);
    tcase_add_test(alone, a_letter_is_its_receivers);
    tcase_add_test(alone, waits_for_mail_or_for_the_time);
    tcase_add_test(alone, a_gate_that_is_closed);
    tcase_add_test(alone, no_descriptor_left);
    suite_add_tcase(suite, alone);
    TCase *threads = tcase_create("threads");
    tcase_set_timeout(threads, 60);
    tcase_add_test(threads, many_senders);
    tcase_add_test(threads, to_and_fro);
    suite_add_tcase(suite, threads);
    return check_main(suite);
}
