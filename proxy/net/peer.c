#include "proxy/net/peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

union any_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
    struct sockaddr_storage room;
};

static const char *text_of(const union any_address *address, socklen_t len, char out[PEER_TEXT_SIZE])
{
    char host[INET6_ADDRSTRLEN] = "";
    int path_len = 0;
    switch (address->any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof host);
        snprintf(out, PEER_TEXT_SIZE, "tcp:%s:%u", host, ntohs(address->v4.sin_port));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof host);
        snprintf(out, PEER_TEXT_SIZE, "tcp6:[%s]:%u", host, ntohs(address->v6.sin6_port));
        break;
    case AF_UNIX:
        path_len = len > offsetof(struct sockaddr_un, sun_path) ? (int)(len - offsetof(struct sockaddr_un, sun_path)) : 0;
        snprintf(out, PEER_TEXT_SIZE, "unix:%.*s", path_len, address->local.sun_path);
        break;
    default:
        snprintf(out, PEER_TEXT_SIZE, "unknown");
        break;
    }
    return out;
}

const char *peer_text(int fd, char out[PEER_TEXT_SIZE])
{
    union any_address address = {.any.sa_family = AF_UNSPEC};
    socklen_t len = sizeof address;
    if (getpeername(fd, &address.any, &len) != 0) {
        address.any.sa_family = AF_UNSPEC;
    }
    return text_of(&address, len, out);
}

const char *peer_local_text(int fd, char out[PEER_TEXT_SIZE])
{
    union any_address address = {.any.sa_family = AF_UNSPEC};
    socklen_t len = sizeof address;
    if (getsockname(fd, &address.any, &len) != 0) {
        address.any.sa_family = AF_UNSPEC;
    }
    return text_of(&address, len, out);
}
