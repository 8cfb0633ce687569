/* What:    the spool: a log on disk of the invalidations that somebody has not been told of yet, so that none is lost with the process.
 * Owns:    the directory, by a lock on a file in it; the entries, from spool_add() or spool_open() until all their debts are cleared.
 * Threads: one at a time.
 * Fails:   spool_open: ERR_IO, with the reason. spool_add: ERR_SPOOL_FULL (max_bytes). spool_commit: ERR_SPOOL (the disk is full, or broken,
 *          and the log says how); nothing of what was added since the last commit then counts, and the next commit tries anew.
 *
 *   add, add, clear … ──▶ buffer ──commit: one write, one fdatasync──▶ segment 7 (the active one)     5, 6: sealed, until nothing in them is alive
 *
 *   entry:   RESERVED ──promote──▶ OWED ──clear: the last debt──▶ gone
 *              └────clear──────────────────────────────────────────▲
 *
 * Clearing and promoting are not made durable: without them more is invalidated after a crash than had to be, never less. After a start nothing
 * is appended to an old segment. While more than half of max_bytes is in use, segments with little life in them are written anew.
 * An entry costs about as much memory as disk.
 */
#ifndef PROXY_BUS_SPOOL_H
#define PROXY_BUS_SPOOL_H

#include "common/list.h"
#include "common/log.h"
#include "proxy/bus/spool_record.h"

struct spool;
struct segment;

struct spool_entry {
    struct list link; /* in the spool's list, which is sorted by id: by age */
    struct segment *segment;
    uint64_t id;
    uint64_t version;
    uint64_t timestamp_ms;
    uint64_t sender;
    uint64_t message;
    uint16_t count;
    uint8_t kind;  /* SPOOL_RESERVED or SPOOL_OWED */
    uint8_t debts;
    bool is_pattern;
    bool is_lent[2]; /* the user's: somebody is busy with the debt to the bus, to the node */
    uint16_t home;   /* the user's: the node that has not got it, once that is known */
    uint16_t key_len;
    char key[];
};

#define HOME_UNKNOWN UINT16_MAX

struct spool_options {
    const char *directory; /* made if it is not there */
    uint64_t max_bytes;
    uint64_t segment_bytes;
};

struct spool_counts {
    uint64_t entries; /* reservations included */
    uint64_t reserved;
    uint64_t owed_to_bus;
    uint64_t owed_to_nodes;
    uint64_t bytes; /* of the files */
    uint64_t damages; /* records and segments that could not be read */
    uint64_t failures; /* of the disk: commits that did not go through */
};

/* Reads what is there. On ERR_IO `error` says what is wrong. */
enum err spool_open(const struct spool_options *options, struct log *log, struct spool **out, char *error, size_t error_size);
void spool_close(struct spool **spool); /* what has not been committed is lost */

/* Takes note of an event: SPOOL_RESERVED, or SPOOL_OWED with its debts. Good only once spool_commit() has said OK; if that fails *out is gone. */
enum err spool_add(struct spool *spool, const struct spool_record *record, struct spool_entry **out);
/* A reservation becomes an invalidation that is owed. */
void spool_promote(struct spool *spool, struct spool_entry *entry, uint64_t version, uint8_t debts);
/* These debts have been paid; of a reservation: the write has not been made. The entry is gone with its last debt. */
void spool_clear(struct spool *spool, struct spool_entry *entry, uint8_t debts);

/* Writes what has been gathered. ERR_SPOOL concerns what was added only. */
enum err spool_commit(struct spool *spool);
/* Has something to be committed that concerns nobody: whether the disk works again. */
void spool_probe(struct spool *spool);
size_t spool_buffered(const struct spool *spool); /* bytes that wait for spool_commit() */

/* The entries, oldest first; NULL at the end. */
struct spool_entry *spool_first(struct spool *spool);
struct spool_entry *spool_next(struct spool *spool, struct spool_entry *entry);

void spool_count(const struct spool *spool, struct spool_counts *out);
const char *spool_problem(const struct spool *spool); /* NULL while the last write went through */

#endif
