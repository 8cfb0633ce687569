#include "proxy/strong/ruling.h"

#include "common/clock.h"
#include "common/glob.h"
#include "common/guard.h"
#include "common/version.h"

struct ruling {
    struct delivery delivery;
    struct share_confirmation confirmation;
    struct ruler *ruler;
    struct list link;
    bool is_comeback;
    char reply[SUBJECT_MAX]; /* of the last who asked */
};

static void on_applied(struct mail *mail, void *owner);

static struct ruling *create(struct ruler *ruler, struct span pattern, uint64_t version)
{
    struct ruling *ruling = xcalloc(1, sizeof *ruling);
    struct invalidation *event = &ruling->delivery.event;
    ruling->ruler = ruler;
    event->is_pattern = true;
    event->version = version;
    event->timestamp_ms = clock_wall_ms();
    event->key_len = (uint16_t)pattern.len;
    memcpy(event->key, pattern.data, pattern.len);
    ruling->delivery.peer = PEER_NONE;
    ruling->delivery.reply_to = ruler->server->mailbox;
    ruling->delivery.on_done = on_applied;
    list_push_back(&ruler->rulings, &ruling->link);
    ruler->count++;
    return ruling;
}

static void finish(struct ruling *ruling, enum message_status status)
{
    struct ruler *ruler = ruling->ruler;
    if (!ruling->is_comeback) {
        server_answer(ruler->server, ruling->reply, status);
    }
    list_remove(&ruling->link);
    ruler->count--;
    free(ruling);
}

static void on_confirmed(struct share_confirmation *confirmation)
{
    finish(container_of(confirmation, struct ruling, confirmation), confirmation->err == OK ? MESSAGE_OK : MESSAGE_NO_SHARE);
}

/* Recorded in the region, and in force in this sidecar. */
static void on_applied(struct mail *mail, void *owner)
{
    struct ruling *ruling = container_of(container_of(mail, struct delivery, mail), struct ruling, delivery);
    struct ruler *ruler = ruling->ruler;
    enum err err = ruling->delivery.err;
    if (ruling->is_comeback) {
        ruler->comeback_err = ruler->comeback_err != OK ? ruler->comeback_err : err;
        finish(ruling, MESSAGE_OK);
        if (--ruler->comeback_left == 0) {
            ruler->on_comeback(ruler->ctx, ruler->comeback_err);
        }
    } else if (err != OK) {
        finish(ruling, MESSAGE_NO_SHARE);
    } else {
        struct share_time now = {clock_mono_us(), guard_wall_ms(ruler->server->config)};
        const struct config_strong *strong = ruler->server->config->strong;
        ruling->confirmation = (struct share_confirmation){
            .digest = ruler->server->sink->digest(ruler->server->sink->ctx),
            .deadline_us = now.us + 1000ULL * (strong->prepare_timeout_ms + 2 * strong->lease_ms),
            .on_done = on_confirmed,
        };
        share_on_digest(ruler->share, ruling->confirmation.digest, now);
        share_confirm(ruler->share, &ruling->confirmation, now);
    }
}

static struct ruling *find(struct ruler *ruler, const struct message *message)
{
    struct list *it, *tmp;
    list_for_each(it, tmp, &ruler->rulings)
    {
        struct ruling *ruling = list_entry(it, struct ruling, link);
        const struct invalidation *event = &ruling->delivery.event;
        if (!ruling->is_comeback && event->version == message->version && span_eq(span_of(event->key, event->key_len), message->body)) {
            return ruling;
        }
    }
    return NULL;
}

void ruler_on_request(struct ruler *ruler, const struct incoming *incoming)
{
    struct message message;
    char why[80];
    bool is_request = message_read(incoming->data, &message) == OK && message.kind == MESSAGE_RULE && message.voters == ruler->server->voters &&
                      message.body.len <= GLOB_MAX && glob_check(message.body, why, sizeof why) == OK && message.version != 0 &&
                      message.version <= VERSION_MAX && share_is_inbox(span_str(incoming->reply));
    if (!is_request) {
        metrics_add(ruler->server->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_PROTOCOL), 1);
        return;
    }
    struct ruling *ruling = find(ruler, &message);
    if (ruling == NULL && ruler->count >= RULING_MAX) {
        return; /* it is asked again */
    }
    bool is_new = ruling == NULL;
    if (is_new) {
        ruling = create(ruler, message.body, message.version);
    }
    snprintf(ruling->reply, sizeof ruling->reply, "%s", incoming->reply);
    if (is_new) {
        ruler->server->sink->apply_rule(ruler->server->sink->ctx, &ruling->delivery);
    }
}

/* "<prefix>*", with what means something in a pattern taken as it is. */
static struct span pattern_of(const char *prefix, char out[static 2 * KEY_MAX + 1])
{
    size_t len = 0;
    for (const char *p = prefix; *p != '\0'; p++) {
        if (strchr("*?[]\\", *p) != NULL) {
            out[len++] = '\\';
        }
        out[len++] = *p;
    }
    out[len++] = '*';
    return span_of(out, len);
}

void ruler_come_back(struct ruler *ruler)
{
    const struct config *config = ruler->server->config;
    char text[2 * KEY_MAX + 1];
    ruler->comeback_err = OK;
    ruler->comeback_left = 1; /* none is the last one before all have been asked for */
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        if (config->namespaces[i].consistency == CONSISTENCY_STRONG) {
            struct span pattern = pattern_of(config->namespaces[i].prefix, text);
            if (pattern.len > GLOB_MAX) {
                pattern = SPAN_LIT("*");
            }
            struct ruling *ruling = create(ruler, pattern, 0); /* of the time when it is applied */
            ruling->is_comeback = true;
            ruler->comeback_left++;
            ruler->server->sink->apply_rule(ruler->server->sink->ctx, &ruling->delivery);
        }
    }
    ruler->comeback_left--; /* what was asked for answers by mail */
}

void ruler_init(struct ruler *ruler)
{
    list_init(&ruler->rulings);
    ruler->count = 0;
}

void ruler_deinit(struct ruler *ruler)
{
    struct list *it, *tmp;
    list_for_each(it, tmp, &ruler->rulings)
    {
        struct ruling *ruling = list_entry(it, struct ruling, link);
        list_remove(&ruling->link);
        free(ruling);
    }
}
