/* What:    the seam between the loader and a database: one connection, and rows of one source through it. The other user is the fake
 *          of the loader's tests.
 * Owns:    a connection owns its socket and statements; options, sources and configuration are borrowed for its life.
 * Threads: a connection is used by one thread at a time. interrupt() comes from any other thread, between open and close.
 * Fails:   connect and load write what the database said to `error`. A row that fails does so by itself: too large, not to be mapped.
 *          ERR_CLOSED from load: the connection is gone, and rows with ERR_CLOSED may be asked for again on another. After every
 *          other error the connection is as good as before.
 *
 *   open ─▶ connect ─▶ load, load, … ─▶ close        a connection that is gone is closed, and another one opened
 *              ▲          ▲
 *              └──────────┴── interrupt: what blocks returns soon, with an error; the connection is of no more use
 */
#ifndef PROXY_DATABASE_STORE_H
#define PROXY_DATABASE_STORE_H

#include "proxy/database/mapping.h"
#include "proxy/database/write.h"

#define STORE_BATCH_MAX 128U
#define STORE_ERROR_MAX 160

struct store_connection;

/* One row of a batch. Two of them may ask for the same. */
struct store_load {
    struct span key; /* the row key */
    enum err err;
    bool is_done;    /* the store's: err and row are what they will be */
    struct span fields[KEY_FIELDS_MAX]; /* the store's: of the key */
    struct row row;  /* when err is OK; otherwise nothing of it is set */
    uint64_t heartbeat; /* of a replica: the newest that it had applied; 0: there is none */
    char error[STORE_ERROR_MAX];
};

struct store_batch {
    uint32_t source;
    bool is_locking; /* the rows are read with a shared lock, which waits for writers; not of a replica */
    uint32_t count; /* 1 … STORE_BATCH_MAX */
    struct store_load *loads;
    /* Out: how many statements it took, and the row keys they asked for together. */
    uint32_t queries;
    uint32_t queries_failed;
    uint32_t keys_asked;
};

enum store_role {
    STORE_PRIMARY,
    STORE_PRIMARY_OF_SEVERAL, /* connecting fails with ERR_UNSUPPORTED, and loading with ERR_CLOSED, if it is read-only */
    STORE_REPLICA,            /* loads bring the heartbeat */
};

struct store_options {
    const struct config_database *config;
    const struct address *address;
    enum store_role role;
    const struct source *sources; /* by namespace */
    uint32_t source_count;
    uint64_t max_value_size;
    bool is_writer; /* the connection is for writes: what does not fit is an error, and locks are not waited for longer than need be */
};

struct store {
    /* Does no I/O. The first call of a process must not race with others. */
    struct store_connection *(*open)(const struct store_options *options);
    /* Blocks, for about connect_timeout at most. */
    enum err (*connect)(struct store_connection *connection, char *error, size_t size);
    /* Every load of the batch ends with its err, whatever is returned: OK or ERR_CLOSED. */
    enum err (*load)(struct store_connection *connection, struct store_batch *batch);
    /* Ends the write, whatever is returned: OK, or ERR_CLOSED when the connection is of no more use. */
    enum err (*write)(struct store_connection *connection, struct write *write);
    /* Writes the heartbeat, unless another owner has within lease_us (heartbeat.h). NULL: this store has none. */
    enum err (*beat)(struct store_connection *connection, uint64_t version, uint64_t owner, uint64_t lease_us, bool *is_owner, char *error,
                     size_t size);
    /* What the table of a source is like. No such table is no error. */
    enum err (*describe)(struct store_connection *connection, uint32_t source, struct mapping_table *table, char *error, size_t size);
    /* A statement without a result. */
    enum err (*run)(struct store_connection *connection, const char *sql, char *error, size_t size);
    /* False once the other side is known to have closed an idle connection; does not block. */
    bool (*is_alive)(struct store_connection *connection);
    void (*interrupt)(struct store_connection *connection);
    void (*close)(struct store_connection **connection);
};

/* MySQL and MariaDB (store_mysql.c). */
extern const struct store store_mysql;

#endif
