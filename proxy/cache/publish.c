#include "proxy/cache/publish.h"

#include "common/clock.h"

struct publish {
    struct publication publication;
    struct operation *op;
};

static void on_published(struct publication *publication)
{
    struct publish *publish = container_of(publication, struct publish, publication);
    struct operation *op = publish->op;
    enum err err = publication->err;
    free(publish);
    if (err != OK) {
        operation_fail(op, "changed in this region, but the other regions could not be told: bus: %s; send it again", err_text(err));
        return;
    }
    operation_done(op, op->reply.status);
}

void publish_start(struct operation *op, uint64_t version)
{
    struct cache *cache = op->cache;
    if (cache->bus == NULL) {
        operation_done(op, op->reply.status);
        return;
    }
    struct publish *publish = xmalloc(sizeof *publish);
    publish->op = op;
    publish->publication = (struct publication){
        .reply_to = &cache->loop->mailbox,
        .on_done = on_published,
        .event = {.version = version, .timestamp_ms = clock_wall_ms(), .key_len = (uint16_t)op->request.key.len},
    };
    memcpy(publish->publication.event.key, op->request.key.data, op->request.key.len);
    bus_publish(cache->bus, &publish->publication);
}
