#include "proxy/net/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

#define KEEP_MAX (16U << 10) /* unfinished input up to this size is put before the next recv into the scratch chunk */
#define IOV_PIECES 64

/* What a stream with TLS has besides. */
struct stream_tls {
    struct stream *stream;
    struct tls_session *session;
    struct timer deadline; /* of the handshake */
    struct list unread_link;
    bool is_secure; /* hands have been shaken */
};

static void stream_init(struct stream *s, struct loop *loop, const struct stream_ops *ops, int fd)
{
    s->loop = loop;
    s->ops = ops;
    s->fd = fd;
    s->tls = NULL;
    s->in = NULL;
    s->in_is_scratch = false;
    s->in_start = 0;
    s->in_end = 0;
    s->need = 0;
    chain_init(&s->out, &loop->chunks);
    list_init(&s->dirty_link);
    list_init(&s->dead_link);
    s->bytes_in = 0;
    s->bytes_out = 0;
    s->is_open = true;
    s->is_connecting = false;
    s->is_reading = false;
    s->was_high = false;
    s->is_finishing = false;
    s->is_stuck = false;
}

/* How large a chunk of one's own should be: the whole item at once, so that it is received in place; but only as much as was really
 * sent, doubling, while memory is tight: a length that was only announced must not use up what others need. */
static size_t own_size(const struct loop *loop, size_t need, size_t kept)
{
    bool is_tight = loop->chunks.used_bytes > loop->chunks.limit_bytes / 2;
    size_t grown = 2 * MAX(kept, (size_t)KEEP_MAX);
    return need > kept && !is_tight ? need : grown;
}

/* Makes s->in a chunk with room behind what is kept: the scratch chunk if that will do, else one of its own. */
static enum err make_room(struct stream *s)
{
    size_t kept = s->in == NULL ? 0 : s->in_end - s->in_start;
    if (kept <= KEEP_MAX && s->need <= LOOP_SCRATCH / 2) {
        struct chunk *scratch = s->loop->scratch;
        if (kept > 0) {
            memcpy(scratch->data, s->in->data + s->in_start, kept);
        }
        chunk_unref(&s->in);
        s->in = chunk_ref(scratch);
        s->in_is_scratch = true;
        s->in_start = 0;
        s->in_end = kept;
        return OK;
    }
    size_t more = s->need > kept ? s->need - kept : KEEP_MAX;
    if (s->in->cap - s->in_end >= MIN(more, (size_t)KEEP_MAX)) {
        return OK;
    }
    struct chunk *own = chunk_get(&s->loop->chunks, own_size(s->loop, s->need, kept));
    if (own == NULL) {
        return ERR_NOMEM;
    }
    memcpy(own->data, s->in->data + s->in_start, kept);
    chunk_unref(&s->in);
    s->in = own;
    s->in_is_scratch = false;
    s->in_start = 0;
    s->in_end = kept;
    return OK;
}

/* After parsing: nothing left, no memory; a small rest moves out of the scratch chunk. */
static enum err settle_input(struct stream *s)
{
    struct loop *loop = s->loop;
    size_t left = s->in_end - s->in_start;
    if (left == 0) {
        s->need = 0;
        chunk_unref(&s->in);
    } else if (s->in_is_scratch) {
        struct chunk *own = chunk_get(&loop->chunks, s->need > LOOP_SCRATCH / 2 ? own_size(loop, s->need, left) : left);
        if (own == NULL) {
            return ERR_NOMEM;
        }
        memcpy(own->data, s->in->data + s->in_start, left);
        chunk_unref(&s->in);
        s->in = own;
        s->in_is_scratch = false;
        s->in_start = 0;
        s->in_end = left;
    }
    return OK;
}

static enum err renew_scratch(struct loop *loop)
{
    if (loop->scratch->refs > 1) { /* somebody keeps a value that is in it */
        struct chunk *fresh = chunk_get(&loop->chunks, LOOP_SCRATCH);
        if (fresh == NULL) {
            return ERR_NOMEM;
        }
        chunk_unref(&loop->scratch);
        loop->scratch = fresh;
    }
    return OK;
}

static void parse_input(struct stream *s)
{
    s->ops->on_data(s);
    enum err err = s->is_open ? settle_input(s) : OK;
    if (!s->is_open) {
        chunk_unref(&s->in);
    }
    enum err scratch_err = renew_scratch(s->loop);
    if (err == OK) {
        err = scratch_err;
    }
    if (err != OK) {
        stream_close(s, err);
    }
}

