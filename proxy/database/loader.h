/* What:    loads rows for cache misses on a few threads of their own, each with one database connection.
 * Owns:    its threads, connections and queue; a struct load belongs to its submitter, is lent to the loader between submission
 *          and on_done, and can not be taken back (its deadline bounds the loan).
 * Threads: submit and join from any thread; on_done runs on the thread that drains `reply_to`.
 * Fails:   submit at once with ERR_OVERLOAD when the queue is full, ERR_UNAVAILABLE when there is no connection, ERR_STOPPING;
 *          loads end with ERR_TIMEOUT, ERR_UNAVAILABLE, ERR_DATABASE, ERR_TOO_LARGE, ERR_NOMEM or ERR_STOPPING. `error` says why.
 *
 *   worker ── loader_submit ──▶ intake of this turn ── loader_flush ──▶ queue ──▶ loader thread: store->load ──▶ reply_to ──▶ on_done,
 *                                │                                      ▲             │                                    on the worker
 *                                │                                      └─────────────┘ the connection was gone: again, on another
 *                                │ loader_join: same key, same lease: waits for that load's result, copied
 *
 *   A thread takes what waits for one table together, up to `batch` of them, locking loads and others apart, and asks with one statement. What a worker submits in one
 *   turn of its loop (a multi-get's misses) reaches the queue in one piece, so that no thread runs off with the first of it.
 *
 *   watchdog: ends loads, in the queue or under way, when their deadline has passed; interrupts a statement that nobody waits for any more, and
 *   connection attempts that take too long.
 *
 * Replica: asked first while replica.h allows and its breaker is closed; what it does not answer in half the time, or not as fresh as
 *          min_version, the primary is asked for. Only what the primary does not answer is an error.
 * Breaker: each host has one (breaker.h). While the primary's is open, loads fail at once.
 * Primary: of several addresses the one in use is that which is not read_only; every statement reads that along (a witness, source.h).
 *          When it is read-only or can not be reached, all connections to it are given up before another address is tried.
 *
 * When the last connection is lost, loads wait for a new one for LOADER_GRACE_MS, or until a connection attempt has failed; then
 * all that wait and all that come fail at once until there is one again.
 */
#ifndef PROXY_DATABASE_LOADER_H
#define PROXY_DATABASE_LOADER_H

#include "common/buffer.h"
#include "common/config.h"
#include "common/log.h"
#include "common/mailbox.h"
#include "proxy/database/source.h"
#include "proxy/metric.h"

#define LOAD_ERROR_MAX 160
#define LOADER_GRACE_MS 100

struct load {
    /* Set by the submitter. */
    struct mailbox *reply_to;
    void (*on_done)(struct load *load);
    uint32_t namespace; /* index in config.namespaces; it has a source */
    uint64_t lease;     /* CAS of the lease that was won or seen; loads of one key and lease may be joined. 0: none, not joined */
    uint64_t version;   /* lower bound of when the row was true: taken before submission. In the result it may be older: the row is a replica's,
                         * or that of the load that was joined */
    uint64_t min_version; /* an older row is of no use: one of the replica's is asked for again from the primary. 0: any will do */
    bool primary_only;    /* nothing is known that a replica's row could be measured by */
    bool is_locking;      /* waits, until the deadline, for whoever has the row locked; of the primary, whatever primary_only says */
    uint64_t deadline_us; /* clock_mono_us() */
    uint16_t key_len;
    char key[KEY_MAX]; /* the whole key, prefix included */

    /* The result. */
    enum err err;
    char error[LOAD_ERROR_MAX]; /* what the database said, when err is set */
    bool found;
    uint32_t flags;
    int64_t expires_in_s; /* of a row with its own expiry; -1: none */
    struct chunk *value;  /* when found: the value is value->data[0..value_len), with ROW_VALUE_SLACK bytes of room behind it;
                           * owned by the submitter from on_done on */
    size_t value_len;

    /* The loader's. */
    struct mail mail;
    struct load *next;
    struct load *joined;    /* loads waiting for this one's result */
    struct load *in_bucket; /* of the table of loads that can be joined */
    uint64_t submitted_us;
    enum host_kind host;       /* whose queue it is in, or who is being asked */
    uint64_t replica_until_us; /* then the primary is asked instead */
    uint32_t attempts; /* connections that were lost under it */
};

/* What one thread has submitted and not flushed yet. Zeroed before its first use; the loader's mutex guards it. */
struct loader_intake {
    struct load *head;
    struct load *tail;
    uint32_t count;
};

struct loader;
struct store;

/* Starts the threads; the database need not be there: each thread connects when it can. The configuration has a database section.
 * `metrics`: the loader makes its own shards. */
enum err loader_create(const struct config *config, struct log *log, struct metrics *metrics, struct loader **out);

/* The same with any store, for tests. */
enum err loader_create_with_store(const struct config *config, struct log *log, struct metrics *metrics,
                                  const struct store *store, struct loader **out);

/* Ends the threads; loads under way end with ERR_STOPPING. reply_to mailboxes must still be drained afterwards. */
void loader_destroy(struct loader **loader);

/* The load waits in the intake, where it can be joined already, for loader_flush() by the same thread. */
enum err loader_submit(struct loader *loader, struct loader_intake *intake, struct load *load);

/* At the end of every turn; costs nothing without loads. What can not go on meanwhile ends with an error. */
void loader_flush(struct loader *loader, struct loader_intake *intake);

/* Waits for a load of the same namespace, key and lease that is under way in this process; false if there is none, or no room to
 * wait. It ends with that load's result, or at its own deadline. */
bool loader_join(struct loader *loader, struct load *load);

/* For /readyz: true while at least one connection is established; `text` says why not. */
bool loader_is_ready(struct loader *loader, char *text, size_t size);

#endif
