#include "proxy/cache/sweep_node.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "proxy/cache/freshness.h"
#include "proxy/protocol/base64.h"

#define BATCH 64             /* deletions in one write */
#define BATCH_PAUSE_NS 2000000 /* between two: a sweep shall not be what the node is busy with */
#define LINE_MAX_LEN 2048
#define LOOK_MS 500
#define SILENCE_US 30000000ULL

struct reader {
    int fd;
    size_t start;
    size_t end;
    char data[16384];
};

struct batch {
    int fd;
    struct reader *replies;
    uint32_t count;
    size_t len;
    char text[BATCH * 400];
};

static enum err connect_to(int fd, const struct sockaddr *address, socklen_t len, uint32_t timeout_ms)
{
    struct timeval timeout = {.tv_sec = timeout_ms / 1000, .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
    struct timeval look = {.tv_usec = LOOK_MS * 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout); /* bounds connect(), too */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &look, sizeof look);
    return connect(fd, address, len) == 0 ? OK : ERR_UNAVAILABLE;
}

static enum err open_node(const struct address *node, uint32_t timeout_ms, int *out)
{
    *out = -1;
    if (node->path != NULL) {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        snprintf(un.sun_path, sizeof un.sun_path, "%s", node->path);
        *out = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        return *out < 0 ? ERR_IO : connect_to(*out, (struct sockaddr *)&un, sizeof un, timeout_ms);
    }
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    snprintf(port, sizeof port, "%u", node->port);
    if (getaddrinfo(node->host, port, &hints, &found) != 0) {
        return ERR_UNAVAILABLE;
    }
    *out = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    enum err err = *out < 0 ? ERR_IO : connect_to(*out, found->ai_addr, found->ai_addrlen, timeout_ms);
    freeaddrinfo(found);
    return err;
}

static enum err send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return errno == EAGAIN ? ERR_TIMEOUT : ERR_IO;
        }
        data += n;
        len -= (size_t)n;
    }
    return OK;
}

/* One line without its end, good until the next call. */
static enum err read_line(const struct sweep_pass *pass, struct reader *r, struct span *out)
{
    uint64_t deadline_us = clock_mono_us() + SILENCE_US;
    for (;;) {
        char *end = memchr(r->data + r->start, '\n', r->end - r->start);
        if (end != NULL) {
            size_t len = (size_t)(end - (r->data + r->start));
            *out = span_of(r->data + r->start, len - (len > 0 && end[-1] == '\r'));
            r->start += len + 1;
            return OK;
        }
        memmove(r->data, r->data + r->start, r->end - r->start);
        r->end -= r->start;
        r->start = 0;
        if (r->end > LINE_MAX_LEN) {
            return ERR_PROTOCOL;
        }
        ssize_t n = recv(r->fd, r->data + r->end, sizeof r->data - r->end, 0);
        if (atomic_load(pass->is_stopping)) {
            return ERR_STOPPING;
        }
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            return ERR_IO;
        }
        if (n < 0 && clock_mono_us() > deadline_us) {
            return ERR_TIMEOUT;
        }
        r->end += n > 0 ? (size_t)n : 0;
    }
}

/* --- deletions --- */

static enum err flush(struct sweep_pass *pass, struct batch *b)
{
    if (b->count == 0) {
        return OK;
    }
    enum err err = send_all(b->fd, b->text, b->len);
    for (uint32_t i = 0; i < b->count && err == OK; i++) {
        struct span line;
        err = read_line(pass, b->replies, &line);
        if (err == OK && span_has_prefix(line, SPAN_LIT("HD"))) {
            pass->deleted++;
        } else if (err == OK && !span_has_prefix(line, SPAN_LIT("EX")) && !span_has_prefix(line, SPAN_LIT("NF"))) {
            err = ERR_PROTOCOL; /* EX, NF: something else has happened to it, which is as good */
        }
    }
    b->count = 0;
    b->len = 0;
    nanosleep(&(struct timespec){.tv_nsec = BATCH_PAUSE_NS}, NULL);
    return err;
}

