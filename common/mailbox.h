/* What:    the only channel between threads: messages whose ownership moves with them.
 * Owns:    its eventfd; never the messages that pass through.
 * Threads: mailbox_post() from any thread; mailbox_drain() and deinit by the owner only.
 * Fails:   init with ERR_IO when no descriptor is left. Posting can not fail; senders bound what they have under way.
 *
 * Only the message that finds the box empty wakes the owner. Messages of one sender arrive in the order they were posted.
 */
#ifndef COMMON_MAILBOX_H
#define COMMON_MAILBOX_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/err.h"

/* Embedded in what is sent. deliver() runs on the owner's thread and takes the message over. */
struct mail {
    struct mail *next;
    void (*deliver)(struct mail *mail, void *owner);
};

struct mailbox {
    _Atomic(struct mail *) head; /* newest first */
    int fd;                      /* eventfd, non-blocking: readable while there is mail */
};

enum err mailbox_init(struct mailbox *box);
void mailbox_deinit(struct mailbox *box);

void mailbox_post(struct mailbox *box, struct mail *mail);
void mailbox_wake(struct mailbox *box); /* makes fd readable without mail */

/* Delivers all that is there, oldest first; returns how many. */
unsigned mailbox_drain(struct mailbox *box, void *owner);

/* Waits until there is mail, or until `until_us` (clock_mono_us(); UINT64_MAX: for ever), and delivers it. */
void mailbox_wait(struct mailbox *box, void *owner, uint64_t until_us);

#endif
