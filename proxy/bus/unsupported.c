#include "proxy/bus/unsupported.h"

#include "common/clock.h"

struct excess {
    struct list link;
    char reply[SUBJECT_MAX];
};

void unsupported_init(struct unsupported *u, struct transport *transport, struct log *log, struct metrics_shard *metrics,
                      struct mailbox *mailbox, struct bus_sink sink, const char *region, uint32_t index)
{
    *u = (struct unsupported){.transport = transport, .log = log, .metrics = metrics, .mailbox = mailbox, .sink = sink, .region = region,
                              .index = index, .due_us = UINT64_MAX};
    list_init(&u->waiting);
    list_init(&u->covering);
}

static void send(struct unsupported *u, const char *reply, const char *verdict)
{
    u->transport->ops->send(u->transport, &(struct outgoing){.subject = reply, .data = span_str(verdict)}); /* lost: it comes again */
}

static void send_back(struct unsupported *u, const char *reply)
{
    char verdict[64];
    snprintf(verdict, sizeof verdict, "-NAK {\"delay\": %llu}", UNSUPPORTED_WINDOW_MS * 1000000ULL);
    send(u, reply, verdict);
}

/* Lets go of the messages of a list, with this verdict unless it is NULL. */
static void clear(struct unsupported *u, struct list *list, const char *verdict)
{
    struct list *link;
    while ((link = list_pop_front(list)) != NULL) {
        struct excess *excess = list_entry(link, struct excess, link);
        if (verdict != NULL) {
            send(u, excess->reply, verdict);
        }
        free(excess);
        u->count--;
    }
}

void unsupported_forget(struct unsupported *u)
{
    clear(u, &u->waiting, NULL);
    clear(u, &u->covering, NULL);
}

void unsupported_deinit(struct unsupported *u)
{
    unsupported_forget(u);
}

static bool hold(struct unsupported *u, uint64_t now_us)
{
    if (now_us >= u->window_us + 1000ULL * UNSUPPORTED_WINDOW_MS) {
        u->window_us = now_us;
        u->held = 0;
    }
    return u->held++ < UNSUPPORTED_HELD_MAX;
}

void unsupported_take(struct unsupported *u, const char *reply, const char *why, uint64_t now_us)
{
    metrics_add(u->metrics, METRIC_BUS_MALFORMED, 1 + u->index, 1);
    metrics_add(u->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_UNSUPPORTED), 1);
    log_error(u->log,
              "bus: a message of region %s is newer than this version of the sidecar (%s): it is kept for a newer one and not "
              "applied by this one; update the sidecars of this region",
              u->region, why);
    struct excess *excess = hold(u, now_us) || u->count >= UNSUPPORTED_COVERED_MAX ? NULL : malloc(sizeof *excess);
    if (excess == NULL) {
        send_back(u, reply);
        return;
    }
    snprintf(excess->reply, sizeof excess->reply, "%s", reply);
    list_push_back(&u->waiting, &excess->link);
    u->count++;
    u->due_us = u->due_us == UINT64_MAX ? now_us : u->due_us;
}

static void deliver_covered(struct mail *mail, void *owner)
{
    struct unsupported *u = container_of(container_of(mail, struct delivery, mail), struct unsupported, rule);
    u->is_applying = false;
    u->due_us = clock_mono_us() + UNSUPPORTED_PAUSE_US;
    clear(u, &u->covering, u->rule.err == OK ? "+ACK" : "-NAK {\"delay\": 1000000000}");
}

uint64_t unsupported_step(struct unsupported *u, uint64_t now_us)
{
    if (u->is_applying || list_is_empty(&u->waiting)) {
        return UINT64_MAX;
    }
    if (now_us < u->due_us) {
        return u->due_us;
    }
    struct list *link;
    while ((link = list_pop_front(&u->waiting)) != NULL) {
        list_push_back(&u->covering, link);
    }
    log_warn(u->log, "bus: %u messages of region %s are not understood, and more than %u are kept already: all that this region has cached is invalidated",
             u->count, u->region, UNSUPPORTED_HELD_MAX);
    metrics_add(u->metrics, METRIC_BUS_GAPS, 1 + u->index, 1);
    u->rule = (struct delivery){
        .event = {.version = 0, .timestamp_ms = clock_wall_ms(), .key_len = 1, .is_pattern = true, .key = "*"},
        .peer = u->index,
        .reply_to = u->mailbox,
        .on_done = deliver_covered,
    };
    u->is_applying = true;
    u->sink.apply(u->sink.ctx, &u->rule);
    return UINT64_MAX;
}
