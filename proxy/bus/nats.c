#include "proxy/bus/nats.h"

#include <errno.h>
#include <inttypes.h>
#include <nats/nats.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/random.h>

#include "common/clock.h"
#include "proxy/bus/backoff.h"

#define CONNECT_TIMEOUT_MS 2000
#define WRITE_DEADLINE_MS 2000 /* a peer that does not read for so long loses the connection */
#define PING_MS 3000           /* two without an answer: the connection is given up */
#define PINGS_OUT 2
#define RECONNECT_MS 250
#define RECONNECT_JITTER_MS 250
#define PENDING_MESSAGES_MAX 65536  /* in the library, on their way to us */
#define CHECK_MS 5000      /* how often a connection that should be there is looked at */
#define RENEW_US 10000000ULL /* down for so long: it is opened anew, with certificates and credentials as they are now */
#define RECONNECT_BUFFER (64 << 10) /* nothing of ours should get into it, see write_message() */
#define REOPEN_MIN_MS 500 /* after what the library does not try again by itself: the first connection, refused credentials */
#define REOPEN_MAX_MS 5000
#define CALLBACKS_END_MS 10000
#define LAST_US 2000000ULL /* after a stop, what was sent before it is written for so long */
#define LAST_FLUSH_MS 1000 /* … and its arrival waited for */
#define SUBSCRIPTIONS (2 + LINK_EXTRA_MAX) /* the inbox, the watch, and what the options name */

struct link {
    struct transport transport;
    struct link_options options;
    struct log *log;
    struct mailbox *bus; /* of the bus's thread */
    char inbox[64];
    char watch[72];

    pthread_t thread;
    struct mailbox mailbox; /* struct letter, for our thread */
    _Atomic bool is_stopping;
    _Atomic uint64_t write_until_us; /* while stopping */
    _Atomic bool is_wanted;
    _Atomic uint32_t unwanted; /* how often it was not: our thread may be too late to see it in is_wanted */
    _Atomic size_t out_bytes;
    _Atomic size_t in_bytes;
    _Atomic bool is_closed; /* the library has given the connection up */
    bool was_joined;

    /* Our thread's. */
    natsConnection *connection;
    natsSubscription *subscriptions[SUBSCRIPTIONS];
    uint32_t opened_unwanted; /* `unwanted` when the connection was opened */
    struct backoff backoff;

    /* Covers reading the library's idea of the status and posting it, so that the last event posted is what is true. */
    pthread_mutex_t status_lock;

    pthread_mutex_t end_lock; /* of the callbacks: none runs any more once the connection's have ended, and those of all subscriptions */
    pthread_cond_t end_changed;
    bool has_connection_ended;
    uint32_t subscriptions_running;
    bool is_leaked; /* a callback may still come: the struct must stay */
};

/* --- events, from any thread to the bus's --- */

enum event_kind { EVENT_UP, EVENT_DOWN, EVENT_MESSAGE };

struct event {
    struct mail mail;
    struct link *link;
    enum event_kind kind;
    size_t size; /* counted in in_bytes */
    struct incoming message;
    char bytes[]; /* what `message` points into; the reason of EVENT_DOWN */
};

static void deliver_event(struct mail *mail, void *owner)
{
    struct event *event = container_of(mail, struct event, mail);
    struct link *link = event->link;
    const struct transport_handler *handler = link->options.handler;
    atomic_fetch_sub_explicit(&link->in_bytes, event->size, memory_order_relaxed);
    if (!atomic_load_explicit(&link->is_stopping, memory_order_relaxed) &&
        atomic_load_explicit(&link->is_wanted, memory_order_relaxed)) {
        switch (event->kind) {
        case EVENT_UP:
            handler->on_up(link->options.ctx);
            break;
        case EVENT_DOWN:
            handler->on_down(link->options.ctx, event->bytes);
            break;
        case EVENT_MESSAGE:
            handler->on_message(link->options.ctx, &event->message);
        }
    }
    free(event);
}

static struct event *event_create(struct link *link, enum event_kind kind, size_t bytes)
{
    struct event *event = malloc(sizeof *event + bytes);
    if (event != NULL) {
        *event = (struct event){.mail = {.deliver = deliver_event}, .link = link, .kind = kind, .size = sizeof *event + bytes};
    }
    return event;
}

