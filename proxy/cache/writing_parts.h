/* What:    what writing.c and writing_strong.c share of a write: its state, how it is handed to the database, and how it ends.
 * Owns:    struct writing owns its value, and the operation's journey is it.
 * Threads: its worker's.
 */
#ifndef PROXY_CACHE_WRITING_PARTS_H
#define PROXY_CACHE_WRITING_PARTS_H

#include "proxy/cache/cache.h"

struct writing {
    struct write write;
    struct publication publication; /* the intent */
    bool is_reserved;               /* it is in the spool, neither committed nor cancelled */
    struct strong_write *strong;    /* in a strong namespace, once its locks are there; else NULL */
    struct operation *op;
    uint64_t seen;         /* the CAS that LOOK saw */
    bool has_lease;        /* LOOK won it, so it must be used or given back */
    bool is_tombstone;     /* it is that of a tombstone */
    bool is_in_doubt;
    enum reply_status status; /* what the client is answered in the end */
    enum err node_err;        /* the home node could not be told */
    struct chunk *value;   /* what is to be written, with "\r\n" behind it */
    struct chunk *current; /* cas: what the entry is, and so the row must be */
};

void writing_submit(struct writing *w); /* to the database; ends with writing_strong_written() where w->strong is set */

/* The ends; the writing is gone then. */
void writing_drop(struct writing *w); /* without an answer */
void writing_finish(struct writing *w, enum reply_status status);
void writing_end_refused(struct writing *w); /* with the writer's reason for not having written */
void writing_fail_in_doubt(struct writing *w);

/* What the writer's answer means. */
enum reply_status writing_refusal(enum write_outcome outcome);
bool writing_is_deleted_row(const struct writing *w); /* a delete found no row; but there may be an entry, which was said to be false */

/* writing_strong.c: instead of RESERVE, and what follows WRITE. */
void writing_strong_prepare(struct writing *w);
void writing_strong_written(struct writing *w);

#endif
