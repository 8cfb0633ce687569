#include "proxy/net/listener.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096
#define ACCEPTS_A_TURN 64 /* so that a storm of connections does not hold up the connected */
#define PAUSE_US 100000

static enum err fail(char *error, size_t size, const struct address *address, const char *what)
{
    snprintf(error, size, "can not listen on %s: %s: %s", address->text, what, strerror(errno));
    return ERR_IO;
}

/* A path that nobody answers at is left over from a process that is gone. */
static void remove_stale(const struct sockaddr_un *sun)
{
    struct stat st;
    if (lstat(sun->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    if (connect(fd, (const struct sockaddr *)sun, sizeof *sun) < 0 && errno == ECONNREFUSED) {
        unlink(sun->sun_path);
    }
    close(fd);
}

static enum err unix_socket(const struct address *address, unsigned mode, int *out, char *error, size_t error_size)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    if (strlen(address->path) >= sizeof sun.sun_path) {
        errno = ENAMETOOLONG;
        return fail(error, error_size, address, "path");
    }
    strcpy(sun.sun_path, address->path);
    remove_stale(&sun);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail(error, error_size, address, "socket");
    }
    mode_t old = umask(0777 & ~mode);
    int rc = bind(fd, (struct sockaddr *)&sun, sizeof sun);
    umask(old);
    if (rc < 0 || listen(fd, BACKLOG) < 0) {
        enum err err = fail(error, error_size, address, "bind");
        close(fd);
        return err;
    }
    *out = fd;
    return OK;
}

static enum err tcp_socket(const struct address *address, bool is_shared, int *out, char *error, size_t error_size)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *ai = NULL;
    char port[8];
    snprintf(port, sizeof port, "%u", address->port);
    int rc = getaddrinfo(address->host, port, &hints, &ai);
    if (rc != 0) {
        snprintf(error, error_size, "can not listen on %s: %s", address->text, gai_strerror(rc));
        return ERR_IO;
    }
    enum err err = OK;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0) {
        err = fail(error, error_size, address, "socket");
    } else if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
               (is_shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) < 0)) {
        err = fail(error, error_size, address, "SO_REUSEPORT");
    } else if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        err = fail(error, error_size, address, "bind");
    }
    freeaddrinfo(ai);
    if (err != OK) {
        if (fd >= 0) {
            close(fd);
        }
        return err;
    }
    *out = fd;
    return OK;
}

enum err listener_socket(const struct address *address, unsigned unix_mode, int *fd, char *error, size_t error_size)
{
    return address->path != NULL ? unix_socket(address, unix_mode, fd, error, error_size)
                                 : tcp_socket(address, true, fd, error, error_size);
}

enum err listener_probe(const struct address *address, char *error, size_t error_size)
{
    if (address->path != NULL) {
        return OK; /* bind() will tell */
    }
    int fd;
    enum err err = tcp_socket(address, false, &fd, error, error_size);
    if (err == OK) {
        close(fd);
    }
    return err;
}

static void on_pause_over(struct timer *timer)
{
    struct listener *l = container_of(timer, struct listener, pause);
    event_add(&l->event, NULL);
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
    struct listener *l = arg;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                /* The connection stays in the backlog; spinning on it would help nobody. */
                event_del(&l->event);
                timer_start(&l->pause, PAUSE_US);
            }
            return;
        }
        if (l->config->address.path == NULL) {
            int one = 1;
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        }
        l->on_accept(l->ctx, client, l->config);
    }
}

enum err listener_open(struct listener *l, struct loop *loop, int fd, const struct config_listen *config, void *ctx,
                       void (*on_accept)(void *ctx, int fd, const struct config_listen *config))
{
    *l = (struct listener){.loop = loop, .fd = fd, .config = config, .ctx = ctx, .on_accept = on_accept};
    timer_init(&l->pause, loop, on_pause_over);
    event_assign(&l->event, loop->base, fd, EV_READ | EV_PERSIST, on_acceptable, l);
    return event_add(&l->event, NULL) == 0 ? OK : ERR_IO;
}

void listener_close(struct listener *l)
{
    if (l->fd >= 0) {
        event_del(&l->event);
        timer_stop(&l->pause);
        close(l->fd);
        l->fd = -1;
    }
}
