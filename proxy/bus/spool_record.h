/* What:    the bytes of the spool: a segment's header and its records. No I/O.
 * Owns:    nothing; a parsed record's key points into the bytes it was parsed from.
 * Threads: any; pure.
 * Fails:   parsing tells what was torn off in the middle of a write (it ends with the file) from what has been damaged since.
 *
 *   segment:  "OUTRSPL1", u64 number, u64 checksum of both;  then records, one behind the other
 *   record:   u64 checksum, u16 length, u8 kind, u8 debts (| 0x80: the key is a pattern), u16 key length, u16 count, u64 id
 *             and, unless it is SPOOL_CLEARED: u64 version, timestamp, sender, message;  the key
 *
 * All numbers are little-endian. The checksum is the xxHash of all that follows it, with the segment's number as seed: what a disk keeps
 * of an older file is no record. A later record of the same id takes the place of the earlier one.
 */
#ifndef PROXY_BUS_SPOOL_RECORD_H
#define PROXY_BUS_SPOOL_RECORD_H

#include "proxy/bus/invalidation.h"

#define SPOOL_HEADER_LEN 24
#define SPOOL_CLEARED_LEN 24
#define SPOOL_RECORD_MAX (56 + KEY_MAX)

enum spool_kind {
    SPOOL_RESERVED = 1, /* a write is under way that will invalidate the key, if it is made */
    SPOOL_OWED = 2,     /* the key has been invalidated, and not everybody knows: see the debts */
    SPOOL_CLEARED = 3,  /* these debts have been paid */
};

/* Who has to be told yet. */
enum spool_debt {
    DEBT_BUS = 1,  /* the other regions: this region's stream has not acknowledged it */
    DEBT_NODE = 2, /* this region itself: the key's home node has not got it, or the region's record not the rule */
    DEBTS = DEBT_BUS | DEBT_NODE,
};

struct spool_record {
    enum spool_kind kind;
    uint8_t debts;
    uint64_t id;
    /* Not of SPOOL_CLEARED: */
    uint64_t version;
    uint64_t timestamp_ms;
    uint64_t sender;  /* the message it was last sent in, as publisher.h numbers them; 0: none */
    uint64_t message;
    uint16_t count;   /* of that message's events */
    bool is_pattern;  /* of SPOOL_OWED: the key is a pattern, the event a rule */
    struct span key;
};

enum spool_parse {
    SPOOL_RECORD,
    SPOOL_END,  /* nothing is left */
    SPOOL_TORN, /* the last write was cut off here, or its space was never written */
    SPOOL_BAD,
};

void spool_header_write(uint64_t number, char out[static SPOOL_HEADER_LEN]);
bool spool_header_check(uint64_t number, struct span segment);

/* The length of what it wrote; the record is valid. */
size_t spool_record_write(uint64_t number, const struct spool_record *record, char out[static SPOOL_RECORD_MAX]);
size_t spool_record_len(const struct spool_record *record);

/* Gives `len` bytes that should be a record the right checksum; for spool_record_write(), and for tests. */
void spool_record_mend(uint64_t number, char *bytes, size_t len);

/* The record that `bytes`, a part of segment `number`, begin with; *used is its length. */
enum spool_parse spool_record_parse(uint64_t number, struct span bytes, struct spool_record *record, size_t *used);

#endif
