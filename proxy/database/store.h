/* What:    the seam between the loader and a database: one connection, and one row through it. The other user is the fake of the
 *          loader's tests.
 * Owns:    a connection owns its socket and statements; options, sources and configuration are borrowed for its life.
 * Threads: a connection is used by one thread at a time. interrupt() comes from any other thread, between open and close.
 * Fails:   connect and load write what the database said to `error`. ERR_CLOSED from load: the connection is gone, and the row
 *          may be asked for again on another. After every other error the connection is as good as before.
 *
 *   open ─▶ connect ─▶ load, load, … ─▶ close        a connection that is gone is closed, and another one opened
 *              ▲          ▲
 *              └──────────┴── interrupt: what blocks returns soon, with an error; the connection is of no more use
 */
#ifndef PROXY_DATABASE_STORE_H
#define PROXY_DATABASE_STORE_H

#include "proxy/database/source.h"

struct store_connection;

struct store_options {
    const struct config_database *config;
    const struct source *sources; /* by namespace */
    uint32_t source_count;
    uint64_t max_value_size;
};

struct store {
    /* Does no I/O. The first call of a process must not race with others. */
    struct store_connection *(*open)(const struct store_options *options);
    /* Blocks, for about connect_timeout at most. */
    enum err (*connect)(struct store_connection *connection, char *error, size_t size);
    /* Without an error, *row is all set; otherwise it is not touched. `key` is the row key. */
    enum err (*load)(struct store_connection *connection, uint32_t source, struct span key, struct row *row, char *error,
                     size_t size);
    /* False once the other side is known to have closed an idle connection; does not block. */
    bool (*is_alive)(struct store_connection *connection);
    void (*interrupt)(struct store_connection *connection);
    void (*close)(struct store_connection **connection);
};

/* MySQL and MariaDB (store_mysql.c). */
extern const struct store store_mysql;

#endif