static void event_post(struct event *event)
{
    if (atomic_load(&event->link->is_stopping)) {
        free(event);
        return;
    }
    atomic_fetch_add_explicit(&event->link->in_bytes, event->size, memory_order_relaxed);
    mailbox_post(event->link->bus, &event->mail);
}

static void post_status(struct link *link, enum event_kind kind, const char *reason)
{
    struct event *event = event_create(link, kind, strlen(reason) + 1);
    if (event == NULL) {
        abort(); /* small, and nothing works without it */
    }
    memcpy(event->bytes, reason, strlen(reason) + 1);
    event_post(event);
}

/* Tells what is true now, rather than what the library called us for: its callbacks come late. */
static void report_status(struct link *link, natsConnection *connection, enum event_kind expected, const char *reason)
{
    pthread_mutex_lock(&link->status_lock);
    bool is_up = natsConnection_Status(connection) == NATS_CONN_STATUS_CONNECTED;
    if (is_up == (expected == EVENT_UP)) { /* if not, the callback for the other is on its way */
        post_status(link, expected, reason);
    }
    pthread_mutex_unlock(&link->status_lock);
}

/* --- callbacks, on the library's threads --- */

static void on_connected(natsConnection *connection, void *closure)
{
    report_status(closure, connection, EVENT_UP, "");
}

/* With what the server said last, if it said anything. */
static void report_loss(struct link *link, natsConnection *connection, const char *otherwise)
{
    const char *error = NULL;
    char reason[ACCESS_TEXT_MAX];
    natsStatus s = natsConnection_GetLastError(connection, &error);
    if (s == NATS_OK) {
        snprintf(reason, sizeof reason, "%s", otherwise);
    } else {
        access_explain(&link->options.access, s, error != NULL ? error : "", reason);
    }
    report_status(link, connection, EVENT_DOWN, reason);
}

static void on_disconnected(natsConnection *connection, void *closure)
{
    report_loss(closure, connection, "connection lost");
}

/* The last callback of a connection. Either we closed it, or the library will not try any more. */
static void on_closed(natsConnection *connection, void *closure)
{
    struct link *link = closure;
    report_loss(link, connection, "connection closed");
    pthread_mutex_lock(&link->end_lock);
    link->has_connection_ended = true;
    atomic_store(&link->is_closed, true);
    mailbox_wake(&link->mailbox);
    pthread_cond_signal(&link->end_changed); /* under the lock: after it, the link may be gone */
    pthread_mutex_unlock(&link->end_lock);
}

static void count_subscription(struct link *link, int more)
{
    pthread_mutex_lock(&link->end_lock);
    link->subscriptions_running += (uint32_t)more;
    pthread_cond_signal(&link->end_changed);
    pthread_mutex_unlock(&link->end_lock);
}

static void on_subscription_ended(void *closure)
{
    count_subscription(closure, -1);
}

static void on_error(natsConnection *connection, natsSubscription *subscription, natsStatus status, void *closure)
{
    struct link *link = closure;
    if (atomic_load(&link->is_stopping)) {
        return;
    }
    log_warn(link->log, "bus: NATS connection to region %s: %s", link->options.name, natsStatus_GetText(status));
}

static const char *header(natsMsg *msg, const char *key)
{
    const char *value = NULL;
    return natsMsgHeader_Get(msg, key, &value) == NATS_OK && value != NULL ? value : "";
}

/* The library reads exactly three digits of a status line, but headers of that name come from anybody. */
static int parse_status(const char *text)
{
    int status = 0;
    for (size_t i = 0; i < 3 && text[i] >= '0' && text[i] <= '9'; i++) {
        status = status * 10 + (text[i] - '0');
    }
    return status;
}

static char *copy_to(char **at, const char *data, size_t len)
{
    char *to = *at;
    memcpy(to, data, len);
    to[len] = '\0';
    *at += len + 1;
    return to;
}

