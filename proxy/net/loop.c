#include "proxy/net/loop.h"

#include "common/clock.h"
#include "proxy/net/stream.h"

static void on_mail(evutil_socket_t fd, short what, void *arg)
{
    struct loop *loop = arg;
    loop->now_us = clock_mono_us();
    mailbox_drain(&loop->mailbox, loop->owner);
}

enum err loop_init(struct loop *loop, void *owner, size_t memory_limit)
{
    *loop = (struct loop){.owner = owner, .now_us = clock_mono_us()};
    list_init(&loop->dirty);
    list_init(&loop->dead);
    list_init(&loop->unread);
    chunk_pool_init(&loop->chunks, memory_limit);
    loop->mailbox.fd = -1;
    enum err err = ERR_IO;
    struct event_config *config = event_config_new();
    if (config == NULL) {
        return ERR_NOMEM;
    }
    /* No locks: the base is touched by its own thread only; others come through the mailbox. */
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    loop->base = event_base_new_with_config(config);
    event_config_free(config);
    if (loop->base == NULL) {
        return ERR_IO;
    }
    loop->scratch = chunk_get(&loop->chunks, LOOP_SCRATCH);
    if (loop->scratch == NULL) {
        err = ERR_NOMEM;
        goto out;
    }
    err = mailbox_init(&loop->mailbox);
    if (err != OK) {
        goto out;
    }
    event_assign(&loop->mailbox_event, loop->base, loop->mailbox.fd, EV_READ | EV_PERSIST, on_mail, loop);
    event_add(&loop->mailbox_event, NULL);
    return OK;
out:
    loop_deinit(loop);
    return err;
}

void loop_deinit(struct loop *loop)
{
    if (loop->mailbox.fd >= 0) {
        event_del(&loop->mailbox_event);
        mailbox_deinit(&loop->mailbox);
    }
    chunk_unref(&loop->scratch);
    if (loop->base != NULL) {
        event_base_free(loop->base);
        loop->base = NULL;
    }
    chunk_pool_deinit(&loop->chunks);
}

void loop_turn(struct loop *loop, bool may_wait)
{
    /* EVLOOP_NONBLOCK alone would go on for as long as there is anything ready. */
    event_base_loop(loop->base, likely(may_wait && list_is_empty(&loop->unread)) ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK);
    if (unlikely(!list_is_empty(&loop->unread))) {
        stream_read_unread(loop);
    }
    if (loop->on_turn_end != NULL) {
        loop->on_turn_end(loop);
    }
    stream_flush_dirty(loop);
    stream_bury_dead(loop);
}

void loop_run(struct loop *loop)
{
    while (!atomic_load_explicit(&loop->stopping, memory_order_acquire)) {
        loop_turn(loop, true);
    }
}

void loop_stop(struct loop *loop)
{
    atomic_store_explicit(&loop->stopping, true, memory_order_release);
    /* The eventfd wakes the loop; there need not be mail behind it. */
    mailbox_wake(&loop->mailbox);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct timer *timer = arg;
    timer->loop->now_us = clock_mono_us();
    timer->on_timer(timer);
}

void timer_init(struct timer *timer, struct loop *loop, void (*on_timer)(struct timer *timer))
{
    timer->loop = loop;
    timer->on_timer = on_timer;
    evtimer_assign(&timer->event, loop->base, on_timeout, timer);
}

void timer_start(struct timer *timer, uint64_t delay_us)
{
    struct timeval tv = {.tv_sec = (time_t)(delay_us / 1000000), .tv_usec = (suseconds_t)(delay_us % 1000000)};
    evtimer_add(&timer->event, &tv);
}

void timer_stop(struct timer *timer)
{
    evtimer_del(&timer->event);
}
