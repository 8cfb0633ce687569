#include "common/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base.h"
#include "common/clock.h"

enum err mailbox_init(struct mailbox *box)
{
    atomic_init(&box->head, NULL);
    box->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return box->fd < 0 ? ERR_IO : OK;
}

void mailbox_deinit(struct mailbox *box)
{
    if (box->fd >= 0) {
        close(box->fd);
        box->fd = -1;
    }
}

void mailbox_wake(struct mailbox *box)
{
    uint64_t one = 1;
    ssize_t n;
    do {
        n = write(box->fd, &one, sizeof one);
    } while (n < 0 && errno == EINTR); /* EAGAIN: the counter is full, so it is readable anyway */
}

void mailbox_post(struct mailbox *box, struct mail *mail)
{
    struct mail *old = atomic_load_explicit(&box->head, memory_order_relaxed);
    do {
        mail->next = old;
    } while (!atomic_compare_exchange_weak_explicit(&box->head, &old, mail, memory_order_release, memory_order_relaxed));
    if (old == NULL) {
        mailbox_wake(box);
    }
}

unsigned mailbox_drain(struct mailbox *box, void *owner)
{
    uint64_t count;
    ssize_t ignored = read(box->fd, &count, sizeof count); /* before taking the mail, or a wake-up could be lost */
    (void)ignored;
    struct mail *newest = atomic_exchange_explicit(&box->head, NULL, memory_order_acquire);
    struct mail *oldest = NULL;
    while (newest != NULL) {
        struct mail *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    unsigned delivered = 0;
    while (oldest != NULL) {
        struct mail *mail = oldest;
        oldest = mail->next; /* before delivery: the message may be freed or posted again in it */
        mail->deliver(mail, owner);
        delivered++;
    }
    return delivered;
}

#define LONGEST_US 3600000000ULL /* poll() takes an int */

void mailbox_wait(struct mailbox *box, void *owner, uint64_t until_us)
{
    struct pollfd poll_fd = {.fd = box->fd, .events = POLLIN};
    uint64_t now_us = clock_mono_us();
    uint64_t us = until_us > now_us ? MIN(until_us - now_us, LONGEST_US) : 0;
    poll(&poll_fd, 1, (int)((us + 999) / 1000));
    mailbox_drain(box, owner);
}
