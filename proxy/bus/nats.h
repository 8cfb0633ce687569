/* What:    a link: one connection to one region's NATS, as a transport. The only user of the NATS library.
 * Owns:    its connection, the subscription to its inbox, the thread that writes, and what waits to be written.
 * Threads: made, stopped and used on the bus's thread; the handler is called there, when the bus's mailbox is drained.
 * Fails:   see transport.h. A server that is not there is no failure: the link goes up when it can.
 *
 *   bus thread ── send ──▶ link's mailbox ──▶ link's thread ──▶ library ──▶ socket
 *   socket ──▶ library's threads: copy ──▶ bus's mailbox ──▶ bus thread: handler
 *
 * (The file is named for the library; `nats_` is the library's own prefix, so ours is `link_`.)
 *
 * Every link has a thread of its own because the library writes to the socket in the publishing call, under the connection's
 * lock: with a peer that does not read, publishing, pinging and even asking for the connection's status wait for the write
 * deadline. Connecting (with its name lookup) and closing block as well. All of that happens on the link's thread only, so that a
 * stuck peer holds up nobody else. What is sent while the link is down is thrown away: whoever sent it hears of on_down, and
 * sends again after on_up.
 */
#ifndef PROXY_BUS_NATS_H
#define PROXY_BUS_NATS_H

#include "common/log.h"
#include "common/mailbox.h"
#include "proxy/bus/nats_access.h"
#include "proxy/bus/transport.h"

#define LINK_OUT_MAX (16U << 20) /* bytes waiting to be written; beyond: ERR_OVERLOAD */
#define LINK_IN_MAX (64U << 20)  /* bytes waiting for the bus's thread; what is beyond is dropped, and so delivered again */

#define LINK_EXTRA_MAX 3 /* subjects beside its own inbox */

struct link;

struct link_subject {
    const char *subject; /* NULL: none */
    const char *queue;   /* or NULL: not one of a group, of which each message goes to one member */
};

struct link_options {
    const char *name; /* of the region, for messages */
    struct access access;
    const char *client_name; /* as the server's monitoring shows it */
    bool send_asap;          /* each message with a write of its own at once; else the library gathers for up to 1 ms */
    bool is_wanted;          /* as of link_want(), from the start */
    struct link_subject extra[LINK_EXTRA_MAX];
    const struct transport_handler *handler;
    void *ctx;
};

/* The strings, the log and the mailbox are borrowed for the link's life. The handler is called when `mailbox` is drained. */
enum err link_create(const struct link_options *options, struct log *log, struct mailbox *mailbox, struct link **out);
struct transport *link_transport(struct link *link);
/* Whether it is to be connected. One that is not wanted closes its connection, and calls its handler no more; if it is wanted again, be it at once,
 * there is another on_up. */
void link_want(struct link *link, bool is_wanted);
void link_stop(struct link *link); /* starts to close; does not wait. What was sent before goes out, as far as that takes seconds at most. */
/* Waits for the link's thread. No event is posted after it; those in the mailbox must be drained (the handler is not called any
 * more) before link_destroy(). */
void link_join(struct link *link);
void link_destroy(struct link **link);

#endif
