#include "proxy/cache/publish.h"

#include "common/clock.h"

struct publish {
    struct publication publication;
    void (*on_done)(void *ctx, enum err err);
    void *ctx;
};

static void on_acknowledged(struct publication *publication)
{
    struct publish *publish = container_of(publication, struct publish, publication);
    enum err err = publication->err;
    void (*on_done)(void *ctx, enum err err) = publish->on_done;
    void *ctx = publish->ctx;
    free(publish);
    on_done(ctx, err);
}

void publish_key(struct cache *cache, struct span key, uint64_t version, void (*on_done)(void *ctx, enum err err), void *ctx)
{
    if (cache->bus == NULL) {
        on_done(ctx, OK);
        return;
    }
    struct publish *publish = xmalloc(sizeof *publish);
    *publish = (struct publish){
        .publication =
            {
                .reply_to = &cache->loop->mailbox,
                .on_done = on_acknowledged,
                .event = {.version = version, .timestamp_ms = clock_wall_ms(), .key_len = (uint16_t)key.len},
            },
        .on_done = on_done,
        .ctx = ctx,
    };
    memcpy(publish->publication.event.key, key.data, key.len);
    bus_publish(cache->bus, &publish->publication);
}

void publish_fail(struct operation *op, enum err err)
{
    operation_fail(op, "changed in this region, but the other regions could not be told: bus: %s; send it again", err_text(err));
}

static void on_published(void *ctx, enum err err)
{
    struct operation *op = ctx;
    if (err != OK) {
        publish_fail(op, err);
        return;
    }
    operation_done(op, op->reply.status);
}

void publish_start(struct operation *op, uint64_t version)
{
    publish_key(op->cache, op->request.key, version, on_published, op);
}
