/* What:    a connected socket with its input not yet parsed and its output not yet written.
 * Owns:    its descriptor, input chunk and output chain. The struct is embedded in its user (a session, a node's connection), which is
 *          freed by on_bury, never earlier.
 * Threads: its loop's.
 * Fails:   on_close(err) once, whoever closed; afterwards only on_bury follows.
 *
 * Reading: one recv a turn into the loop's scratch chunk, so a socket without unfinished input holds no memory. What is left behind a
 * turn is small (a piece of a line or a value) and kept in a chunk of its own, which is put before the next recv; or it is the beginning
 * of a large value, whose owner said with `need` how long it will be: then a chunk of that size is received into, and can be
 * passed on without a copy.
 * Writing: append to `out`, then stream_dirty(); the loop writes once at the end of the turn and asks for writability only when the socket
 * took less than all.
 * Fairness: one turn receives at most STREAM_RECEIVE_MAX and writes at most STREAM_WRITE_MAX bytes of one stream, so that who moves large values
 * does not hold up the others of the loop.
 * TLS: the same, through a tls_session. What it has received and not given out yet is remembered by loop.unread. Readiness and what a session
 * waits for can be crossed: the write event may let it receive, the read event may let it send.
 */
#ifndef PROXY_NET_STREAM_H
#define PROXY_NET_STREAM_H

#include "proxy/net/loop.h"
#include "proxy/net/tls.h"

struct stream;
struct stream_tls;

struct stream_ops {
    void (*on_connect)(struct stream *stream); /* after stream_connect; may be NULL for accepted sockets */
    void (*on_data)(struct stream *stream);    /* there is input: parse it, stream_consume() it */
    void (*on_drain)(struct stream *stream);   /* output went below STREAM_LOW after having been above STREAM_HIGH; may be NULL */
    void (*on_eof)(struct stream *stream);     /* the peer sends no more; reading has been paused; NULL: close */
    void (*on_handshake)(struct stream *stream, enum handshake_result result, const char *why); /* once, with TLS: before any on_data, or
                                                                                                 * before on_close; may be NULL */
    void (*on_close)(struct stream *stream, enum err err);
    void (*on_bury)(struct stream *stream); /* end of the turn: free what the stream is embedded in */
};

#define STREAM_HIGH (1U << 20) /* bytes of output from which a source should pause */
#define STREAM_LOW (256U << 10)
#define STREAM_RECEIVE_MAX (256U << 10)
#define STREAM_WRITE_MAX (1U << 20)

struct stream {
    struct loop *loop;
    const struct stream_ops *ops;
    int fd;
    struct stream_tls *tls; /* NULL: plain */
    struct event read_event;
    struct event write_event;
    struct chunk *in; /* NULL: no input */
    bool in_is_scratch; /* it is the loop's, or was until others kept a reference */
    size_t in_start;
    size_t in_end;
    size_t need; /* how many bytes from in_start on make the item that is being waited for; 0: not known */
    struct chain out;
    struct list dirty_link;
    struct list dead_link;
    uint64_t bytes_in;
    uint64_t bytes_out;
    bool is_open;
    bool is_connecting;
    bool is_reading; /* not paused */
    bool was_high;
    bool is_finishing;
    bool is_stuck; /* the socket took less than all: waiting for writability */
};

/* An accepted, non-blocking socket; reading starts. */
void stream_open(struct stream *stream, struct loop *loop, const struct stream_ops *ops, int fd);

/* The same with TLS; takes the session over. Without a handshake by then it is closed with ERR_TIMEOUT. */
void stream_open_tls(struct stream *stream, struct loop *loop, const struct stream_ops *ops, int fd, struct tls_session *session,
                     uint32_t handshake_timeout_ms);

struct sockaddr;

/* A new connection; ERR_IO if it can not even be tried, else on_connect or on_close follows. */
enum err stream_connect(struct stream *stream, struct loop *loop, const struct stream_ops *ops, const struct sockaddr *address,
                        unsigned address_len);

/* Closes at once; output that was not written is lost. May be called from any callback, more than once. */
void stream_close(struct stream *stream, enum err err);

/* Closes once all output has been written; nothing more is read. */
void stream_finish(struct stream *stream);

void stream_pause(struct stream *stream);
void stream_resume(struct stream *stream);

static inline struct span stream_input(const struct stream *stream)
{
    return stream->in == NULL ? (struct span){NULL, 0} : span_of(stream->in->data + stream->in_start, stream->in_end - stream->in_start);
}

static inline void stream_consume(struct stream *stream, size_t len)
{
    stream->in_start += len;
}

/* There is output: have it written at the end of this turn. */
static inline void stream_dirty(struct stream *stream)
{
    if (!list_is_linked(&stream->dirty_link)) {
        list_push_back(&stream->loop->dirty, &stream->dirty_link);
    }
}

/* Input that was left although it could be parsed (a paused user is ready again): on_data is called for it. */
void stream_continue(struct stream *stream);

#define STREAM_PEER_SIZE 64

/* The address at the other end, for messages. */
const char *stream_peer(const struct stream *stream, char out[STREAM_PEER_SIZE]);

void stream_read_unread(struct loop *loop);
void stream_flush_dirty(struct loop *loop);
void stream_bury_dead(struct loop *loop);

#endif
