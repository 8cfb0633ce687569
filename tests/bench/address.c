#include "tests/bench/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union any_address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_un un;
};

static socklen_t parse(const char *text, union any_address *out)
{
    memset(out, 0, sizeof(*out));
    if (strncmp(text, "unix:", 5) == 0) {
        if (strlen(text + 5) >= sizeof(out->un.sun_path))
            return 0;
        out->un.sun_family = AF_UNIX;
        strcpy(out->un.sun_path, text + 5);
        return sizeof(out->un);
    }
    char host[64];
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof(host))
        return 0;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || end == colon + 1 || port > 65535)
        return 0;
    out->in.sin_family = AF_INET;
    out->in.sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, host, &out->in.sin_addr) == 1 ? sizeof(out->in) : 0;
}

void fd_set_nonblocking(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void fd_set_nodelay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

int address_listen(const char *address)
{
    union any_address a;
    socklen_t len = parse(address, &a);
    if (len == 0) {
        errno = EINVAL;
        return -1;
    }
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a.any.sa_family == AF_UNIX)
        unlink(a.un.sun_path);
    if (bind(fd, &a.any, len) != 0 || listen(fd, 4096) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

int address_connect(const char *address)
{
    union any_address a;
    socklen_t len = parse(address, &a);
    if (len == 0) {
        errno = EINVAL;
        return -1;
    }
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, &a.any, len) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    fd_set_nodelay(fd);
    return fd;
}
