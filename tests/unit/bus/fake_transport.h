/* What:    the scripted transport of the bus's unit tests: keeps what was sent, and can be told to refuse. Time is the test's.
 * Owns:    copies of what was sent, until fake_clear().
 */
#ifndef TESTS_UNIT_BUS_FAKE_TRANSPORT_H
#define TESTS_UNIT_BUS_FAKE_TRANSPORT_H

#include <check.h>

#include "common/log.h"
#include "proxy/bus/transport.h"
#include "proxy/metric.h"

#define FAKE_MAX 4096
#define MS 1000ULL
#define S 1000000ULL

struct sent {
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX]; /* "" if none */
    char msg_id[64];
    char kv_operation[8];
    int64_t expected; /* -1: it does not say */
    char *data;
};

struct fake {
    struct transport transport;
    enum err answer; /* of send */
    uint32_t count;
    struct sent sent[FAKE_MAX];
};

static enum err fake_send(struct transport *transport, const struct outgoing *m)
{
    struct fake *f = container_of(transport, struct fake, transport);
    if (f->answer != OK) {
        return f->answer;
    }
    ck_assert_uint_lt(f->count, FAKE_MAX);
    struct sent *s = &f->sent[f->count++];
    snprintf(s->subject, sizeof s->subject, "%s", m->subject);
    snprintf(s->reply, sizeof s->reply, "%s", m->reply != NULL ? m->reply : "");
    snprintf(s->msg_id, sizeof s->msg_id, "%s", m->msg_id != NULL ? m->msg_id : "");
    snprintf(s->kv_operation, sizeof s->kv_operation, "%s", m->kv_operation != NULL ? m->kv_operation : "");
    s->expected = m->has_expected ? (int64_t)m->expected_seq : -1;
    s->data = xstrndup(m->data.data, m->data.len);
    return OK;
}

static const struct transport_ops fake_ops = {.send = fake_send};

static inline struct fake *fake_create(void)
{
    struct fake *f = xcalloc(1, sizeof *f);
    f->transport = (struct transport){.ops = &fake_ops, .inbox = "_INBOX.test"};
    return f;
}

static inline void fake_clear(struct fake *f)
{
    for (uint32_t i = 0; i < f->count; i++) {
        free(f->sent[i].data);
    }
    f->count = 0;
}

static inline void fake_destroy(struct fake *f)
{
    fake_clear(f);
    free(f);
}

/* The last that was sent. */
static inline const struct sent *fake_last(const struct fake *f)
{
    ck_assert_uint_gt(f->count, 0);
    return &f->sent[f->count - 1];
}

/* The number at the end of a reply subject. */
static inline uint64_t fake_number(const struct sent *s)
{
    return strtoull(strrchr(s->reply, '.') + 1, NULL, 10);
}

static inline struct incoming fake_answer(const char *text)
{
    return (struct incoming){.subject = "", .reply = "", .description = "", .data = span_str(text)};
}

static inline struct incoming fake_status(int status, const char *description)
{
    return (struct incoming){.subject = "", .reply = "", .status = status, .description = description, .data = SPAN_LIT("")};
}

static inline struct incoming fake_pending(int status, const char *description, uint32_t pending)
{
    struct incoming m = fake_status(status, description);
    m.has_pending = true;
    m.pending_messages = pending;
    return m;
}

/* West, with peers east and south. */
static struct config_peer fake_peers[] = {
    {.region = (char *)"east", .url = (char *)"nats://east"},
    {.region = (char *)"south", .url = (char *)"nats://south", .domain = (char *)"south"},
};

static struct config_bus fake_bus_config = {
    .url = (char *)"nats://west",
    .peers = fake_peers,
    .peer_count = ARRAY_LEN(fake_peers),
    .publish_timeout_ms = 3000,
    .max_pending = 1000,
    .stream_max_age_s = 86400,
    .stream_max_bytes = 1ULL << 30,
    .stream_replicas = 1,
    .ack_wait_ms = 10000,
};

__attribute__((unused)) static struct config fake_config = {.region = (char *)"west", .bus = &fake_bus_config};

#endif
