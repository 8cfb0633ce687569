/* What:    the two ends of a connected socket as memcached writes them: "tcp:127.0.0.1:11211", "tcp6:[::1]:11211", "unix:/path".
 * Owns:    nothing.
 * Threads: any.
 * Fails:   a socket that has no such end (any more) is "unknown".
 */
#ifndef PROXY_NET_PEER_H
#define PROXY_NET_PEER_H

#define PEER_TEXT_SIZE 128

const char *peer_text(int fd, char out[PEER_TEXT_SIZE]);       /* the client's */
const char *peer_local_text(int fd, char out[PEER_TEXT_SIZE]); /* ours */

#endif
