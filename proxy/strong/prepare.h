/* What:    this sidecar's strong writes: a lock (or a tombstone, or a rule) for each in every region that has a lease; the regions that can not be asked
 *          are left out once they are suspended.
 * Owns:    the writes from preparer_submit() to their on_prepared, and from preparer_finish() to their end.
 * Threads: strong's.
 * Fails:   see strong.h.
 *
 *   WAITING (for a write of the same key here) ──▶ ASKING ──all regions locked, or out──▶ PREPARED ──finish──▶ locks are given up
 *                                                    │ ▲ └─ one can not be had ──▶ given up, on_prepared with the error
 *                         another's lock: given up ──▼ │
 *                                                 PAUSING, until prepare_timeout
 *
 *   a region:  ASKING ──▶ LOCKED │ BUSY (another's lock) │ FAILED (refused)
 *                 └── no answer for prepare_timeout, or known to be suspended ──▶ SUSPENDING ──▶ OUT │ FAILED
 *
 * Asked is the sidecar of the region that answered last (so locks and their ends come in order), or else any one; a quarter of prepare_timeout later all of them, again
 * and again with the same version, which is harmless: whoever has a share answers, and one that stands still costs its region nothing. Nothing is given up before all
 * regions have answered, lest a lock overtake its own end and stay for lock_window (which would cost time, and nothing else).
 */
#ifndef PROXY_STRONG_PREPARE_H
#define PROXY_STRONG_PREPARE_H

#include "common/list.h"
#include "common/version.h"
#include "proxy/bus/transport.h"
#include "proxy/strong/message.h"
#include "proxy/strong/strong.h"
#include "proxy/strong/suspension.h"

#define PREPARE_REGIONS_MAX 17
#define PREPARE_WRITES_MAX 16384U
#define PREPARE_KIND 'l'

/* Locks that were given up lately, with one sidecar: if that is silent, all are told. */
#define PREPARE_RECENT 64U
struct prepare_commit {
    uint64_t version; /* 0: none */
    uint16_t key_len;
    char key[KEY_MAX];
};

struct prepare_region {
    const char *name;
    struct transport *transport;
    struct suspension *suspension;
    uint32_t metric; /* index of the region in metrics */
    uint64_t down_us; /* since when there is no connection to it; 0: there is one */
    char group[SUBJECT_MAX];     /* any one of its sidecars */
    char everybody[SUBJECT_MAX]; /* all of them */
    char server[SUBJECT_MAX];    /* the one that answered last; "" before that, and when it has been silent */
    struct prepare_commit recent[PREPARE_RECENT];
    uint32_t next_recent;
    char holder[SUBJECT_MAX];  /* where its holder takes rules; "" while none is known */
};

struct prepare;

struct preparer {
    const struct config *config;
    struct metrics_shard *metrics;
    uint64_t sidecar;
    uint64_t voters;
    uint64_t random;
    uint64_t timeout_us; /* prepare_timeout */
    uint64_t majority_us; /* since when we are connected to a majority of the voters; 0: we are not */
    uint32_t region_count;
    struct prepare_region regions[PREPARE_REGIONS_MAX];

    uint32_t generation; /* of attempts: an answer to an earlier one is not heeded */
    uint32_t count;
    uint64_t due_us; /* of the next look at all of them */
    struct list active; /* asking and pausing */
    struct prepare **slots; /* PREPARE_WRITES_MAX */
    uint32_t *free_slots;
    struct list *keys; /* by hash of the key: all that are not finished, oldest first */
    bool is_stopping;
};

void preparer_init(struct preparer *preparer, const struct config *config, struct metrics_shard *metrics, uint64_t sidecar, uint64_t voters);
void preparer_deinit(struct preparer *preparer);
/* Those under way end with ERR_STOPPING, and so does every later one. */
void preparer_stop(struct preparer *preparer);

void preparer_submit(struct preparer *preparer, struct strong_write *write, uint64_t now_us);
void preparer_finish(struct preparer *preparer, struct strong_write *write, uint64_t now_us);

/* The holder of a region is heard, with its lease. Where it was silent and is about to be suspended, it was perhaps we who were cut off: it is asked once more. */
void preparer_on_beacon(struct preparer *preparer, uint32_t region, uint64_t now_us);
/* An answer to "<inbox>.l.<number>". */
void preparer_on_answer(struct preparer *preparer, uint64_t number, const struct incoming *incoming, uint64_t now_us);
/* Does what is due; returns when to call again. */
uint64_t preparer_step(struct preparer *preparer, uint64_t now_us);

/* Ends one that is not under way. */
void strong_write_refuse(struct strong_write *write, enum err err, const char *text);

#endif