/* Remembers what no readiness will tell of, and waits for what the session waits for. */
static ssize_t receive_tls(struct stream *s, char *data, size_t len)
{
    struct stream_tls *tls = s->tls;
    ssize_t n = tls_receive(tls->session, data, len);
    int error = errno;
    if (tls_has_more(tls->session) && !list_is_linked(&tls->unread_link)) {
        list_push_back(&s->loop->unread, &tls->unread_link);
    }
    if (tls_receive_wants_write(tls->session)) {
        event_add(&s->write_event, NULL);
    }
    errno = error;
    return n;
}

static void receive(struct stream *s)
{
    enum err err = renew_scratch(s->loop);
    if (err == OK) {
        err = make_room(s);
    }
    if (err != OK) {
        stream_close(s, err);
        return;
    }
    size_t room = MIN(s->in->cap - s->in_end, (size_t)STREAM_RECEIVE_MAX);
    if (!s->in_is_scratch && s->need > 0) {
        /* Up to the end of the large value and no further, so that its chunk holds nothing else. */
        room = MIN(room, s->need - (s->in_end - s->in_start)); /* need is more than there is, or it would have been parsed */
    }
    char *to = s->in->data + s->in_end;
    ssize_t n = likely(s->tls == NULL) ? recv(s->fd, to, room, 0) : receive_tls(s, to, room);
    if (n > 0) {
        s->in_end += (size_t)n;
        s->bytes_in += (size_t)n;
        parse_input(s);
        return;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        if (settle_input(s) != OK) {
            stream_close(s, ERR_NOMEM);
        }
        return;
    }
    if (n == 0 && s->ops->on_eof != NULL) {
        if (settle_input(s) != OK) {
            stream_close(s, ERR_NOMEM);
            return;
        }
        stream_pause(s);
        s->ops->on_eof(s);
        return;
    }
    stream_close(s, n == 0 ? ERR_CLOSED : errno == EPROTO ? ERR_PROTOCOL : ERR_IO);
}

static bool shake_hands(struct stream *s)
{
    struct stream_tls *tls = s->tls;
    enum err err = tls_handshake(tls->session);
    if (err == ERR_UNAVAILABLE) {
        if (tls_receive_wants_write(tls->session)) {
            event_add(&s->write_event, NULL);
        }
        return false;
    }
    if (err != OK) {
        stream_close(s, err);
        return false;
    }
    tls->is_secure = true;
    timer_stop(&tls->deadline);
    if (s->ops->on_handshake != NULL) {
        s->ops->on_handshake(s, tls_result(tls->session), "");
    }
    return s->is_open && s->is_reading;
}

static void flush(struct stream *s);

/* Whatever comes before input; false when none is to be received. */
static bool prepare_tls(struct stream *s)
{
    struct stream_tls *tls = s->tls;
    list_remove(&tls->unread_link);
    if (s->is_stuck && tls_send_wants_read(tls->session)) {
        s->is_stuck = false;
        if (!s->is_reading) {
            event_del(&s->read_event);
        }
        flush(s);
        if (!s->is_open || !s->is_reading) {
            return false;
        }
    }
    return tls->is_secure || shake_hands(s);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;
    s->loop->now_us = clock_mono_us();
    if (s->is_open && (likely(s->tls == NULL) || prepare_tls(s))) {
        receive(s);
    }
}

void stream_read_unread(struct loop *loop)
{
    struct list now; /* those that are there: what they leave unread waits for the next turn */
    struct list *l;
    list_init(&now);
    while ((l = list_pop_front(&loop->unread)) != NULL) {
        list_push_back(&now, l);
    }
    loop->now_us = clock_mono_us();
    while ((l = list_pop_front(&now)) != NULL) {
        struct stream *s = list_entry(l, struct stream_tls, unread_link)->stream;
        if (s->is_reading) { /* else stream_resume() will put it back */
            receive(s);
        }
    }
}

void stream_continue(struct stream *s)
{
    if (s->is_open && s->in != NULL && s->in_end > s->in_start) {
        parse_input(s);
    }
}

