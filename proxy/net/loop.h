/* What:    a worker thread's event loop: readiness and timers from libevent, the mailbox, memory for bytes, and the end of a turn.
 * Owns:    its event base, mailbox and chunk pool.
 * Threads: everything here belongs to the loop's own thread, except loop_stop() and posting to the mailbox.
 * Fails:   init with ERR_IO when the kernel has no descriptors left.
 *
 * A turn: wait → every ready socket's callback (reads, parses, queues output) → the same for what TLS still holds → on_turn_end, the owner's →
 * flush: one writev for each stream with output → bury:
 * streams that were closed in the turn are freed. Nothing is freed inside a callback, so a callback may close any stream.
 */
#ifndef PROXY_NET_LOOP_H
#define PROXY_NET_LOOP_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdatomic.h>

#include "common/buffer.h"
#include "common/list.h"
#include "common/mailbox.h"

#define LOOP_SCRATCH (CHUNK_BYTES_MAX - sizeof(struct chunk))
#define CHUNK_BYTES_MAX (1UL << CHUNK_CLASS_MAX)

struct loop {
    struct event_base *base;
    struct mailbox mailbox;
    struct event mailbox_event;
    void *owner; /* handed to mail's deliver() */
    void (*on_turn_end)(struct loop *loop); /* or NULL: for what the owner has gathered in a turn */
    struct chunk_pool chunks;
    struct chunk *scratch; /* what sockets are read into; replaced whenever somebody keeps a reference */
    struct list dirty;     /* streams with output */
    struct list dead;      /* streams to be freed */
    struct list unread;    /* streams that hold input for which their sockets will not become readable: TLS */
    uint64_t now_us;       /* monotonic, taken when a socket or timer woke us */
    _Atomic bool stopping;
};

/* `memory_limit`: for all bytes under way in this loop. */
enum err loop_init(struct loop *loop, void *owner, size_t memory_limit);
void loop_deinit(struct loop *loop);

/* Runs until loop_stop(). */
void loop_run(struct loop *loop);
void loop_turn(struct loop *loop, bool may_wait);
void loop_stop(struct loop *loop); /* any thread */

/* One timer; the caller's memory, which must stay until it has fired or was stopped. */
struct timer {
    struct event event;
    struct loop *loop;
    void (*on_timer)(struct timer *timer);
};

void timer_init(struct timer *timer, struct loop *loop, void (*on_timer)(struct timer *timer));
void timer_start(struct timer *timer, uint64_t delay_us); /* once; starting again moves it */
void timer_stop(struct timer *timer);

#endif
