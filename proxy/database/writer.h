/* What:    writes of `write: through` namespaces to the primary, on a few threads of their own, each with one connection.
 * Owns:    its threads, connections and queue; a struct write is lent to it between submission and on_done, and can not be taken
 *          back (its deadline bounds the loan).
 * Threads: submit from any thread; on_done runs on the thread that drains `reply_to`.
 * Fails:   submit at once, with ERR_OVERLOAD when the queue is full, ERR_UNAVAILABLE when there is no connection, ERR_STOPPING; the
 *          write then has WRITE_FAILED and its text, and on_done is not called. Otherwise on_done is called once, whatever happens.
 *
 *   worker ── writer_submit ──▶ queue ──▶ writer thread: store->write ──▶ reply_to ──▶ on_done, on the worker
 *                                ▲              │
 *                                └──────────────┘ the connection was gone before anything could be committed: again, on another
 *
 *   watchdog: ends writes in the queue, and interrupts those under way and connection attempts, when their deadline has passed.
 *
 * What a caller does with the outcome:
 *
 *   WRITE_APPLIED        the row is committed. `row`, where found, is what a load would now return; else it is what was asked for
 *   NOT_STORED, EXISTS, NOT_FOUND, NON_NUMERIC, TOO_LARGE      the command's own answer; nothing has changed
 *   WRITE_REFUSED        SERVER_ERROR with `error`; nothing has changed
 *   WRITE_FAILED         SERVER_ERROR; nothing was committed, and nothing will be: the key may be served as before
 *   WRITE_IN_DOUBT       SERVER_ERROR; the row may be the old or the new one, and it may change for as long as the server takes to
 *                        give the statement up (lock waits and statements are limited to database.timeout there; no server limits
 *                        COMMIT itself). So the key must be invalidated with a version after that, or kept unfillable until a
 *                        locking read has settled it. Sending the same write again settles it, too, if it was a set or a delete.
 */
#ifndef PROXY_DATABASE_WRITER_H
#define PROXY_DATABASE_WRITER_H

#include "common/config.h"
#include "common/log.h"
#include "proxy/database/write.h"
#include "proxy/metric.h"

#define WRITER_GRACE_MS 100 /* without any connection, writes wait for one so long */

struct writer;
struct store;

/* Starts the threads; the database need not be there. The configuration has a database section. */
enum err writer_create(const struct config *config, struct log *log, struct metrics *metrics, struct writer **out);

/* The same with any store, for tests. */
enum err writer_create_with_store(const struct config *config, struct log *log, struct metrics *metrics, const struct store *store,
                                  struct writer **out);

/* Ends the threads: writes in the queue fail with ERR_STOPPING, those under way are interrupted, and may be in doubt. reply_to
 * mailboxes must still be drained afterwards. */
void writer_destroy(struct writer **writer);

enum err writer_submit(struct writer *writer, struct write *write);

/* Whether a touch of this namespace has anything to do in the database; if not, it is the cache entry's alone. */
bool writer_can_touch(const struct writer *writer, uint32_t namespace);

/* For /readyz: true while at least one connection is established; `text` says why not. */
bool writer_is_ready(struct writer *writer, char *text, size_t size);

#endif
