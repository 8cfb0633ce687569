#include "proxy/cache/spread.h"

#include "common/guard.h"

/* A worker and the index it has, or that is on its way to it. */
struct spread_reader {
    struct mail mail;
    struct spread *spread;
    struct cache *cache;
    const struct glob_index *index; /* NULL: no rules */
    uint64_t newest;
};

void spread_init(struct spread *s, uint32_t workers_max, struct mailbox *mailbox, void (*on_sent)(void *ctx), void *ctx)
{
    *s = (struct spread){.mailbox = mailbox, .on_sent = on_sent, .ctx = ctx, .readers = xcalloc(workers_max, sizeof *s->readers)};
}

void spread_deinit(struct spread *s)
{
    glob_index_destroy(&s->index);
    glob_index_destroy(&s->next);
    free(s->readers);
    s->readers = NULL;
}

void spread_add_worker(struct spread *s, struct cache *cache)
{
    s->readers[s->reader_count++] = (struct spread_reader){.spread = s, .cache = cache};
}

static void finish(struct spread *s)
{
    glob_index_destroy(&s->index);
    s->index = s->next;
    s->next = NULL;
    s->is_sending = false;
    s->on_sent(s->ctx);
}

static void deliver_confirmation(struct mail *mail, void *owner)
{
    struct spread *s = container_of(mail, struct spread_reader, mail)->spread;
    if (--s->unsent == 0) {
        finish(s);
    }
}

/* On the worker's thread. The clock moves past what is known now, so that what is loaded or set from here on is not hidden by it. */
static void deliver_index(struct mail *mail, void *owner)
{
    struct spread_reader *reader = container_of(mail, struct spread_reader, mail);
    struct cache *cache = reader->cache;
    struct version_clock pushed = cache->clock;
    cache->rules = reader->index;
    pushed.max_skew_ms += SPREAD_SLACK_MS;
    version_observe(&pushed, reader->newest, guard_wall_ms(cache->config));
    cache->clock.last = pushed.last;
    mail->deliver = deliver_confirmation;
    mailbox_post(reader->spread->mailbox, mail);
}

void spread_send(struct spread *s, struct glob_index *index)
{
    uint64_t newest = index != NULL ? glob_index_newest(index) : 0;
    s->next = index;
    s->is_sending = true;
    s->unsent = s->reader_count;
    if (newest > s->newest) {
        s->newest = newest;
        s->newest_us = clock_mono_us();
    }
    for (uint32_t i = 0; i < s->reader_count; i++) {
        struct spread_reader *reader = &s->readers[i];
        reader->index = index;
        reader->newest = newest;
        reader->mail.deliver = deliver_index;
        mailbox_post(&reader->cache->loop->mailbox, &reader->mail);
    }
    if (s->reader_count == 0) {
        finish(s);
    }
}
