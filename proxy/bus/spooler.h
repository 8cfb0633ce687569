/* What:    the thread that keeps the spool: takes what could not be told, makes it durable, and has it told when that can be done.
 * Owns:    its thread, the spool, and the set of keys that are owed to this region's own nodes. A publication is lent to it from
 *          spooler_take() until on_done.
 * Threads: spooler_take(), spooler_clear(), the questions and spooler_status() from any thread; the rest from the one that created it.
 * Fails:   a publication ends with ERR_SPOOL_FULL, ERR_SPOOL or ERR_OVERLOAD: then it is not in the spool.
 *
 *   spooler_take ──▶ mailbox ──▶ spool_add … ──(all mail of a turn: one write, one fdatasync)──▶ reply_to ──▶ on_done
 *   owed to the bus:   struct replay ──▶ context.replay ⇢ bus's thread: replayer ── spooler_replayed ──▶ mailbox ──▶ cleared, the next
 *   owed to nodes:     deliveries, DELIVERIES_MAX at a time ──▶ sink->apply ⇢ worker ── delivery_done ──▶ mailbox ──▶ cleared, or again later
 *
 * Owed to nodes: passes over all that is owed, oldest first. A node that fails is left out for the rest of the pass; a pass in which one failed
 * is followed by another after a pause.
 */
#ifndef PROXY_BUS_SPOOLER_H
#define PROXY_BUS_SPOOLER_H

#include "proxy/bus/bus.h"
#include "proxy/bus/replayer.h"
#include "proxy/bus/spool.h"

struct spooler;

struct spooler_context {
    const struct config *config;
    struct log *log;
    struct metrics *metrics;
    struct bus_sink sink;
    void (*replay)(void *ctx, struct replay *replay); /* called on the spooler's thread, with a replay that comes back by spooler_replayed() */
    void *ctx;
};

/* Opens the spool and looks what is in it; nothing is called back yet. ERR_SPOOL: it can not be used; the log says why. */
enum err spooler_create(const struct spooler_context *context, struct spooler **out);
enum err spooler_start(struct spooler *spooler);
/* Writes what it has been given, and ends the thread. */
void spooler_stop(struct spooler *spooler);
/* Once nobody has anything of its any more. */
void spooler_destroy(struct spooler **spooler);

/* As what `kind` and `debts` say; a reservation (`reserved`) becomes what is owed, and ends OK. */
void spooler_take(struct spooler *spooler, struct publication *publication);
/* Its reservation is not needed any more. */
void spooler_clear(struct spooler *spooler, struct publication *publication);
/* Both for a publisher; as long as the spooler. */
const struct publisher_spool *spooler_for_publisher(const struct spooler *spooler);
void spooler_replayed(struct spooler *spooler, struct replay *replay);

bool spooler_owes(struct spooler *spooler, struct span key);

/* A mark for all that is owed to the bus by now, 0 if nothing ever was; and whether the stream has all up to it. Any thread. */
uint64_t spooler_mark(struct spooler *spooler);
bool spooler_is_told(struct spooler *spooler, uint64_t mark);

/* False while the disk can not be written. */
bool spooler_status(struct spooler *spooler, char *text, size_t size);

#endif
