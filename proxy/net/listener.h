/* What:    listening sockets: TCP with SO_REUSEPORT, one for each worker, and unix sockets, one shared by all workers.
 * Owns:    struct listener owns its descriptor (a shared one is dup'ed) and event.
 * Threads: its loop's; listener_probe and listener_socket from any.
 * Fails:   ERR_IO with a text that names the address and says what the kernel said.
 */
#ifndef PROXY_NET_LISTENER_H
#define PROXY_NET_LISTENER_H

#include "common/config.h"
#include "proxy/net/loop.h"

struct listener {
    struct loop *loop;
    int fd;
    struct event event;
    struct timer pause; /* after the process ran out of descriptors */
    const struct config_listen *config;
    void *ctx;
    void (*on_accept)(void *ctx, int fd, const struct config_listen *config); /* takes the non-blocking descriptor over */
};

/* Whether a TCP address is free of others, those with SO_REUSEPORT included. */
enum err listener_probe(const struct address *address, char *error, size_t error_size);

/* A listening socket: for TCP each worker opens its own, for a unix path it is opened once and shared. */
enum err listener_socket(const struct address *address, unsigned unix_mode, int *fd, char *error, size_t error_size);

/* Takes `fd` over. */
enum err listener_open(struct listener *listener, struct loop *loop, int fd, const struct config_listen *config, void *ctx,
                       void (*on_accept)(void *ctx, int fd, const struct config_listen *config));
void listener_close(struct listener *listener);

#endif
