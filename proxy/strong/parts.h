/* What:    what the controller is made of, for the files that make it: strong.c (start, end, what other threads ask), turn.c (its thread).
 * Owns:    see strong.h.
 * Threads: strong's thread alone, but for what says otherwise.
 */
#ifndef PROXY_STRONG_PARTS_H
#define PROXY_STRONG_PARTS_H

#include <pthread.h>

#include "common/gate.h"
#include "proxy/bus/election.h"
#include "proxy/bus/nats.h"
#include "proxy/strong/holder.h"
#include "proxy/strong/prepare.h"
#include "proxy/strong/ruling.h"
#include "proxy/strong/serve.h"
#include "proxy/strong/share.h"
#include "proxy/strong/strong.h"
#include "proxy/strong/suspension.h"
#include "proxy/strong/vote.h"

#define VOTE_KIND 'v'
#define ELECTION_KIND 'e'

/* A NATS that has a vote: the own region's (0), the peers' (1 …, as in config.bus.peers), the witnesses'. */
struct strong_voter {
    struct strong *strong;
    uint32_t index;
    const char *name;
    char section[32]; /* of the configuration */
    char url[300];    /* for messages */
    char reason[ACCESS_TEXT_MAX];
    char beacons[SUBJECT_MAX]; /* of a region */
    char locks[SUBJECT_MAX];   /* of the own region: for one of its sidecars, and for all of them */
    char all_locks[SUBJECT_MAX];
    struct link *link;
    struct vote vote;
    bool is_up;
    bool was_up;

    /* Of regions, witnesses are none. */
    struct suspension suspension;
    uint64_t beacon_us; /* when its holder was last heard of; 0: never */
    uint64_t number;    /* as it said */
    uint8_t mode;
};

struct strong {
    const struct config *config;
    struct log *log;
    struct metrics_shard *metrics;
    struct strong_sink sink;
    struct mailbox mailbox;
    pthread_t thread;
    bool has_thread;
    bool has_machines;
    struct gate gate;         /* closed: nothing is taken any more */
    _Atomic bool is_ending;   /* the thread is to end */
    _Atomic bool has_news;    /* the digest, or the pool */
    struct strong_validity validity;

    uint64_t sidecar; /* names this process */
    uint64_t ring;
    uint64_t print;  /* fingerprint of the voters' names */
    char client_name[96];
    struct strong_catch_up catch_up;
    bool is_catching_up;
    uint64_t catching_up_us; /* for which taken_over_us */
    uint64_t caught_up_us;
    uint64_t catch_up_due_us;
    struct election election;
    struct holder holder;
    struct share share;
    struct preparer preparer;
    struct server server;
    struct ruler ruler;

    struct voters votes;
    pthread_mutex_t status_lock;
    struct strong_status *status; /* one for each voter, for anybody; under status_lock */
    char problem[STRONG_TEXT];    /* of our share; likewise */
    uint32_t region_count;
    uint32_t voter_count;
    struct strong_voter voters[];
};

/* turn.c */
extern const struct transport_handler strong_handler;
void *strong_main(void *strong);

#endif
