/* What:    the tables in the database against the configuration: creates those that are Outrigger's own, checks all that are mapped, once
 *          for the command line, or in the background until it could be done.
 * Owns:    its connection, while it works; struct schema_watch its thread.
 * Threads: the caller's; or one of its own, which ends by itself after the check.
 * Fails:   ERR_CONFIG when a mapping can not work, ERR_UNAVAILABLE without a database; the reasons go to `out`.
 */
#ifndef PROXY_DATABASE_SCHEMA_H
#define PROXY_DATABASE_SCHEMA_H

#include "common/config.h"
#include "common/log.h"

struct store;
struct schema_watch;

/* Creates the built-in tables that are not there, and says for each what became of it. */
enum err schema_init(const struct config *config, const struct store *store, FILE *out);

/* Every problem is a line. */
enum err schema_check(const struct config *config, const struct store *store, FILE *out);

/* The same with the log for the lines, as soon as the database can be reached. */
enum err schema_watch_start(const struct config *config, const struct store *store, struct log *log, struct schema_watch **out);
void schema_watch_stop(struct schema_watch **watch);

/* Statements of deploy/schema.sql, for these tables; to be freed. */
char *schema_entries_sql(const char *table);
char *schema_heartbeat_sql(const char *table);
char *schema_first_heartbeat_sql(const char *table);

#endif
