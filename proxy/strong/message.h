/* What:    what the controllers of sidecars say to each other over NATS (not JetStream: what is lost is asked again, or not missed).
 * Owns:    nothing; a decoded message points into its bytes.
 * Threads: any; pure.
 * Fails:   message_read() with ERR_PROTOCOL for anything that message_write() does not write; with ERR_UNSUPPORTED for a newer format.
 *
 *   0        1       2     3       4      5        6 … 7       8 … 79                     80 …        …
 *   'S'      format  kind  status  mode   0        body bytes  nine numbers, big endian   inbox, "\0" body
 *
 * Every message has all fields; those a kind has no use for are 0. It is small, and there is one format to get right.
 *
 *   subject                               kinds                                   answered by
 *   outrigger.strong.<region>.beacon      BEACON                                  nobody; from the region's holder to everybody
 *   outrigger.strong.<region>.lock        LOCK, COMMIT, INVALIDATE (queue group)  one sidecar of the region; COMMIT is not answered
 *   outrigger.strong.<region>.locks       LOCK, INVALIDATE                        every sidecar of the region
 *   a sidecar's inbox                     the same                                that one
 *   the holder's inbox                    ASK, RULE                               the holder
 */
#ifndef PROXY_STRONG_MESSAGE_H
#define PROXY_STRONG_MESSAGE_H

#include "common/base.h"
#include "common/err.h"

#define MESSAGE_INBOX_MAX 80
#define MESSAGE_BODY_MAX 1024
#define MESSAGE_HEAD 80
#define MESSAGE_MAX (MESSAGE_HEAD + MESSAGE_INBOX_MAX + MESSAGE_BODY_MAX)

enum message_kind {
    MESSAGE_BEACON = 1, /* number, ring, digest, mode, inbox */
    MESSAGE_ASK,        /* ring, digest */
    MESSAGE_LOCK,       /* version, body: key */
    MESSAGE_COMMIT,     /* version, body: key: that lock becomes a tombstone of now */
    MESSAGE_INVALIDATE, /* body: key */
    MESSAGE_RULE,       /* version, body: pattern */
    MESSAGE_ANSWER,     /* status; to LOCK and INVALIDATE: inbox; to ASK: left_us, mode, number, digest */
    MESSAGE_KINDS,
};

enum message_status {
    MESSAGE_OK,
    MESSAGE_BUSY,      /* another's live lock */
    MESSAGE_NO_SHARE,  /* who was asked has no share in the region's lease (or is not its holder): ask again */
    MESSAGE_REFUSED,   /* ring, voters or clock are not the same */
    MESSAGE_NODE,      /* the key's node could not be told */
    MESSAGE_STALE,     /* to ASK: the digest is not the holder's */
    MESSAGE_NOT_STRONG, /* the key's namespace is not a strong one there */
    MESSAGE_STATUSES,
};

struct message {
    enum message_kind kind;
    enum message_status status;
    uint8_t mode;     /* enum strong_mode */
    uint64_t sidecar; /* who says it */
    uint64_t voters;  /* fingerprint of the names of all voters */
    uint64_t wall_ms; /* the sender's clock */
    uint64_t ring;    /* fingerprint of its pool */
    uint64_t number;  /* of the region's record */
    uint64_t digest;  /* of the strong rules in force */
    uint64_t version;
    uint64_t left_us; /* what is left of the holder's lease */
    struct span inbox;
    struct span body;
};

/* Returns the bytes written; inbox and body are no longer than the limits above. */
size_t message_write(const struct message *message, char out[static MESSAGE_MAX]);
enum err message_read(struct span bytes, struct message *out);

#endif
