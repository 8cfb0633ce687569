/* What:    addresses as the bench writes them ("127.0.0.1:11211", "unix:/path") made into listening or connected sockets.
 * Owns:    nothing; descriptors are the caller's.
 * Threads: any.
 * Fails:   -1 with errno set; a name that is no address is EINVAL. IPv4 and unix only: the bench stays on loopback.
 */
#ifndef BENCH_ADDRESS_H
#define BENCH_ADDRESS_H

int address_listen(const char *address);  /* non-blocking; a unix socket's old file is removed first */
int address_connect(const char *address); /* blocking; TCP_NODELAY */

void fd_set_nonblocking(int fd);
void fd_set_nodelay(int fd); /* does nothing to a unix socket */

#endif
