/* What:    a wait for the other regions: whether all of them have applied what this region has published, as whoever waits sees it.
 * Owns:    nothing; a confirmation and its regions are lent to the bus from bus_confirm() until on_done.
 * Threads: bus_confirm() from any thread; on_done on the bus's thread, or within bus_confirm() once the bus is stopping.
 * Fails:   ERR_TIMEOUT (`until_us`), ERR_STOPPING, ERR_OVERLOAD (too many wait), ERR_BUS (this region's stream has lost what it had: it can not be known
 *          any more), ERR_INVALID (a position in another process's spool). What is known of each region is there all the same.
 *
 * How it is found out: confirm.h.
 */
#ifndef PROXY_BUS_CONFIRMATION_H
#define PROXY_BUS_CONFIRMATION_H

#include <stdatomic.h>

#include "common/list.h"
#include "common/mailbox.h"
#include "proxy/bus/jetstream.h"

/* Why a region has not. */
enum missing {
    MISSING_NOTHING,
    MISSING_NO_ANSWER,     /* JetStream has not said yet, or not what was asked */
    MISSING_NO_CONSUMER,   /* it has never come for this region's invalidations */
    MISSING_NOT_CONNECTED, /* it has, but none of its sidecars asks for them now */
    MISSING_BACKLOG,       /* it is at it */
    MISSING_SPOOLED,       /* they wait in this sidecar's spool */
    MISSING_BUS_AWAY,      /* this region's NATS is not connected */
    MISSING_UNKNOWN,       /* the stream has lost what it had */
    MISSING_COUNT
};

#define CONFIRMED_TEXT 160
struct confirmed {
    bool is_applied;
    uint64_t after_us; /* is_applied: seen so long after `since_us` */
    enum missing missing;
    uint64_t backlog; /* messages that it has been given and not acknowledged, or not been given; of the last two with a consumer */
    char text[CONFIRMED_TEXT]; /* what JetStream said instead, or "" */
};

/* Up to where: a message of this region's stream, or, as long as `created` is "", what was in the spool of this process. */
struct position {
    char created[CREATED_SIZE]; /* the stream's */
    uint64_t seq;
    uint64_t sidecar; /* whose spool that is; 0: none's */
    uint64_t spooled; /* 0: nothing */
};

struct confirmation {
    void (*on_done)(struct confirmation *confirmation);
    uint64_t since_us; /* monotonic: when what is waited for was begun */
    uint64_t until_us; /* at the latest */
    const _Atomic bool *is_stopping; /* nobody waits any more */
    bool has_position;        /* else: all that has been published, or put into the spool, by now */
    struct position position; /* and the result, as far as it is known */
    struct confirmed *regions; /* one for each of config.bus.peers */
    enum err err; /* the result */

    /* The bus's: */
    struct mail mail;
    struct list link;
    uint64_t ready;   /* number of the first question whose answer counts; 0: it waits in the spool */
    uint64_t looked_us; /* since when consumers are looked at */
    bool is_checked;  /* the position is one of the stream that is there */
};

struct bus;

void bus_confirm(struct bus *bus, struct confirmation *confirmation);

#endif
