#include "proxy/strong/serve.h"

#include <inttypes.h>

#include "common/guard.h"
#include "common/version.h"

struct serving {
    struct strong_task task;
    struct server *server;
    char reply[SUBJECT_MAX];
};

void server_answer(struct server *server, const char *reply, enum message_status status)
{
    char bytes[MESSAGE_MAX];
    struct message message = {
        .kind = MESSAGE_ANSWER,
        .status = status,
        .sidecar = server->sidecar,
        .voters = server->voters,
        .wall_ms = guard_wall_ms(server->config),
        .inbox = span_str(server->transport->inbox),
    };
    metrics_add(server->metrics, METRIC_STRONG_SERVED, status, 1);
    server->transport->ops->send(server->transport, &(struct outgoing){.subject = reply, .data = span_of(bytes, message_write(&message, bytes))});
}

static enum message_status status_of(const struct serving *serving)
{
    if (clock_mono_us() >= serving->server->share->lock_until_us) {
        return MESSAGE_NO_SHARE;
    }
    switch (serving->task.err) {
    case OK: return MESSAGE_OK;
    case ERR_CONFLICT: return MESSAGE_BUSY;
    case ERR_INVALID: return MESSAGE_NOT_STRONG;
    default: return MESSAGE_NODE;
    }
}

static uint64_t *place_of(struct server *server, uint64_t version)
{
    return &server->ended[(version ^ version >> 21) % SERVE_ENDED];
}

static void on_done(struct mail *mail, void *owner)
{
    struct serving *serving = container_of(container_of(mail, struct strong_task, mail), struct serving, task);
    struct server *server = serving->server;
    if (serving->task.kind == TASK_LOCK && *place_of(server, serving->task.version) == serving->task.version) {
        serving->task.kind = TASK_COMMIT; /* its end came while it was being put */
        server->sink->serve(server->sink->ctx, &serving->task);
        return;
    }
    server->count--;
    if (serving->task.kind != TASK_COMMIT) {
        server_answer(server, serving->reply, status_of(serving));
    }
    free(serving);
}

void strong_task_done(struct strong_task *task, enum err err)
{
    task->err = err;
    task->mail.deliver = task->on_done;
    mailbox_post(task->reply_to, &task->mail);
}

static void warn(struct server *server, uint64_t now_us, const char *what, const struct message *message)
{
    if (now_us >= server->told_us + 60000000) {
        server->told_us = now_us;
        log_error(server->log, "strong: sidecar %016" PRIx64 " of another region asks for a lock, and is refused: %s", message->sidecar, what);
    }
}

/* A lock must last, by this region's clocks, as long as its writer counts on. */
static bool is_window_right(const struct server *server, const struct message *message)
{
    const struct config_strong *strong = server->config->strong;
    uint64_t skew_ms = server->config->max_clock_skew_ms;
    uint64_t now_ms = guard_wall_ms(server->config);
    uint64_t until_ms = version_ms(message->version);
    return until_ms + skew_ms + 2 * (uint64_t)strong->prepare_timeout_ms >= now_ms + strong->lock_window_ms &&
           until_ms <= now_ms + strong->lock_window_ms + skew_ms;
}

static bool is_wrong(struct server *server, const struct message *message, uint64_t now_us)
{
    if (message->voters != server->voters) {
        warn(server, now_us, "its voters (own region, bus.peers, strong.witnesses) are not ours: make them the same in all regions", message);
        return true;
    }
    if (message->kind == MESSAGE_LOCK && !is_window_right(server, message)) {
        warn(server, now_us, "its clock and ours differ by more than max_clock_skew, or its strong.lock_window is not ours", message);
        return true;
    }
    return false;
}

static const enum strong_task_kind kinds[MESSAGE_KINDS] = {
    [MESSAGE_LOCK] = TASK_LOCK,
    [MESSAGE_COMMIT] = TASK_COMMIT,
    [MESSAGE_INVALIDATE] = TASK_INVALIDATE,
};

void server_on_request(struct server *server, const struct incoming *incoming, uint64_t now_us)
{
    struct message message;
    bool is_request = message_read(incoming->data, &message) == OK &&
                      (message.kind == MESSAGE_LOCK || message.kind == MESSAGE_COMMIT || message.kind == MESSAGE_INVALIDATE) && message.body.len > 0 &&
                      message.body.len <= KEY_MAX && message.version <= VERSION_MAX &&
                      (message.kind == MESSAGE_COMMIT || share_is_inbox(span_str(incoming->reply)));
    if (!is_request) {
        metrics_add(server->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_PROTOCOL), 1);
        return;
    }
    if (message.kind != MESSAGE_COMMIT) {
        if (now_us >= server->share->lock_until_us) { /* first: who is not like its own region has nothing to say about others */
            server_answer(server, incoming->reply, MESSAGE_NO_SHARE);
            return;
        }
        if (is_wrong(server, &message, now_us)) {
            server_answer(server, incoming->reply, MESSAGE_REFUSED);
            return;
        }
        if (message.kind == MESSAGE_LOCK && *place_of(server, message.version) == message.version) {
            return; /* nobody waits for it any more */
        }
    } else {
        *place_of(server, message.version) = message.version;
    }
    if (server->count == SERVE_TASKS_MAX) {
        metrics_add(server->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_OVERLOAD), 1);
        return;
    }
    struct serving *serving = xcalloc(1, sizeof *serving);
    serving->server = server;
    serving->task.kind = kinds[message.kind];
    serving->task.version = message.version;
    serving->task.key_len = (uint16_t)message.body.len;
    serving->task.reply_to = server->mailbox;
    serving->task.on_done = on_done;
    memcpy(serving->task.key, message.body.data, message.body.len);
    snprintf(serving->reply, sizeof serving->reply, "%s", incoming->reply);
    server->count++;
    server->sink->serve(server->sink->ctx, &serving->task);
}