static void on_message(natsConnection *connection, natsSubscription *subscription, natsMsg *msg, void *closure)
{
    struct link *link = closure;
    const char *subject = natsMsg_GetSubject(msg);
    const char *reply = natsMsg_GetReply(msg) != NULL ? natsMsg_GetReply(msg) : "";
    const char *status = header(msg, "Status");
    const char *description = header(msg, "Description");
    const char *pending = header(msg, "Nats-Pending-Messages");
    const char *last_consumer = header(msg, "Nats-Last-Consumer");
    size_t data_len = (size_t)natsMsg_GetDataLength(msg);
    size_t bytes = strlen(subject) + strlen(reply) + strlen(description) + data_len + 4;
    struct event *event = NULL;
    if (atomic_load_explicit(&link->in_bytes, memory_order_relaxed) + bytes <= LINK_IN_MAX) {
        event = event_create(link, EVENT_MESSAGE, bytes);
    }
    if (event == NULL) {
        log_warn(link->log, "bus: more came from region %s than is worked off; a message was left to be delivered again",
                 link->options.name);
        natsMsg_Destroy(msg);
        return;
    }
    char *at = event->bytes;
    event->message.subject = copy_to(&at, subject, strlen(subject));
    event->message.reply = copy_to(&at, reply, strlen(reply));
    event->message.description = copy_to(&at, description, strlen(description));
    event->message.status = parse_status(status);
    event->message.has_pending = pending[0] != '\0';
    event->message.pending_messages = (uint32_t)MIN(strtoul(pending, NULL, 10), (unsigned long)UINT32_MAX);
    event->message.last_consumer = strtoull(last_consumer, NULL, 10);
    event->message.data = span_of(copy_to(&at, data_len > 0 ? natsMsg_GetData(msg) : "", data_len), data_len);
    natsMsg_Destroy(msg);
    event_post(event);
}

/* --- what leaves: from the bus's thread to the link's --- */

struct letter {
    struct mail mail;
    size_t size; /* counted in out_bytes */
    const char *subject;
    const char *reply;  /* or NULL */
    const char *msg_id; /* or NULL */
    const char *kv_operation; /* or NULL */
    bool has_expected;
    uint64_t expected_seq;
    struct span data;
    char bytes[];
};

/* Only on a connection that is up: the library would keep it for the next one, but by then the sender has given it up or sent it
 * again. */
static natsStatus write_message(struct link *link, const struct letter *letter)
{
    if (link->connection == NULL || natsConnection_Status(link->connection) != NATS_CONN_STATUS_CONNECTED) {
        return NATS_OK;
    }
    natsMsg *msg = NULL;
    natsStatus s = natsMsg_Create(&msg, letter->subject, letter->reply, letter->data.data, (int)letter->data.len);
    if (s == NATS_OK && letter->msg_id != NULL) {
        s = natsMsgHeader_Set(msg, "Nats-Msg-Id", letter->msg_id);
    }
    if (s == NATS_OK && letter->kv_operation != NULL) {
        s = natsMsgHeader_Set(msg, "KV-Operation", letter->kv_operation);
    }
    if (s == NATS_OK && letter->has_expected) {
        char expected[24];
        snprintf(expected, sizeof expected, "%" PRIu64, letter->expected_seq);
        s = natsMsgHeader_Set(msg, "Nats-Expected-Last-Subject-Sequence", expected);
    }
    if (s == NATS_OK) {
        s = natsConnection_PublishMsg(link->connection, msg);
    }
    natsMsg_Destroy(msg);
    return s;
}

static void deliver_letter(struct mail *mail, void *owner)
{
    struct letter *letter = container_of(mail, struct letter, mail);
    struct link *link = owner;
    if (!atomic_load(&link->is_stopping) || clock_mono_us() < atomic_load(&link->write_until_us)) {
        natsStatus s = write_message(link, letter);
        if (s != NATS_OK) { /* whoever sent it finds out by the missing answer */
            log_warn(link->log, "bus: writing to the NATS of region %s: %s", link->options.name, natsStatus_GetText(s));
        }
    }
    atomic_fetch_sub_explicit(&link->out_bytes, letter->size, memory_order_relaxed);
    free(letter);
}