static bool is_plain(struct span key)
{
    for (size_t i = 0; i < key.len; i++) {
        if ((unsigned char)key.data[i] <= ' ' || key.data[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static enum err add(struct sweep_pass *pass, struct batch *b, struct span key, uint64_t cas)
{
    char *at = b->text + b->len;
    size_t room = sizeof b->text - b->len;
    if (is_plain(key)) {
        b->len += (size_t)snprintf(at, room, "md %.*s C%" PRIu64 "\r\n", SPAN_FMT(key), cas);
    } else {
        char text[BASE64_LEN(KEY_MAX)];
        size_t len = (size_t)(base64_put(text, key) - text);
        b->len += (size_t)snprintf(at, room, "md %.*s C%" PRIu64 " b\r\n", (int)len, text, cas);
    }
    b->count++;
    return b->count == BATCH ? flush(pass, b) : OK;
}

/* --- the crawler's lines --- */

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "key=user%3A1 exp=-1 la=1 cas=2 fetch=no cls=1 size=63" */
static bool parse_entry(struct span line, char key[static KEY_MAX], size_t *key_len, uint64_t *cas)
{
    size_t i = 4;
    *key_len = 0;
    if (!span_has_prefix(line, SPAN_LIT("key="))) {
        return false;
    }
    for (; i < line.len && line.data[i] != ' '; i++) {
        char byte = line.data[i];
        if (byte == '%') {
            if (i + 2 >= line.len || hex(line.data[i + 1]) < 0 || hex(line.data[i + 2]) < 0) {
                return false;
            }
            byte = (char)(hex(line.data[i + 1]) << 4 | hex(line.data[i + 2]));
            i += 2;
        }
        if (*key_len == KEY_MAX) {
            return false;
        }
        key[(*key_len)++] = byte;
    }
    const char *at = memmem(line.data + i, line.len - i, " cas=", 5);
    if (at == NULL || *key_len == 0) {
        return false;
    }
    *cas = strtoull(at + 5, NULL, 10); /* ends at the latest at the line's */
    return true;
}

static enum err on_entry(struct sweep_pass *pass, struct batch *batch, struct span line)
{
    char key[KEY_MAX];
    size_t key_len;
    uint64_t cas;
    if (!parse_entry(line, key, &key_len, &cas)) {
        return ERR_PROTOCOL;
    }
    uint64_t rule = cas < glob_index_newest(pass->index) ? glob_index_find(pass->index, span_of(key, key_len)) : 0;
    if (!freshness_is_hidden(cas, rule)) {
        return OK;
    }
    pass->on_found(pass->ctx, rule, cas);
    return add(pass, batch, span_of(key, key_len), cas);
}

/* By the hash table, which misses less than the LRUs' way does, where the node knows it. */
static enum err start_dump(struct sweep_pass *pass, struct reader *r, struct span *line)
{
    static const char *const commands[] = {"lru_crawler metadump hash\r\n", "lru_crawler metadump all\r\n"};
    enum err err = OK;
    for (size_t i = 0; i < ARRAY_LEN(commands) && err == OK; i++) {
        err = send_all(r->fd, commands[i], strlen(commands[i]));
        if (err == OK) {
            err = read_line(pass, r, line);
        }
        if (err == OK && span_has_prefix(*line, SPAN_LIT("BUSY"))) {
            return ERR_OVERLOAD;
        }
        if (err == OK && (span_has_prefix(*line, SPAN_LIT("key=")) || span_eq(*line, SPAN_LIT("END")) || span_eq(*line, SPAN_LIT("OK")))) {
            return OK;
        }
    }
    return err != OK ? err : ERR_PROTOCOL;
}

enum err sweep_node(struct sweep_pass *pass, const struct address *node, uint32_t timeout_ms)
{
    struct reader *readers = xcalloc(2, sizeof *readers);
    struct batch *batch = xcalloc(1, sizeof *batch);
    struct span line = {NULL, 0};
    readers[1].fd = -1;
    enum err err = open_node(node, timeout_ms, &readers[0].fd);
    if (err == OK) {
        err = open_node(node, timeout_ms, &readers[1].fd);
    }
    batch->fd = readers[1].fd;
    batch->replies = &readers[1];
    if (err == OK) {
        err = start_dump(pass, &readers[0], &line);
    }
    while (err == OK && !span_eq(line, SPAN_LIT("END"))) {
        if (!span_eq(line, SPAN_LIT("OK"))) {
            err = on_entry(pass, batch, line);
        }
        if (err == OK) {
            err = read_line(pass, &readers[0], &line);
        }
    }
    if (err == OK) {
        err = flush(pass, batch);
    }
    for (int i = 0; i < 2; i++) {
        if (readers[i].fd >= 0) {
            close(readers[i].fd);
        }
    }
    free(batch);
    free(readers);
    return err;
}
