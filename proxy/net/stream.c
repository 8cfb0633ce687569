#include "proxy/net/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

#define KEEP_MAX (16U << 10) /* unfinished input up to this size is put before the next recv into the scratch chunk */
#define IOV_PIECES 64

static void stream_init(struct stream *s, struct loop *loop, const struct stream_ops *ops, int fd)
{
    s->loop = loop;
    s->ops = ops;
    s->fd = fd;
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

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;
    s->loop->now_us = clock_mono_us();
    if (!s->is_open) {
        return;
    }
    enum err err = renew_scratch(s->loop);
    if (err == OK) {
        err = make_room(s);
    }
    if (err != OK) {
        stream_close(s, err);
        return;
    }
    size_t room = s->in->cap - s->in_end;
    if (!s->in_is_scratch && s->need > 0) {
        /* Up to the end of the large value and no further, so that its chunk holds nothing else. */
        room = MIN(room, s->need - (s->in_end - s->in_start)); /* need is more than there is, or it would have been parsed */
    }
    ssize_t n = recv(s->fd, s->in->data + s->in_end, room, 0);
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
    stream_close(s, n == 0 ? ERR_CLOSED : ERR_IO);
}

void stream_continue(struct stream *s)
{
    if (s->is_open && s->in != NULL && s->in_end > s->in_start) {
        parse_input(s);
    }
}

static void flush(struct stream *s)
{
    if (s->out.bytes >= STREAM_HIGH) {
        s->was_high = true; /* whoever saw that has paused, and waits for on_drain */
    }
    while (s->out.count > 0) {
        struct iovec iov[IOV_PIECES];
        int pieces = chain_iov(&s->out, iov, IOV_PIECES);
        ssize_t n;
        if (pieces == 1) {
            n = send(s->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL);
        } else {
            struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)pieces};
            n = sendmsg(s->fd, &msg, MSG_NOSIGNAL);
        }
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno != EAGAIN) {
                stream_close(s, ERR_IO);
                return;
            }
            n = 0;
        }
        size_t offered = 0;
        for (int i = 0; i < pieces; i++) {
            offered += iov[i].iov_len;
        }
        s->bytes_out += (size_t)n;
        chain_consume(&s->out, (size_t)n);
        if ((size_t)n < offered) {
            if (chain_compact(&s->out) != OK) {
                stream_close(s, ERR_NOMEM);
                return;
            }
            s->is_stuck = true;
            event_add(&s->write_event, NULL);
            break;
        }
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
    s->is_stuck = false;
    flush(s);
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

void stream_close(struct stream *s, enum err err)
{
    if (!s->is_open) {
        return;
    }
    s->is_open = false;
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
    }
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
        s->ops->on_bury(s);
    }
}
