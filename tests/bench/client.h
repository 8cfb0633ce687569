/* What:    one connection of the load generator: requests under way in order, what could not be sent yet, and replies taken from
 *          a receive buffer that all connections share.
 * Owns:    its descriptor and buffers, until client_close().
 * Threads: belongs to one thread.
 * Fails:   false with a line on stderr: the server closed, or sent what is no reply. A load run ends then.
 *
 *   client_queue ──▶ outbox ── client_flush ──▶ socket ──▶ client_receive ──▶ inbox ── client_take ──▶ completion
 *                              (rest: unsent)              (carry first)               (rest: carry)
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "tests/bench/bytes.h"
#include "tests/bench/protocol.h"
#include "tests/bench/requests.h"

struct flight {
    const struct request *request;
    uint64_t since; /* ns: when it was to be sent */
};

struct client {
    int fd;
    uint32_t depth;
    uint32_t head;
    uint32_t count;
    bool is_dirty; /* the driver's: has requests in its outbox */
    struct flight *flights;
    struct reply reply;
    char error[128]; /* why the reply under way failed, when the rest of it has not come yet */
    struct bytes carry;
    struct bytes unsent;
    struct flight *backlog; /* open loop: due, but depth requests are under way */
    uint32_t backlog_head;
    uint32_t backlog_count;
    uint32_t backlog_capacity;
};

struct completion {
    struct flight flight;
    struct reply reply;
};

bool client_open(struct client *c, const char *address, uint32_t depth);
void client_close(struct client *c);

static inline bool client_is_free(const struct client *c)
{
    return c->count < c->depth;
}

/* Appends the request to outbox, to be flushed before another client's. The client must be free. */
void client_queue(struct client *c, const struct requests *all, const struct request *request, uint64_t since, struct bytes *outbox);

/* One send; empties outbox. Sets *is_blocked when a part is left for the time when the socket is writable. */
bool client_flush(struct client *c, struct bytes *outbox, bool *is_blocked);

/* One recv. */
bool client_receive(struct client *c, struct bytes *inbox);

enum take { TAKE_REPLY, TAKE_MORE, TAKE_BROKEN };

/* The next whole reply; TAKE_MORE has saved the rest of the inbox. */
enum take client_take(struct client *c, const struct protocol *protocol, const struct shape *shape, struct bytes *inbox,
                      struct completion *out);

void client_delay(struct client *c, struct flight flight);
bool client_undelay(struct client *c, struct flight *out);

#endif
