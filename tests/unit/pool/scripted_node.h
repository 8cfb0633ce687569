/* What:    a scripted memcached for unit tests: a listening unix socket in the same thread, and the loop of whoever is connected to it.
 * Owns:    the loop, the sockets and the file, from scripted_open() to scripted_close().
 */
#ifndef TESTS_UNIT_POOL_SCRIPTED_NODE_H
#define TESTS_UNIT_POOL_SCRIPTED_NODE_H

#include <check.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxy/net/stream.h"

static struct loop loop;
static int listening;
static int client; /* the server's end of the node's connection; -1: there is none */
static char path[64];

static void turn(void)
{
    event_base_loop(loop.base, EVLOOP_NONBLOCK);
    stream_flush_dirty(&loop);
    stream_bury_dead(&loop);
}

/* Turns the loop until the condition holds; a test that waits in vain is ended by Check. */
#define turn_until(condition) \
    do {                      \
        while (!(condition)) { \
            turn();           \
        }                     \
    } while (0)

static bool try_accept(void)
{
    client = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
    return client >= 0;
}

static void scripted_open(const char *name)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(path, sizeof path, "/tmp/%s.%d.sock", name, getpid());
    unlink(path);
    listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    strcpy(sun.sun_path, path);
    ck_assert_int_eq(bind(listening, (struct sockaddr *)&sun, sizeof sun), 0);
    ck_assert_int_eq(listen(listening, 10), 0);
    client = -1;
    ck_assert_int_eq(loop_init(&loop, NULL, 64 << 20), OK);
}

static void scripted_close(void)
{
    close(listening);
    if (client >= 0) {
        close(client);
    }
    unlink(path);
    loop_deinit(&loop);
}

#endif
