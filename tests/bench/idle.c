#include "tests/bench/idle.h"

#include "tests/bench/address.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Blocks until the reply is whole. */
static bool get_once(int fd, const struct protocol *protocol, const struct shape *shape, const struct request *request)
{
    static char data[1 << 20];
    size_t len = 0;
    struct reply reply = {0};
    if (send(fd, request->text, request->len, MSG_NOSIGNAL) != (ssize_t)request->len)
        return false;
    while (!reply.done && !reply.broken) {
        ssize_t n = recv(fd, data + len, sizeof(data) - len, 0);
        if (n <= 0)
            return false;
        len += (size_t)n;
        size_t taken = protocol->read(shape, request, &reply, data, len);
        memmove(data, data + taken, len - taken);
        len -= taken;
    }
    return reply.done && !reply.failed;
}

bool idle_hold(const char *address, uint32_t count, bool is_used, const struct protocol *protocol, const struct shape *shape,
               struct requests *requests)
{
    for (uint32_t i = 0; i < count; i++) {
        int fd = address_connect(address); /* the process's end closes it */
        if (fd < 0) {
            fprintf(stderr, "load: idle connection %u to %s: %s\n", i + 1, address, strerror(errno));
            return false;
        }
        if (is_used && !get_once(fd, protocol, shape, requests_next(requests))) {
            fprintf(stderr, "load: idle connection %u: its GET was not answered\n", i + 1);
            return false;
        }
    }
    puts("ready");
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    return true;
}
