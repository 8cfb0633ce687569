/* What:    the inside of the loader: one database host (the primary, wherever it is, or the region's replica), with its threads and connections.
 *          Only loader.c, host.c and heartbeat.c know it.
 * Owns:    threads own their connections; all else hangs from struct loader.
 * Threads: everything is under the loader's mutex, except what says that it is a thread's own. x_locked() is called with the mutex held, and
 *          may release it meanwhile if it says so.
 * Fails:   see loader.h.
 */
#ifndef PROXY_DATABASE_HOST_H
#define PROXY_DATABASE_HOST_H

#include <pthread.h>

#include "proxy/database/breaker.h"
#include "proxy/database/loads.h"
#include "proxy/database/replica.h"
#include "proxy/database/store.h"

#define NEVER UINT64_MAX

enum thread_state { THREAD_IDLE, THREAD_CONNECTING, THREAD_LOADING };

struct host;

struct loader_thread {
    struct host *host;
    pthread_t id;
    bool is_started;
    struct metrics_shard *metrics; /* this thread's own */
    uint64_t random;               /* state of the back-off's jitter; this thread's own */

    enum thread_state state;
    struct store_connection *connection; /* changes only while idle */
    uint32_t epoch;                      /* host->epoch when it was opened */
    bool is_connected;
    bool is_interrupted;   /* by the watchdog, by a fail-over or at the end: the connection is of no more use */
    uint64_t deadline_us;  /* of connecting; NEVER: none, or already interrupted */
    struct load *batch[STORE_BATCH_MAX]; /* loads under way; NULL: the watchdog has ended it, or given it to the primary */
    uint32_t batch_count;
    uint32_t waiting;      /* of these, the ones that are not NULL */
    uint32_t failures;     /* connections that failed or were lost since the last load that was answered */

    /* This thread's own: what the store works on while the loads themselves may end. */
    struct store_load items[STORE_BATCH_MAX];
    char keys[STORE_BATCH_MAX][KEY_MAX];
};

struct host {
    struct loader *loader;
    enum host_kind kind;
    const struct address *addresses;
    uint32_t address_count; /* 0: this host is not configured */
    uint32_t current;       /* the address in use */
    uint32_t epoch;         /* changes with it */
    struct loader_thread *threads;
    uint32_t thread_count;
    pthread_cond_t work;      /* for idle threads: the queue has a load */
    uint32_t idle;            /* threads waiting for `work` */
    uint32_t connected;       /* threads with a connection */
    uint32_t closing;         /* threads that are closing one */
    uint32_t connecting;      /* threads that are making one; while there is none, only one of them does */
    uint64_t grace_until_us;  /* without one, loads wait until then */
    bool is_down;             /* without one, and loads do not wait */
    struct breaker breaker;
    char why[LOAD_ERROR_MAX]; /* the last thing that was wrong with a connection */
};

struct heartbeat;

struct loader {
    const struct config *config;
    struct log *log;
    const struct store *store;
    struct store_options options; /* without address and role */
    struct source *sources;       /* by namespace */
    struct host hosts[HOSTS];
    struct heartbeat *heartbeat; /* or NULL */
    pthread_t watchdog;
    bool has_watchdog;
    struct metrics_shard *watchdog_metrics; /* the watchdog's own */

    pthread_mutex_t mutex; /* guards all that follows, the hosts, and the shard */
    pthread_cond_t watch;  /* for the watchdog: there is an earlier deadline */
    pthread_cond_t stop;   /* for threads that wait to connect again, or to write a heartbeat */
    struct metrics_shard *metrics;
    bool is_stopping;
    struct loads loads;
    struct replica replica;
    uint64_t watch_at_us; /* when the watchdog looks next */
};

void host_init(struct host *host, struct loader *loader, enum host_kind kind, struct metrics *metrics);
void host_deinit(struct host *host);
void *host_thread_main(void *thread);

/* Whether a load may be given to it now; `text` says why not. */
bool host_admits_locked(struct host *host, char *text, size_t size);
void host_wake_locked(struct host *host);
void host_failed_locked(struct host *host); /* tells the breaker */

void loader_watch_locked(struct loader *loader, uint64_t at_us);
void loader_wait_until_locked(struct loader *loader, pthread_cond_t *cond, uint64_t at_us);
void loader_interrupt_locked(struct loader_thread *t);

#endif
