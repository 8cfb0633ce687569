/* What:    what the parts of the MySQL store share: the connection, what its errors mean, and what columns are.
 * Owns:    see struct store_connection.
 * Threads: as store.h.
 * Fails:   as store.h. Only these files know mysql.h.
 *
 *   store_mysql.c       connecting, and the table of store.h
 *   store_mysql_load.c  rows: its prepared statements belong to it alone
 *   store_mysql_write.c writes: likewise, with _statement, _row and _value behind store_mysql_writing.h
 *   store_mysql_schema.c  what tables are like
 *   store_mysql_heartbeat.c
 */
#ifndef PROXY_DATABASE_STORE_MYSQL_H
#define PROXY_DATABASE_STORE_MYSQL_H

#include <mysql.h>

#include <pthread.h>

#include "proxy/database/store.h"

/* Connector/C has its own type for a flag, which Oracle's library did away with. */
#ifdef LIBMARIADB
typedef my_bool db_bool;
#else
typedef bool db_bool;
#endif

struct store_connection {
    struct store_options options;
    MYSQL *mysql;
    struct write_source *writes;   /* store_mysql_write.c's, by source; NULL: none yet */
    bool is_rollback_lost; /* a transaction may still be open */
    bool has_clock;
    int64_t clock_us; /* the database's clock minus clock_mono_us(), never more than it is */
    struct load_statement **loads; /* store_mysql_load.c's, by source, whether it locks and number of keys; NULL: not prepared yet */
    pthread_mutex_t mutex; /* guards the next two */
    int fd;                /* what interrupt() shuts down, -1: nothing */
    bool is_interrupted;
    bool is_fd_own; /* a duplicate: the library closes its own descriptor whenever it sees an error */
};

/* What an error means for a statement. ERR_CONFLICT: it is out of date; OK: no row can equal this key. */
enum err store_mysql_classify(unsigned code);

/* Writes the text to `error`, with the namespace and table that it is about, and returns `err`. */
enum err store_mysql_fail(const struct source *source, enum err err, char *error, size_t size, const char *text, unsigned code);

/* What went wrong with a statement. Connector/C does not copy an error that arrives among the rows to the statement. */
enum err store_mysql_fail_stmt(const struct source *source, MYSQL *mysql, MYSQL_STMT *stmt, char *error, size_t size);

/* What @@read_only says. */
bool store_mysql_is_writable(struct span read_only);

enum column_kind store_mysql_kind_of(const MYSQL_FIELD *field);

/* Character strings, binary strings and what is kept like them. */
bool store_mysql_is_string(const MYSQL_FIELD *field);
bool store_mysql_is_binary(const MYSQL_FIELD *field);

bool store_mysql_is_integer(const MYSQL_FIELD *field);

/* store_mysql_write.c */
enum err store_mysql_write(struct store_connection *c, struct write *write);
void store_mysql_write_close(struct store_connection *c);
/* store_mysql_heartbeat.c */
enum err store_mysql_beat(struct store_connection *c, uint64_t version, uint64_t owner, uint64_t lease_us, bool *is_owner, char *error,
                          size_t size);
/* The witness (source.h) that loads on such a connection need, to be freed; or NULL. */
char *store_mysql_witness(const struct store_options *options);

/* store_mysql_schema.c */
enum err store_mysql_describe(struct store_connection *c, uint32_t source, struct mapping_table *table, char *error, size_t size);
enum err store_mysql_run(struct store_connection *c, const char *sql, char *error, size_t size);

/* store_mysql_load.c */
#define STORE_MYSQL_SHAPES 5U
#define STORE_MYSQL_LOADS (2 * STORE_MYSQL_SHAPES) /* of one source */
enum err store_mysql_load(struct store_connection *c, struct store_batch *batch);
void store_mysql_load_close(struct store_connection *c);

#endif
