/* What:    a region's record at a voter, and the text it is kept as: "1 <number> <ready> <ring> <holder>".
 * Owns:    nothing.
 * Threads: any; pure.
 * Fails:   a text that is not exactly of that shape is ERR_PROTOCOL, one of another format ERR_UNSUPPORTED.
 *
 *   0 ──▶ 2 ──suspend──▶ 3 ──come back──▶ 4 ──suspend──▶ 5 …     0: there is none; even: the lease may be renewed; odd: suspended
 */
#ifndef PROXY_STRONG_RECORD_H
#define PROXY_STRONG_RECORD_H

#include "common/base.h"
#include "common/err.h"

#define RECORD_MAX 64
#define RECORD_NUMBER_MAX (1ULL << 62) /* what is beyond that was not counted up to */

struct lease_record {
    uint64_t number;
    bool is_ready; /* even: whoever came back with this number has waited and applied its rule */
    uint64_t ring; /* fingerprint of the holder's pool */
    uint64_t holder; /* a sidecar */
};

static inline bool record_is_held(const struct lease_record *record)
{
    return record->number != 0 && record->number % 2 == 0;
}

/* The number to come back with, and the number that suspends, when `number` is the highest there is. */
static inline uint64_t record_next_held(uint64_t number)
{
    return (number | 1) + 1;
}

static inline uint64_t record_next_suspended(uint64_t number)
{
    return number | 1;
}

size_t record_write(const struct lease_record *record, char out[static RECORD_MAX]);
enum err record_read(struct span text, struct lease_record *out);

#endif
