/* What:    one write to a source: what is asked for, and what came of it.
 * Owns:    the submitter owns it, and the bytes of `value`; it is lent to the writer from submission to on_done.
 * Threads: belongs to one at a time.
 * Fails:   by its outcome. Only WRITE_APPLIED has changed the row, only WRITE_IN_DOUBT may have; after all others it is as it was.
 *
 * What the operations mean is memcached's: a row past its expiry is absent, a CAS must equal the row's version, numbers wrap at
 * 2^64 and stop at 0. TTLs are by the database's clock.
 */
#ifndef PROXY_DATABASE_WRITE_H
#define PROXY_DATABASE_WRITE_H

#include "common/mailbox.h"
#include "proxy/database/source.h"
#include "proxy/metric.h"

#define WRITE_ERROR_MAX 200
#define WRITE_DIGITS_MAX 20 /* of a number */

enum write_op {
    WRITE_SET,
    WRITE_ADD,
    WRITE_REPLACE,
    WRITE_APPEND,
    WRITE_PREPEND,
    WRITE_INCR,
    WRITE_DECR,
    WRITE_DELETE,
    WRITE_TOUCH,
    WRITE_SETTLE, /* changes nothing: waits for whoever has the row locked, so that afterwards nothing is in doubt any more */
};

struct write {
    /* Set by the submitter; what an operation has no use for is not looked at. */
    struct mailbox *reply_to;
    void (*on_done)(struct write *write);
    uint32_t namespace; /* index in config.namespaces; with WRITE_THROUGH */
    enum write_op op;
    bool has_cas;
    bool has_expected;
    bool has_initial;  /* incr, decr: a row that is not there is created with `initial`, flags 0 and exptime */
    uint16_t key_len;
    char key[KEY_MAX]; /* the whole key, prefix included */
    struct span value;
    struct span expected; /* has_expected: what the row must be as an entry (the client's cas), or it is EXISTS */
    uint32_t expected_flags;
    uint32_t flags;
    int64_t exptime;  /* memcached's: 0 none, below 0 at once, up to 30 days from now, else a Unix time */
    uint64_t cas;
    uint64_t delta;
    uint64_t initial;
    uint64_t version; /* of the row once this is applied: not 0, and no other write's */
    uint64_t deadline_us; /* clock_mono_us() */

    /* The result. */
    enum write_outcome outcome;
    enum err err; /* WRITE_FAILED and WRITE_IN_DOUBT: what was wrong */
    char error[WRITE_ERROR_MAX];
    uint64_t number; /* incr, decr: the new one */
    /* WRITE_APPLIED: the row as loads would now find it, where found is set: always after append, prepend, incr and decr; after set,
     * add and replace where the database may have made something else of the value (its columns are not just bytes). Otherwise it is
     * what was asked for. The value is the submitter's from on_done on. */
    struct row row;

    /* The writer's. */
    struct mail mail;
    struct write *next;
    uint64_t submitted_us;
    uint32_t attempts; /* connections that were lost under it before anything could have been committed */
};

/* Sets what came of it. `fmt` may be "". */
void write_end(struct write *write, enum write_outcome outcome, enum err err, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