static enum err link_send(struct transport *transport, const struct outgoing *message)
{
    struct link *link = container_of(transport, struct link, transport);
    if (atomic_load_explicit(&link->is_stopping, memory_order_relaxed)) {
        return ERR_UNAVAILABLE;
    }
    size_t bytes = strlen(message->subject) + message->data.len + 5;
    bytes += message->reply != NULL ? strlen(message->reply) : 0;
    bytes += message->msg_id != NULL ? strlen(message->msg_id) : 0;
    bytes += message->kv_operation != NULL ? strlen(message->kv_operation) : 0;
    size_t size = sizeof(struct letter) + bytes;
    if (atomic_load_explicit(&link->out_bytes, memory_order_relaxed) + size > LINK_OUT_MAX) {
        return ERR_OVERLOAD;
    }
    struct letter *letter = malloc(size);
    if (letter == NULL) {
        return ERR_NOMEM;
    }
    *letter = (struct letter){.mail = {.deliver = deliver_letter}, .size = size};
    char *at = letter->bytes;
    letter->subject = copy_to(&at, message->subject, strlen(message->subject));
    letter->reply = message->reply != NULL ? copy_to(&at, message->reply, strlen(message->reply)) : NULL;
    letter->msg_id = message->msg_id != NULL ? copy_to(&at, message->msg_id, strlen(message->msg_id)) : NULL;
    letter->has_expected = message->has_expected;
    letter->expected_seq = message->expected_seq;
    letter->kv_operation =
        message->kv_operation != NULL ? copy_to(&at, message->kv_operation, strlen(message->kv_operation)) : NULL;
    letter->data = span_of(copy_to(&at, message->data.data, message->data.len), message->data.len);
    atomic_fetch_add_explicit(&link->out_bytes, size, memory_order_relaxed);
    mailbox_post(&link->mailbox, &letter->mail);
    return OK;
}

static const struct transport_ops link_ops = {.send = link_send};

/* --- the link's thread --- */

static natsStatus set_options(struct link *link, natsOptions *o)
{
    const struct link_options *options = &link->options;
    natsStatus s = NATS_OK;
#define SET(call) s = s == NATS_OK ? (call) : s
    SET(natsOptions_SetName(o, options->client_name));
    SET(natsOptions_SetTimeout(o, CONNECT_TIMEOUT_MS));
    SET(natsOptions_SetWriteDeadline(o, WRITE_DEADLINE_MS));
    SET(natsOptions_SetPingInterval(o, PING_MS));
    SET(natsOptions_SetMaxPingsOut(o, PINGS_OUT));
    SET(natsOptions_SetMaxReconnect(o, -1));
    SET(natsOptions_SetReconnectWait(o, RECONNECT_MS));
    SET(natsOptions_SetReconnectJitter(o, RECONNECT_JITTER_MS, RECONNECT_JITTER_MS));
    SET(natsOptions_SetReconnectBufSize(o, RECONNECT_BUFFER));
    SET(natsOptions_SetMaxPendingMsgs(o, PENDING_MESSAGES_MAX));
    SET(natsOptions_SetReconnectedCB(o, on_connected, link));
    SET(natsOptions_SetDisconnectedCB(o, on_disconnected, link));
    SET(natsOptions_SetClosedCB(o, on_closed, link));
    SET(natsOptions_SetErrorHandler(o, on_error, link));
    SET(natsOptions_UseGlobalMessageDelivery(o, true)); /* one delivery thread for all links: it only copies */
    SET(natsOptions_SetSendAsap(o, options->send_asap));
#undef SET
    return s;
}

static natsStatus subscribe(struct link *link, uint32_t i, const char *subject, const char *queue)
{
    natsStatus s = queue != NULL ? natsConnection_QueueSubscribe(&link->subscriptions[i], link->connection, subject, queue, on_message, link)
                                 : natsConnection_Subscribe(&link->subscriptions[i], link->connection, subject, on_message, link);
    if (s != NATS_OK) {
        return s;
    }
    /* Before it can be called: the library may be closing the connection this very moment. */
    count_subscription(link, 1);
    if (natsSubscription_SetOnCompleteCB(link->subscriptions[i], on_subscription_ended, link) != NATS_OK) {
        count_subscription(link, -1); /* closed already: nothing will be called */
    }
    return NATS_OK;
}

