#include "proxy/cache/errand.h"

static void on_done(struct operation *op)
{
    struct errand *errand = op->owner;
    errand->status = op->reply.status;
    errand->text[0] = '\0';
    if (op->reply.status == REPLY_ERROR) {
        snprintf(errand->text, sizeof errand->text, "%.*s", SPAN_FMT(op->reply.text));
    }
    operation_put(op);
    errand->on_done(errand);
}

static void deliver_errand(struct mail *mail, void *owner)
{
    struct errand *errand = container_of(mail, struct errand, mail);
    struct cache *cache = errand->cache;
    struct request request = {.command = COMMAND_DELETE,
                              .op = OP_DELETE,
                              .protocol = PROTOCOL_CLASSIC,
                              .is_first = true,
                              .is_last = true,
                              .key = span_of(errand->key, errand->key_len)};
    struct operation *op = operation_get(cache, &request);
    op->on_done = on_done;
    op->owner = errand;
    operation_locate(&op, 1);
    cache_handle(op);
}

void errand_submit(struct cache *cache, struct errand *errand)
{
    errand->cache = cache;
    errand->mail.deliver = deliver_errand;
    mailbox_post(&cache->loop->mailbox, &errand->mail);
}
