#include "tests/bench/client.h"

#include "common/base.h"
#include "tests/bench/address.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

bool client_open(struct client *c, const char *address, uint32_t depth)
{
    *c = (struct client){.depth = depth, .fd = address_connect(address)};
    if (c->fd < 0) {
        fprintf(stderr, "load: connect to %s: %s\n", address, strerror(errno));
        return false;
    }
    fd_set_nonblocking(c->fd);
    c->flights = xcalloc(depth, sizeof(*c->flights));
    return true;
}

void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->flights);
    free(c->backlog);
    bytes_free(&c->carry);
    bytes_free(&c->unsent);
    *c = (struct client){.fd = -1};
}

void client_queue(struct client *c, const struct requests *all, const struct request *request, uint64_t since, struct bytes *outbox)
{
    uint32_t slot = c->head + c->count;
    c->flights[slot < c->depth ? slot : slot - c->depth] = (struct flight){request, since};
    c->count++;
    bytes_append(outbox, request->text, request->len);
    if (request->kind == REQUEST_SET)
        bytes_append(outbox, all->body, all->body_len);
}

bool client_flush(struct client *c, struct bytes *outbox, bool *is_blocked)
{
    struct bytes *from = outbox;
    if (c->unsent.len > 0) { /* keep the order */
        bytes_append(&c->unsent, outbox->data, outbox->len);
        outbox->len = 0;
        from = &c->unsent;
    }
    *is_blocked = false;
    if (from->len == from->at)
        return true;
    ssize_t n = send(c->fd, from->data + from->at, from->len - from->at, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        fprintf(stderr, "load: send: %s\n", strerror(errno));
        return false;
    }
    from->at += n > 0 ? (size_t)n : 0;
    *is_blocked = from->at < from->len;
    if (*is_blocked && from == outbox)
        bytes_append(&c->unsent, outbox->data + outbox->at, outbox->len - outbox->at);
    if (from == outbox || !*is_blocked)
        from->at = from->len = 0;
    return true;
}

bool client_receive(struct client *c, struct bytes *inbox)
{
    inbox->at = 0;
    inbox->len = c->carry.len;
    bytes_reserve(inbox, c->carry.len + inbox->capacity / 2);
    if (c->carry.len > 0)
        memcpy(inbox->data, c->carry.data, c->carry.len);
    ssize_t n = recv(c->fd, inbox->data + inbox->len, inbox->capacity - inbox->len, 0);
    if (n < 0 && errno == EAGAIN)
        n = 0;
    else if (n <= 0) {
        fprintf(stderr, "load: the server closed the connection%s%s\n", n < 0 ? ": " : "", n < 0 ? strerror(errno) : "");
        return false;
    }
    c->carry.len = 0;
    inbox->len += (size_t)n;
    return true;
}

static void say_broken(const struct reply *reply)
{
    fprintf(stderr, "load: no reply to what was asked: \"");
    for (size_t i = 0; i < reply->text_len && i < 120; i++)
        fprintf(stderr, reply->text[i] >= ' ' && reply->text[i] <= '~' ? "%c" : "\\x%02x", (unsigned char)reply->text[i]);
    fprintf(stderr, "\"\n");
}

/* The buffer that its text lies in is about to be reused. */
static void keep_error(struct client *c)
{
    if (c->reply.text == c->error)
        return;
    c->reply.text_len = MIN(c->reply.text_len, sizeof(c->error));
    memcpy(c->error, c->reply.text, c->reply.text_len);
    c->reply.text = c->error;
}

enum take client_take(struct client *c, const struct protocol *protocol, const struct shape *shape, struct bytes *inbox,
                      struct completion *out)
{
    size_t rest = inbox->len - inbox->at;
    if (rest == 0)
        return TAKE_MORE;
    if (c->count == 0) {
        say_broken(&(struct reply){.text = inbox->data + inbox->at, .text_len = rest});
        return TAKE_BROKEN;
    }
    const struct flight *flight = &c->flights[c->head];
    inbox->at += protocol->read(shape, flight->request, &c->reply, inbox->data + inbox->at, rest);
    if (c->reply.broken) {
        say_broken(&c->reply);
        return TAKE_BROKEN;
    }
    if (c->reply.failed && !c->reply.done)
        keep_error(c);
    if (!c->reply.done) {
        bytes_append(&c->carry, inbox->data + inbox->at, inbox->len - inbox->at);
        return TAKE_MORE;
    }
    *out = (struct completion){.flight = *flight, .reply = c->reply};
    c->reply = (struct reply){0};
    c->head = c->head + 1 == c->depth ? 0 : c->head + 1;
    c->count--;
    return TAKE_REPLY;
}

void client_delay(struct client *c, struct flight flight)
{
    if (c->backlog_count == c->backlog_capacity) {
        uint32_t capacity = MAX(64U, 2 * c->backlog_capacity);
        struct flight *grown = xcalloc(capacity, sizeof(*grown));
        for (uint32_t i = 0; i < c->backlog_count; i++)
            grown[i] = c->backlog[(c->backlog_head + i) % c->backlog_capacity];
        free(c->backlog);
        c->backlog = grown;
        c->backlog_head = 0;
        c->backlog_capacity = capacity;
    }
    c->backlog[(c->backlog_head + c->backlog_count++) % c->backlog_capacity] = flight;
}

bool client_undelay(struct client *c, struct flight *out)
{
    if (c->backlog_count == 0)
        return false;
    *out = c->backlog[c->backlog_head];
    c->backlog_head = (c->backlog_head + 1) % c->backlog_capacity;
    c->backlog_count--;
    return true;
}
