/* What: a scripted memcached node that costs as little as can be: every key is there with the same value (answer.h). It stands in
 *       for memcached where that would be what a benchmark measures; all peers are measured against it alike.
 *
 * One thread, one epoll loop for all its addresses (several nodes of a pool need no process each). A wake-up of a connection is one
 * recv, all requests answered into one buffer, one send; a buffer of BATCH bytes is sent before more is answered, so that it stays in
 * the processor's cache.
 */
#include "tests/bench/address.h"
#include "tests/bench/answer.h"

#include <errno.h>
#include <getopt.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define INBOX_SIZE (64 * 1024)
#define BATCH (128 * 1024)
#define EVENTS 256

struct connection {
    int fd;
    bool is_listener;
    bool is_blocked; /* unsent holds what the socket did not take: nothing is read meanwhile */
    struct answer_state state;
    struct bytes carry; /* an unfinished request, or what came behind a blocked answer */
    struct bytes unsent;
};

struct node {
    int epoll;
    struct answer_value value;
    struct bytes inbox;
    struct bytes out;
};

static void watch(struct node *node, struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(node->epoll, operation, c->fd, &event);
}

static void hang_up(struct connection *c)
{
    close(c->fd);
    bytes_free(&c->carry);
    bytes_free(&c->unsent);
    free(c);
}

static void accept_all(struct node *node, const struct connection *listener)
{
    for (;;) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        fd_set_nodelay(fd);
        struct connection *c = xcalloc(1, sizeof(*c));
        c->fd = fd;
        watch(node, c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* False: the connection is gone. */
static bool send_all(struct node *node, struct connection *c, struct bytes *from)
{
    while (from->at < from->len) {
        ssize_t n = send(c->fd, from->data + from->at, from->len - from->at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            return false;
        from->at += (size_t)n;
    }
    bool is_blocked = from->at < from->len;
    if (is_blocked && from != &c->unsent)
        bytes_append(&c->unsent, from->data + from->at, from->len - from->at);
    if (!is_blocked || from != &c->unsent)
        from->at = from->len = 0;
    if (is_blocked != c->is_blocked)
        watch(node, c, EPOLL_CTL_MOD, is_blocked ? EPOLLOUT : EPOLLIN);
    c->is_blocked = is_blocked;
    return true;
}

/* Answers what lies in the inbox; the rest goes to carry. */
static bool answer_inbox(struct node *node, struct connection *c)
{
    struct bytes *in = &node->inbox;
    while (!c->is_blocked) {
        size_t taken = answer_requests(&node->value, &c->state, in->data + in->at, in->len - in->at, BATCH, &node->out);
        in->at += taken;
        if (node->out.len == 0)
            break;
        if (!send_all(node, c, &node->out))
            return false;
    }
    c->carry.len = 0;
    bytes_append(&c->carry, in->data + in->at, in->len - in->at);
    return !c->state.is_quit;
}

static void take_carry(struct node *node, struct connection *c)
{
    struct bytes *in = &node->inbox;
    bytes_reserve(in, c->carry.len + INBOX_SIZE);
    memcpy(in->data, c->carry.data != NULL ? c->carry.data : "", c->carry.len);
    in->at = 0;
    in->len = c->carry.len;
}

static bool on_readable(struct node *node, struct connection *c)
{
    take_carry(node, c);
    ssize_t n = recv(c->fd, node->inbox.data + node->inbox.len, INBOX_SIZE, 0);
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0)
        return false;
    node->inbox.len += (size_t)n;
    return answer_inbox(node, c);
}

static bool on_writable(struct node *node, struct connection *c)
{
    if (!send_all(node, c, &c->unsent))
        return false;
    if (c->is_blocked)
        return true;
    take_carry(node, c);
    return answer_inbox(node, c);
}

static void handle(struct node *node, struct connection *c)
{
    if (c->is_listener) {
        accept_all(node, c);
        return;
    }
    node->out.len = node->out.at = 0;
    if (!(c->is_blocked ? on_writable : on_readable)(node, c))
        hang_up(c);
}

static void add_listener(struct node *node, const char *address)
{
    struct connection *c = xcalloc(1, sizeof(*c));
    c->is_listener = true;
    c->fd = address_listen(address);
    if (c->fd < 0) {
        fprintf(stderr, "fastnode: listen on %s: %s\n", address, strerror(errno));
        exit(1);
    }
    watch(node, c, EPOLL_CTL_ADD, EPOLLIN);
}

static void parse_options(struct node *node, int argc, char **argv)
{
    static const struct option options[] = {
        {"value-size", required_argument, NULL, 's'}, {"cas", required_argument, NULL, 'c'}, {NULL, 0, NULL, 0}};
    unsigned long size = 1024, cas = 1000;
    int id;
    while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (id == 's')
            size = strtoul(optarg, NULL, 10);
        else if (id == 'c')
            cas = strtoul(optarg, NULL, 10);
        else
            optind = argc;
    }
    if (optind >= argc || size > 64UL << 20) {
        fputs("usage: fastnode [--value-size BYTES (1024)] [--cas NUMBER (1000)] ADDRESS…\n"
              "  ADDRESS: 127.0.0.1:11211 or unix:/path. Prints \"ready\" when it listens; ends on SIGTERM.\n", stderr);
        exit(2);
    }
    answer_value_init(&node->value, size, cas);
    for (int i = optind; i < argc; i++)
        add_listener(node, argv[i]);
}

int main(int argc, char **argv)
{
    struct node node = {.epoll = epoll_create1(EPOLL_CLOEXEC)};
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    parse_options(&node, argc, argv);
    bytes_reserve(&node.inbox, 2 * INBOX_SIZE);
    bytes_reserve(&node.out, 2 * BATCH);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(node.epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++)
            handle(&node, events[i].data.ptr);
    }
}
