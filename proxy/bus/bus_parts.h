/* What:    what the bus is made of, for the files that make it: bus.c (its thread), bus_post.c (what other threads hand to it), bus_status.c (what they ask).
 * Owns:    see bus.h.
 * Threads: see bus.h; what follows "The bus thread's." is that thread's alone.
 */
#ifndef PROXY_BUS_BUS_PARTS_H
#define PROXY_BUS_BUS_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/gate.h"
#include "proxy/bus/bus.h"
#include "proxy/bus/confirm.h"
#include "proxy/bus/consumer.h"
#include "proxy/bus/keeper.h"
#include "proxy/bus/nats.h"
#include "proxy/bus/publisher.h"
#include "proxy/bus/relays.h"
#include "proxy/bus/replayer.h"
#include "proxy/bus/rulebook.h"
#include "proxy/bus/spooler.h"

#define URL_MAX 300
#define REASON_MAX ACCESS_TEXT_MAX

struct bus_region {
    struct bus *bus;
    uint32_t index;
    const char *name;
    char url[URL_MAX];                /* for messages */
    char section[24];                 /* of the configuration, likewise */
    char reason[REASON_MAX]; /* why there is no connection, as it was last said */
    struct link *link;
    struct consumer consumer; /* not for the own region */
    bool is_up;
    bool was_up;
    uint64_t down_us;           /* since when */
    uint64_t remind_us;         /* when to say so again */
    char text[BUS_PROBLEM_MAX]; /* what is the matter, "" if nothing is; under status_lock */
};

struct bus {
    const struct config *config;
    struct log *log;
    struct metrics_shard *metrics;
    struct bus_sink sink;
    struct mailbox mailbox;
    pthread_t thread;
    bool has_thread;
    struct gate gate;         /* closed: nothing is taken any more */
    _Atomic bool is_ending;   /* the thread is to end */
    char client_name[96];

    /* The bus thread's. */
    struct publisher publisher;
    struct keeper keeper;
    struct replayer replayer;
    struct rulebook rulebook;
    struct ring ring;
    struct confirm confirm;
    struct relays relays;
    struct election sweeper; /* who sweeps the region's pool */

    _Atomic uint64_t sweeper_until_us; /* until when that is us */
    struct spooler *spooler; /* or NULL */
    pthread_mutex_t status_lock;
    uint32_t region_count;
    struct bus_region regions[];
};

#endif
