/* A write in a strong namespace:
 *
 *   LOOK           only for the client's `cas`: the entry must have the CAS that is named; nothing is made where there is none
 *   PREPARE ⇢ proxy/strong: a lock in every region that has a lease
 *     │ not to be had: SERVER_ERROR, nothing has been written
 *   WRITE ⇢ the writer's thread, with the fence as its deadline
 *     ├ the database has answered ──▶ the locks are given up, without waiting for it ──▶ answered
 *     └ in doubt ──▶ SERVER_ERROR; the locks lapse
 *
 * The value is not stored, nor anything published: the locks have taken away whatever was there, and the next reader of each region loads the row.
 *
 * A write in doubt needs no settling. What may still be committed has the row's lock since before the fence (the database's own, SYSDATE(), or ours
 * before COMMIT: store_mysql_write.c), and the fence is over before any reader takes the lock in the pool for dead. Until then readers are answered by the
 * primary and store nothing; after that, what they store was read with a lock on the row, and so after the outcome. */
#include "common/clock.h"
#include "proxy/cache/lock.h"
#include "proxy/cache/read.h"
#include "proxy/cache/writing_parts.h"

static void let_go(struct writing *w, bool is_settled)
{
    struct strong_write *strong = w->strong;
    w->strong = NULL;
    strong_finish(w->op->cache->strong, strong, is_settled);
}

static void on_prepared(struct strong_write *strong)
{
    struct writing *w = strong->ctx;
    struct operation *op = w->op;
    if (strong->err == OK) {
        w->strong = strong;
        writing_submit(w);
        return;
    }
    struct cache *cache = op->cache;
    writing_drop(w);
    operation_fail(op, "not written: %s", strong->text);
    strong_finish(cache->strong, strong, true);
}

void writing_strong_prepare(struct writing *w)
{
    struct operation *op = w->op;
    enum err err = lock_prepare(op->cache, STRONG_LOCK, op->request.key, on_prepared, w);
    if (err != OK) {
        writing_drop(w);
        operation_fail(op, "not written: %s", err_text(err));
    }
}

static void on_applied(struct writing *w)
{
    struct operation *op = w->op;
    const struct row *row = &w->write.row;
    /* The entry that a reader will make has another CAS: who names this one is told EXISTS. 0 would be no condition at all to some clients. */
    op->reply.cas = w->write.version;
    op->reply.number = w->write.number;
    op->reply.flags = row->found ? row->flags : op->request.flags;
    op->reply.size = row->found ? row->value_len : op->request.value_len;
    if (op->request.op == OP_GAT) { /* its row has the new expiry: now it is a read like any other */
        writing_drop(w);
        read_start(op);
    } else {
        writing_finish(w, w->status);
    }
}

void writing_strong_written(struct writing *w)
{
    enum write_outcome outcome = w->write.outcome;
    let_go(w, outcome != WRITE_IN_DOUBT);
    if (outcome == WRITE_APPLIED) {
        on_applied(w);
    } else if (outcome == WRITE_IN_DOUBT) {
        writing_fail_in_doubt(w);
    } else if (writing_is_deleted_row(w)) { /* the locks have taken the entry away */
        writing_finish(w, w->status);
    } else {
        writing_end_refused(w);
    }
}