/* Up to `budget` bytes from the front of the output. */
static int offer(const struct stream *s, struct iovec *iov, size_t budget, size_t *offered)
{
    int count = chain_iov(&s->out, iov, IOV_PIECES);
    int pieces = 0;
    *offered = 0;
    while (pieces < count && *offered < budget) {
        iov[pieces].iov_len = MIN(iov[pieces].iov_len, budget - *offered);
        *offered += iov[pieces].iov_len;
        pieces++;
    }
    return pieces;
}

static ssize_t write_pieces(struct stream *s, struct iovec *iov, int pieces)
{
    if (unlikely(s->tls != NULL)) {
        return tls_send(s->tls->session, iov, pieces);
    }
    if (pieces == 1) {
        return send(s->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL);
    }
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)pieces};
    return sendmsg(s->fd, &msg, MSG_NOSIGNAL);
}

/* The rest is written when the event says so. */
static void wait_to_write(struct stream *s)
{
    bool is_crossed = s->tls != NULL && tls_send_wants_read(s->tls->session);
    s->is_stuck = true;
    event_add(is_crossed ? &s->read_event : &s->write_event, NULL);
}

/* Writes what the socket takes and this turn may; false when the stream was closed. */
static bool write_out(struct stream *s)
{
    size_t budget = STREAM_WRITE_MAX;
    while (s->out.count > 0) {
        struct iovec iov[IOV_PIECES];
        size_t offered;
        int pieces = offer(s, iov, budget, &offered);
        ssize_t n = write_pieces(s, iov, pieces);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno != EAGAIN) {
                stream_close(s, errno == EPROTO ? ERR_PROTOCOL : ERR_IO);
                return false;
            }
            n = 0;
        }
        s->bytes_out += (size_t)n;
        budget -= (size_t)n;
        chain_consume(&s->out, (size_t)n);
        if ((size_t)n < offered) {
            if (chain_compact(&s->out) != OK) {
                stream_close(s, ERR_NOMEM);
                return false;
            }
            wait_to_write(s);
            return true;
        }
        if (budget == 0 && s->out.count > 0) { /* the others' turn; the socket may well have room */
            wait_to_write(s);
            return true;
        }
    }
    return true;
}

static void flush(struct stream *s)
{
    if (s->out.bytes >= STREAM_HIGH) {
        s->was_high = true; /* whoever saw that has paused, and waits for on_drain */
    }
    if (!write_out(s)) {
        return;
    }
    if (s->is_finishing && s->out.count == 0) {
        stream_close(s, ERR_CLOSED);
    } else if (s->was_high && s->out.bytes < STREAM_LOW) {
        s->was_high = false;
        if (s->ops->on_drain != NULL) {
            s->ops->on_drain(s);
        }
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;
    s->loop->now_us = clock_mono_us();
    if (!s->is_open) {
        return;
    }
    if (s->is_connecting) {
        int error = 0;
        socklen_t len = sizeof error;
        if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0) {
            stream_close(s, ERR_UNAVAILABLE);
            return;
        }
        s->is_connecting = false;
        stream_resume(s);
        s->ops->on_connect(s);
        return;
    }
    if (unlikely(s->tls != NULL) && tls_receive_wants_write(s->tls->session) && s->is_reading && prepare_tls(s)) {
        receive(s);
    }
    if (s->is_open) {
        s->is_stuck = false;
        flush(s);
    }
}

static void watch(struct stream *s)
{
    event_assign(&s->read_event, s->loop->base, s->fd, EV_READ | EV_PERSIST, on_readable, s);
    event_assign(&s->write_event, s->loop->base, s->fd, EV_WRITE, on_writable, s);
}

void stream_open(struct stream *s, struct loop *loop, const struct stream_ops *ops, int fd)
{
    stream_init(s, loop, ops, fd);
    watch(s);
    stream_resume(s);
}

static void on_deadline(struct timer *timer)
{
    stream_close(container_of(timer, struct stream_tls, deadline)->stream, ERR_TIMEOUT);
}

void stream_open_tls(struct stream *s, struct loop *loop, const struct stream_ops *ops, int fd, struct tls_session *session,
                     uint32_t handshake_timeout_ms)
{
    stream_init(s, loop, ops, fd);
    s->tls = xcalloc(1, sizeof *s->tls);
    s->tls->stream = s;
    s->tls->session = session;
    list_init(&s->tls->unread_link);
    timer_init(&s->tls->deadline, loop, on_deadline);
    timer_start(&s->tls->deadline, 1000ULL * handshake_timeout_ms);
    watch(s);
    stream_resume(s);
}

