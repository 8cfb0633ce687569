/* What:    writes the heartbeat: one row on the primary that holds the clock of one sidecar, from which a replica's reader learns how much of
 *          the primary's history the replica shows.
 * Owns:    its thread and connection.
 * Threads: create, start and destroy by the loader's owner; interrupt_locked under the loader's mutex.
 * Fails:   start with ERR_NOMEM. Whatever goes wrong later is logged and tried again; meanwhile the heartbeat ages, replicas are not used any
 *          more after max_replica_lag, and everything is read from the primary.
 *
 * The claim: who sees the heartbeat h on a replica sees there every change whose commit was acknowledged before the writer's clock read h.
 *
 *   1. The writer reads its clock first, then sends the UPDATE. A commit that was acknowledged before that reading is in the primary's binlog
 *      already, so it is before the UPDATE's commit there, however long the UPDATE takes.
 *   2. A replica shows transactions in the order of the primary's binlog. (It does with one source, no filters for these tables, and ordered
 *      commits: slave_parallel_mode other than aggressive out-of-order domains on MariaDB, replica_preserve_commit_order on MySQL.)
 *   3. The reader takes heartbeat and row in one statement from one snapshot (both tables are InnoDB).
 *   4. The row never goes back (GREATEST), whoever writes: with a writer whose clock is behind, it stands still until that clock has caught up.
 *      A heartbeat that stands still claims less than is true.
 *   5. What is compared with h is the version of an invalidation, taken by another host's clock after its commit was acknowledged. Clocks are
 *      within max_clock_skew of each other, so the reader subtracts it from h: V <= h - skew means that V was taken before h was.
 *      h is the plain wall clock, not a hybrid one, which may run ahead of it.
 *
 * Who writes: any sidecar may, by 1 and 4, so an election only saves work and need not be safe. The row is the election: it names its owner and
 * the database's own time of the last beat, and the conditional UPDATE that beats is refused to everybody else while that is younger than
 * HEARTBEAT_LEASE intervals. (GET_LOCK would have to be held and checked apart from the write, and does not survive a fail-over of the primary;
 * the row does both.) A refused UPDATE changes nothing and writes nothing to the binlog.
 *
 *   CREATE TABLE outrigger_heartbeat (id TINYINT UNSIGNED PRIMARY KEY, version BIGINT UNSIGNED NOT NULL, owner BIGINT UNSIGNED NOT NULL,
 *                                     beat_at DATETIME(6) NOT NULL) ENGINE=InnoDB;
 *   INSERT INTO outrigger_heartbeat VALUES (1, 0, 0, '2000-01-01');
 */
#ifndef PROXY_DATABASE_HEARTBEAT_H
#define PROXY_DATABASE_HEARTBEAT_H

#include "common/err.h"
#include "common/metrics.h"

#define HEARTBEAT_LEASE 4U /* intervals after which another sidecar takes over */

struct heartbeat;
struct loader;

struct heartbeat *heartbeat_create(struct loader *loader, struct metrics *metrics);
enum err heartbeat_start(struct heartbeat *heartbeat);
void heartbeat_interrupt_locked(struct heartbeat *heartbeat);
void heartbeat_destroy(struct heartbeat **heartbeat); /* the loader is stopping, and it has been interrupted */

#endif
