#include "ctl/client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"

#define PIECE 65536

struct call {
    int fd;
    uint64_t deadline_us;
    char *why;
};

static enum err fail(struct call *call, enum err err, const char *what)
{
    snprintf(call->why, WHY_SIZE, "%s", what);
    return err;
}

/* Waits for the socket; ERR_TIMEOUT at the deadline. */
static enum err await(struct call *call, short events)
{
    uint64_t now_us = clock_mono_us();
    int wait_ms = now_us < call->deadline_us ? (int)((call->deadline_us - now_us) / 1000) + 1 : 0;
    struct pollfd poll_fd = {.fd = call->fd, .events = events};
    int n;
    do {
        n = poll(&poll_fd, 1, wait_ms);
    } while (n < 0 && errno == EINTR);
    return n > 0 ? OK : fail(call, ERR_TIMEOUT, "no answer in time");
}

static enum err connect_to(struct call *call, const struct sockaddr *address, socklen_t len)
{
    call->fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (call->fd < 0) {
        return fail(call, ERR_UNAVAILABLE, strerror(errno));
    }
    int error = connect(call->fd, address, len) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
        enum err err = await(call, POLLOUT);
        if (err != OK) {
            return err;
        }
        socklen_t size = sizeof error;
        getsockopt(call->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    return error == 0 ? OK : fail(call, ERR_UNAVAILABLE, strerror(error));
}

static enum err connect_unix(struct call *call, const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sun.sun_path) {
        return fail(call, ERR_UNAVAILABLE, "the path of the socket is too long");
    }
    strcpy(sun.sun_path, path);
    return connect_to(call, (const struct sockaddr *)&sun, sizeof sun);
}

/* Every address of the host in turn. */
static enum err connect_tcp(struct call *call, const struct address *address)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    char port[8];
    snprintf(port, sizeof port, "%u", address->port);
    int error = getaddrinfo(address->host, port, &hints, &found);
    if (error != 0) {
        return fail(call, ERR_UNAVAILABLE, gai_strerror(error));
    }
    enum err err = ERR_UNAVAILABLE;
    for (const struct addrinfo *it = found; it != NULL && err == ERR_UNAVAILABLE; it = it->ai_next) {
        if (call->fd >= 0) {
            close(call->fd);
        }
        err = connect_to(call, it->ai_addr, it->ai_addrlen);
    }
    freeaddrinfo(found);
    return err;
}

static enum err send_all(struct call *call, struct span data)
{
    while (data.len > 0) {
        ssize_t n = send(call->fd, data.data, data.len, MSG_NOSIGNAL);
        if (n > 0) {
            data = span_of(data.data + n, data.len - (size_t)n);
        } else if (errno == EAGAIN) {
            enum err err = await(call, POLLOUT);
            if (err != OK) {
                return err;
            }
        } else if (errno != EINTR) {
            return OK; /* it has hung up, perhaps with an answer: that is what counts */
        }
    }
    return OK;
}

static enum err receive(struct call *call, struct answer *out)
{
    size_t cap = 0;
    for (;;) {
        if (out->len + PIECE > cap) {
            cap = MAX(cap * 2, out->len + PIECE);
            char *grown = cap <= RESPONSE_HEAD_MAX + 2 * RESPONSE_BODY_MAX ? realloc(out->data, cap) : NULL;
            if (grown == NULL) {
                return fail(call, ERR_TOO_LARGE, "the answer is too large");
            }
            out->data = grown;
        }
        ssize_t n = recv(call->fd, out->data + out->len, PIECE, 0);
        if (n < 0 && errno == EAGAIN) {
            enum err err = await(call, POLLIN);
            if (err != OK) {
                return err;
            }
            continue;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        out->len += n > 0 ? (size_t)n : 0;
        switch (response_parse(span_of(out->data, out->len), n <= 0, &out->response)) {
        case RESPONSE_WHOLE: return OK;
        case RESPONSE_BAD: return fail(call, ERR_PROTOCOL, out->len == 0 ? "the connection was closed without an answer" : "what answers does not speak HTTP as it should");
        case RESPONSE_MORE: break;
        }
    }
}

static enum err send_question(struct call *call, const struct server *server, const struct question *question)
{
    char *head = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&head, &len);
    if (out == NULL) {
        return fail(call, ERR_NOMEM, "no memory");
    }
    fprintf(out, "%s %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: outriggerctl/" OUTRIGGER_VERSION "\r\n", question->method, question->target,
            server->address.path != NULL ? "localhost" : server->address.host);
    if (question->wants_json) {
        fputs("Accept: application/json\r\n", out);
    }
    if (server->token != NULL) {
        fprintf(out, "Authorization: Bearer %s\r\n", server->token);
    }
    if (question->body.data != NULL) {
        const char *type = strcmp(question->method, "POST") == 0 ? "application/json" : "application/octet-stream";
        fprintf(out, "Content-Type: %s\r\nContent-Length: %zu\r\n", type, question->body.len);
    }
    fputs("\r\n", out);
    enum err err = fclose(out) == 0 ? send_all(call, span_of(head, len)) : ERR_NOMEM;
    explicit_bzero(head, len); /* the token */
    free(head);
    if (err == OK && question->body.data != NULL) {
        err = send_all(call, question->body);
    }
    return err;
}

enum err client_ask(const struct server *server, const struct question *question, struct answer *out, char why[WHY_SIZE])
{
    struct call call = {.fd = -1, .deadline_us = clock_mono_us() + 1000ULL * server->timeout_ms, .why = why};
    *out = (struct answer){.data = NULL};
    const struct address *address = &server->address;
    enum err err = address->path != NULL ? connect_unix(&call, address->path) : connect_tcp(&call, address);
    if (err == OK) {
        err = send_question(&call, server, question);
    }
    if (err == OK) {
        err = receive(&call, out);
    }
    if (call.fd >= 0) {
        close(call.fd);
    }
    if (err != OK) {
        answer_free(out);
    }
    return err;
}

void answer_free(struct answer *answer)
{
    free(answer->data);
    *answer = (struct answer){.data = NULL};
}