enum err stream_connect(struct stream *s, struct loop *loop, const struct stream_ops *ops, const struct sockaddr *address,
                        unsigned address_len)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return ERR_IO;
    }
    int one = 1;
    if (address->sa_family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    }
    int rc;
    do {
        rc = connect(fd, address, address_len);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0 && errno != EINPROGRESS) {
        close(fd);
        return ERR_UNAVAILABLE;
    }
    stream_init(s, loop, ops, fd);
    watch(s);
    s->is_connecting = true;
    event_add(&s->write_event, NULL); /* also when the connection is there at once: on_connect never comes before we return */
    return OK;
}

static void end_tls(struct stream *s, enum err err)
{
    struct stream_tls *tls = s->tls;
    timer_stop(&tls->deadline);
    list_remove(&tls->unread_link);
    if (tls->is_secure) {
        if (s->out.count == 0) { /* a client that does not get all is not to take it for all */
            tls_goodbye(tls->session);
        }
    } else if (s->ops->on_handshake != NULL) {
        bool is_late = err == ERR_TIMEOUT;
        s->ops->on_handshake(s, is_late ? HANDSHAKE_TIMEOUT : tls_result(tls->session), is_late ? "it took too long" : tls_reason(tls->session));
    }
}

void stream_close(struct stream *s, enum err err)
{
    if (!s->is_open) {
        return;
    }
    s->is_open = false;
    if (unlikely(s->tls != NULL)) {
        end_tls(s, err);
    }
    event_del(&s->read_event);
    event_del(&s->write_event);
    close(s->fd);
    s->fd = -1;
    chain_clear(&s->out);
    list_remove(&s->dirty_link);
    list_push_back(&s->loop->dead, &s->dead_link);
    s->ops->on_close(s, err);
}

void stream_finish(struct stream *s)
{
    if (!s->is_open) {
        return;
    }
    stream_pause(s);
    s->is_finishing = true;
    if (s->out.count == 0) {
        stream_close(s, ERR_CLOSED);
    } else {
        stream_dirty(s);
    }
}

void stream_pause(struct stream *s)
{
    if (s->is_open && s->is_reading) {
        s->is_reading = false;
        event_del(&s->read_event);
    }
}

void stream_resume(struct stream *s)
{
    if (s->is_open && !s->is_reading && !s->is_finishing) {
        s->is_reading = true;
        event_add(&s->read_event, NULL);
        if (unlikely(s->tls != NULL) && tls_has_more(s->tls->session) && !list_is_linked(&s->tls->unread_link)) {
            list_push_back(&s->loop->unread, &s->tls->unread_link);
        }
    }
}

const char *stream_peer(const struct stream *s, char out[STREAM_PEER_SIZE])
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {.any.sa_family = AF_UNSPEC};
    socklen_t len = sizeof address;
    char host[INET6_ADDRSTRLEN] = "";
    if (getpeername(s->fd, &address.any, &len) == 0 && address.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address.v4.sin_addr, host, sizeof host);
        snprintf(out, STREAM_PEER_SIZE, "%s:%u", host, ntohs(address.v4.sin_port));
    } else if (address.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &address.v6.sin6_addr, host, sizeof host);
        snprintf(out, STREAM_PEER_SIZE, "[%s]:%u", host, ntohs(address.v6.sin6_port));
    } else {
        snprintf(out, STREAM_PEER_SIZE, "%s", address.any.sa_family == AF_UNIX ? "a unix socket" : "somebody");
    }
    return out;
}

void stream_flush_dirty(struct loop *loop)
{
    struct list *l;
    while ((l = list_pop_front(&loop->dirty)) != NULL) {
        struct stream *s = list_entry(l, struct stream, dirty_link);
        if (!s->is_connecting && !s->is_stuck) { /* else the event will flush */
            flush(s);
        }
    }
}

void stream_bury_dead(struct loop *loop)
{
    struct list *l;
    while ((l = list_pop_front(&loop->dead)) != NULL) {
        struct stream *s = list_entry(l, struct stream, dead_link);
        chunk_unref(&s->in); /* only now: the callback that closed may have been parsing it */
        if (unlikely(s->tls != NULL)) {
            tls_session_free(&s->tls->session);
            free(s->tls);
            s->tls = NULL;
        }
        s->ops->on_bury(s);
    }
}