/* Connects, or says why not. */
static natsStatus connect_now(struct link *link, char why[static ACCESS_TEXT_MAX])
{
    natsOptions *options = NULL;
    natsStatus s = natsOptions_Create(&options);
    if (s == NATS_OK) {
        s = set_options(link, options);
    }
    if (s == NATS_OK && access_set(&link->options.access, options, why) != OK) {
        natsOptions_Destroy(options);
        return NATS_ERR;
    }
    if (s == NATS_OK) {
        s = natsConnection_Connect(&link->connection, options);
    }
    natsOptions_Destroy(options);
    if (s != NATS_OK) {
        natsStatus status;
        const char *error = nats_GetLastError(&status);
        link->connection = NULL;
        access_explain(&link->options.access, s, error != NULL ? error : "", why);
    }
    return s;
}

static natsStatus link_open(struct link *link)
{
    char subject[sizeof link->inbox + 2];
    char why[ACCESS_TEXT_MAX];
    atomic_store(&link->is_closed, false);
    link->opened_unwanted = atomic_load(&link->unwanted);
    link->has_connection_ended = false; /* no callback of this connection can run yet, and none of the last one any more */
    link->subscriptions_running = 0;
    natsStatus s = connect_now(link, why);
    if (s != NATS_OK) {
        pthread_mutex_lock(&link->status_lock);
        post_status(link, EVENT_DOWN, why);
        pthread_mutex_unlock(&link->status_lock);
        return s;
    }
    snprintf(subject, sizeof subject, "%s.>", link->inbox);
    s = subscribe(link, 0, subject, NULL);
    if (s == NATS_OK) { /* JetStream pushes to a subject that is subscribed to literally only */
        s = subscribe(link, 1, link->watch, NULL);
    }
    for (uint32_t i = 0; i < LINK_EXTRA_MAX && s == NATS_OK && link->options.extra[i].subject != NULL; i++) {
        s = subscribe(link, 2 + i, link->options.extra[i].subject, link->options.extra[i].queue);
    }
    if (s == NATS_OK) {
        report_status(link, link->connection, EVENT_UP, "");
    }
    return s;
}

static bool have_callbacks_ended(const struct link *link)
{
    return link->has_connection_ended && link->subscriptions_running == 0;
}

/* Returns once no callback can run any more: they use the link. */
static void link_close(struct link *link)
{
    if (link->connection == NULL) {
        return;
    }
    for (uint32_t i = 0; i < SUBSCRIPTIONS; i++) {
        natsSubscription_Destroy(link->subscriptions[i]);
        link->subscriptions[i] = NULL;
    }
    natsConnection_Destroy(link->connection);
    link->connection = NULL;
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += CALLBACKS_END_MS / 1000;
    pthread_mutex_lock(&link->end_lock);
    while (!have_callbacks_ended(link) && pthread_cond_timedwait(&link->end_changed, &link->end_lock, &deadline) != ETIMEDOUT) {
    }
    link->is_leaked = link->is_leaked || !have_callbacks_ended(link);
    pthread_mutex_unlock(&link->end_lock);
}

static bool is_to_be_open(const struct link *link)
{
    return !atomic_load(&link->is_stopping) && atomic_load(&link->is_wanted);
}

static void wait_for_mail(struct link *link, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = link->mailbox.fd, .events = POLLIN};
    if (poll(&poll_fd, 1, timeout_ms) > 0) {
        mailbox_drain(&link->mailbox, link);
    }
}

/* Closed by the library, or never opened: throws away what is sent until it is time to try again. */
static void pause_before_reopening(struct link *link)
{
    uint64_t until_us = clock_mono_us() + backoff_next_us(&link->backoff);
    for (uint64_t now_us = clock_mono_us(); now_us < until_us && is_to_be_open(link); now_us = clock_mono_us()) {
        wait_for_mail(link, (int)((until_us - now_us) / 1000) + 1);
    }
}

