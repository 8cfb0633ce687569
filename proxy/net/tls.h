/* What:    TLS of client connections: the certificate and key in force, loaded from files and replaced while connections go on; and what one
 *          connection does with them: shake hands, receive, send, say goodbye.
 * Owns:    struct tls owns the context in force; a session keeps the one it began with. A session does not own its descriptor.
 * Threads: tls_create/reload/has_changed/expires_s/destroy on the main thread; tls_accept on any; a session belongs to its stream's thread.
 * Fails:   loading with ERR_CONFIG and a text that names option and file; what was in force stays in force. Sessions fail like sockets: -1 and
 *          errno, EAGAIN when they wait for the socket, EPROTO when they can not go on.
 *
 * The only user of OpenSSL's TLS.
 */
#ifndef PROXY_NET_TLS_H
#define PROXY_NET_TLS_H

#include <sys/uio.h>

#include "common/config.h"
#include "proxy/metric.h"

struct tls;

#define TLS_TEXT 512 /* of what loading has to say: why it failed, or a warning, or "" */

enum err tls_create(const struct config_tls *config, struct tls **out, char text[TLS_TEXT]);
void tls_destroy(struct tls **tls);

/* Reads the files again. Refuses an expired certificate as well, which tls_create only warns of: what is in force may be better. */
enum err tls_reload(struct tls *tls, char text[TLS_TEXT]);

/* Whether the files are others than those read last; asked every now and then, and true only when they have stopped changing. */
bool tls_has_changed(struct tls *tls);

uint64_t tls_expires_s(const struct tls *tls); /* Unix time */

struct tls_session;

/* The server's side of a connection; NULL without memory. */
struct tls_session *tls_accept(struct tls *tls, int fd);
void tls_session_free(struct tls_session **session);

/* To be called until it is OK; ERR_UNAVAILABLE: not yet. Anything else is the end, and result and reason tell of it. */
enum err tls_handshake(struct tls_session *session);
enum handshake_result tls_result(const struct tls_session *session);
const char *tls_reason(const struct tls_session *session);

/* As recv() and sendmsg(); 0 when the peer will send no more, whether it said so or just ended. After EAGAIN what is offered must begin with the
 * same bytes, wherever they are by then, and be no less. */
ssize_t tls_receive(struct tls_session *session, char *data, size_t len);
ssize_t tls_send(struct tls_session *session, const struct iovec *iov, int pieces);

/* After tls_handshake or tls_receive, whatever it returned: it can not go on before the socket takes bytes; and after tls_send: before some come. */
bool tls_receive_wants_write(const struct tls_session *session);
bool tls_send_wants_read(const struct tls_session *session);

/* After tls_receive: there is more that has come already, or the end; the socket will not become readable for it. */
bool tls_has_more(const struct tls_session *session);

void tls_goodbye(struct tls_session *session); /* close_notify, if the socket takes it */

#endif
