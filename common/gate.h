/* What:    the door of a thread that others post to: once it is closed nobody is inside, so nothing gets into a mailbox that nobody drains any more.
 * Owns:    nothing beyond the caller's struct, which begins zeroed: open.
 * Threads: any; gate_close() waits for those inside, who stay for a few instructions each.
 */
#ifndef COMMON_GATE_H
#define COMMON_GATE_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/mailbox.h"

struct gate {
    _Atomic bool is_closed;
    _Atomic uint32_t inside; /* between looking at is_closed and having done what they came for */
};

static inline bool gate_is_closed(const struct gate *gate)
{
    return atomic_load(&gate->is_closed);
}

static inline void gate_leave(struct gate *gate)
{
    atomic_fetch_sub(&gate->inside, 1);
}

/* False: it is closed. Otherwise gate_leave() must follow. */
static inline bool gate_enter(struct gate *gate)
{
    atomic_fetch_add(&gate->inside, 1);
    if (!gate_is_closed(gate)) {
        return true;
    }
    gate_leave(gate);
    return false;
}

/* False: it is closed, and the message is the sender's still. */
static inline bool gate_post(struct gate *gate, struct mailbox *box, struct mail *mail)
{
    if (!gate_enter(gate)) {
        return false;
    }
    mailbox_post(box, mail);
    gate_leave(gate);
    return true;
}

/* False: it was closed before. */
static inline bool gate_close(struct gate *gate)
{
    if (atomic_exchange(&gate->is_closed, true)) {
        return false;
    }
    while (atomic_load(&gate->inside) > 0) {
        sched_yield();
    }
    return true;
}

#endif