/* Until it is closed, not wanted any more (be it for a moment: its user waits for an on_up since), or down for so long that the library's attempts are given up for a new one. */
static void keep_open(struct link *link)
{
    uint64_t up_us = clock_mono_us(); /* when it was last known to be */
    while (is_to_be_open(link) && !atomic_load(&link->is_closed) && link->opened_unwanted == atomic_load(&link->unwanted)) {
        wait_for_mail(link, CHECK_MS);
        uint64_t now_us = clock_mono_us();
        if (natsConnection_Status(link->connection) == NATS_CONN_STATUS_CONNECTED) {
            up_us = now_us;
        } else if (now_us > up_us + RENEW_US) {
            return;
        }
    }
    if (atomic_load(&link->is_stopping)) { /* what was sent before, as the ends of locks: a key stays locked if they are lost */
        mailbox_drain(&link->mailbox, link);
        if (natsConnection_Status(link->connection) == NATS_CONN_STATUS_CONNECTED) {
            natsConnection_FlushTimeout(link->connection, LAST_FLUSH_MS);
        }
    }
}

static void *link_main(void *arg)
{
    struct link *link = arg;
    while (!atomic_load(&link->is_stopping) && !link->is_leaked) {
        if (!atomic_load(&link->is_wanted)) {
            wait_for_mail(link, -1);
            continue;
        }
        natsStatus s = link_open(link);
        if (s == NATS_OK || s == NATS_NO_SERVER) { /* nobody there costs nobody anything */
            backoff_reset(&link->backoff);
        }
        if (s == NATS_OK) {
            keep_open(link);
        }
        link_close(link);
        pause_before_reopening(link);
    }
    if (link->is_leaked && !atomic_load(&link->is_stopping)) {
        log_error(link->log, "bus: the NATS library does not let go of the connection to region %s; it stays down",
                  link->options.name);
        while (!atomic_load(&link->is_stopping)) {
            wait_for_mail(link, -1);
        }
    }
    nats_ReleaseThreadMemory();
    return NULL;
}

/* --- the bus's thread --- */

enum err link_create(const struct link_options *options, struct log *log, struct mailbox *mailbox, struct link **out)
{
    uint64_t random[2];
    *out = NULL;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        return ERR_IO;
    }
    struct link *link = xcalloc(1, sizeof *link);
    link->transport = (struct transport){.ops = &link_ops, .inbox = link->inbox, .watch = link->watch};
    link->options = *options;
    atomic_store(&link->is_wanted, options->is_wanted);
    link->log = log;
    link->bus = mailbox;
    snprintf(link->inbox, sizeof link->inbox, "_INBOX.outrigger-%016" PRIx64 "%08" PRIx32, random[0], (uint32_t)random[1]);
    snprintf(link->watch, sizeof link->watch, "%s-watch", link->inbox);
    backoff_init(&link->backoff, REOPEN_MIN_MS, REOPEN_MAX_MS, random[1]);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&link->end_changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&link->status_lock, NULL);
    pthread_mutex_init(&link->end_lock, NULL);
    enum err err = mailbox_init(&link->mailbox);
    if (err == OK && pthread_create(&link->thread, NULL, link_main, link) != 0) {
        err = ERR_NOMEM;
    }
    if (err != OK) {
        link->was_joined = true;
        link_destroy(&link);
        return err;
    }
    *out = link;
    return OK;
}

struct transport *link_transport(struct link *link)
{
    return &link->transport;
}

void link_want(struct link *link, bool is_wanted)
{
    atomic_fetch_add(&link->unwanted, !is_wanted);
    atomic_store(&link->is_wanted, is_wanted);
    mailbox_wake(&link->mailbox);
}

void link_stop(struct link *link)
{
    atomic_store(&link->write_until_us, clock_mono_us() + LAST_US);
    atomic_store(&link->is_stopping, true);
    mailbox_wake(&link->mailbox);
}

void link_join(struct link *link)
{
    if (!link->was_joined) {
        pthread_join(link->thread, NULL);
        link->was_joined = true;
        mailbox_drain(&link->mailbox, link);
    }
}

void link_destroy(struct link **out)
{
    struct link *link = *out;
    *out = NULL;
    if (link == NULL || link->is_leaked) {
        return;
    }
    mailbox_deinit(&link->mailbox);
    pthread_cond_destroy(&link->end_changed);
    pthread_mutex_destroy(&link->status_lock);
    pthread_mutex_destroy(&link->end_lock);
    free(link);
}
