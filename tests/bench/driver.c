#include "tests/bench/driver.h"

#include "common/base.h"
#include "tests/bench/client.h"

#include <errno.h>
#include <math.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define INBOX_SIZE (128 * 1024)
#define EVENTS 512

enum phase { PHASE_WARM_UP, PHASE_MEASURE, PHASE_DRAIN, PHASE_OVER };

struct driver {
    const struct run *run;
    struct tally *tally;
    struct client *clients;
    int epoll;
    enum phase phase;
    uint64_t now; /* ns; read once a wake-up */
    uint64_t phase_end;
    uint64_t measure_start;
    uint64_t measure_end;
    double due;         /* open loop: when the next request is */
    uint32_t next;      /* open loop: whose it is */
    uint32_t preloaded; /* keys whose SET is on its way */
    uint64_t under_way;
    struct bytes inbox;
    struct bytes outbox;
    struct cpu_usage own;
    struct cpu_usage watched;
};

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static uint64_t ns(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

static void read_cpu(const struct driver *d, struct cpu_usage *own, struct cpu_usage *watched)
{
    cpu_read(getpid(), own);
    if (d->run->watch_pid != 0)
        cpu_read(d->run->watch_pid, watched);
}

static void end_measuring(struct driver *d)
{
    struct cpu_usage own = {0}, watched = {0};
    d->measure_end = clock_ns();
    read_cpu(d, &own, &watched);
    d->tally->seconds = (double)(d->measure_end - d->measure_start) / 1e9;
    d->tally->own = cpu_between(&d->own, &own);
    d->tally->watched = cpu_between(&d->watched, &watched);
}

static void count_unfinished(struct driver *d)
{
    for (uint32_t i = 0; i < d->run->connections; i++) {
        struct client *c = &d->clients[i];
        struct flight flight;
        for (uint32_t k = 0; k < c->count; k++)
            client_delay(c, c->flights[(c->head + k) % c->depth]);
        while (client_undelay(c, &flight)) {
            if (flight.since < d->measure_start || flight.since >= d->measure_end)
                continue;
            d->tally->unfinished++;
            histogram_record(&d->tally->latency, d->now - flight.since);
        }
    }
}

/* warm-up ──▶ measure ──▶ (open loop: drain) ──▶ over */
static void step_phase(struct driver *d)
{
    bool is_open = d->run->rate > 0;
    switch (d->phase) {
    case PHASE_WARM_UP:
        if (d->now < d->phase_end)
            return;
        read_cpu(d, &d->own, &d->watched);
        d->measure_start = d->now = clock_ns();
        d->phase_end = d->now + ns(d->run->duration);
        d->phase = PHASE_MEASURE;
        return;
    case PHASE_MEASURE:
        if (d->now < d->phase_end)
            return;
        end_measuring(d);
        d->phase_end = d->now + ns(DRAIN_SECONDS);
        d->phase = is_open ? PHASE_DRAIN : PHASE_OVER;
        return;
    case PHASE_DRAIN:
        if (d->under_way > 0 && d->now < d->phase_end)
            return;
        count_unfinished(d);
        d->phase = PHASE_OVER;
        return;
    case PHASE_OVER:
        return;
    }
}

static void keep_first_error(struct tally *t, const struct reply *reply)
{
    size_t len = reply->text_len;
    while (len > 0 && (reply->text[len - 1] == '\r' || reply->text[len - 1] == '\n'))
        len--;
    snprintf(t->first_error, sizeof(t->first_error), "%.*s", (int)len, reply->text);
}

static void count(struct driver *d, const struct completion *done)
{
    struct tally *t = d->tally;
    const struct request *request = done->flight.request;
    if (done->reply.failed) { /* errors are counted at any time */
        if (t->errors++ == 0)
            keep_first_error(t, &done->reply);
    }
    bool is_measured = d->run->rate > 0 ? done->flight.since >= d->measure_start &&
                                              (d->phase == PHASE_MEASURE || done->flight.since < d->measure_end)
                                        : d->phase == PHASE_MEASURE;
    if (d->run->is_preload)
        t->stored += done->reply.stored;
    if (d->run->is_preload || !is_measured || d->phase == PHASE_WARM_UP)
        return;
    t->requests++;
    t->keys += request->keys;
    histogram_record(&t->latency, d->now - done->flight.since);
    if (done->reply.failed)
        return;
    if (request->kind == REQUEST_SET) {
        t->stored += done->reply.stored;
        return;
    }
    t->hits += done->reply.values;
    t->misses += request->keys - done->reply.values;
}

static void watch_client(struct driver *d, struct client *c, int operation, bool for_writing)
{
    struct epoll_event event = {.events = EPOLLIN | (for_writing ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(d->epoll, operation, c->fd, &event);
}

static bool flush(struct driver *d, struct client *c)
{
    bool was_blocked = c->unsent.len > 0, is_blocked;
    if (!client_flush(c, &d->outbox, &is_blocked))
        return false;
    if (is_blocked != was_blocked)
        watch_client(d, c, EPOLL_CTL_MOD, is_blocked);
    return true;
}

/* What the client is to send now that it has room. */
static bool refill(struct driver *d, struct client *c)
{
    const struct run *run = d->run;
    struct flight flight;
    while (client_is_free(c)) {
        if (run->is_preload) {
            if (d->preloaded == run->requests->set_count)
                break;
            flight = (struct flight){&run->requests->sets[d->preloaded++], d->now};
            d->under_way++;
        } else if (run->rate > 0) {
            if (!client_undelay(c, &flight))
                break;
        } else if (d->phase == PHASE_OVER) {
            break;
        } else {
            flight = (struct flight){requests_next(run->requests), d->now};
        }
        client_queue(c, run->requests, flight.request, flight.since, &d->outbox);
    }
    return flush(d, c);
}

static bool receive(struct driver *d, struct client *c)
{
    struct completion done;
    enum take took;
    if (!client_receive(c, &d->inbox))
        return false;
    d->now = clock_ns();
    while ((took = client_take(c, d->run->protocol, d->run->shape, &d->inbox, &done)) == TAKE_REPLY) {
        d->under_way -= d->under_way > 0;
        count(d, &done);
    }
    return took != TAKE_BROKEN;
}

/* Open loop: gives out what is due, in turn over the connections. A client's requests of one wake-up go out in one send. */
static bool send_due(struct driver *d)
{
    const struct run *run = d->run;
    double now = (double)clock_ns();
    struct client *last = NULL;
    while (d->due <= now && d->phase != PHASE_DRAIN && d->phase != PHASE_OVER) {
        struct client *c = &d->clients[d->next];
        struct flight flight = {requests_next(run->requests), (uint64_t)d->due};
        d->next = d->next + 1 == run->connections ? 0 : d->next + 1;
        d->under_way++;
        if (last != NULL && last != c && !flush(d, last))
            return false;
        last = c;
        if (client_is_free(c))
            client_queue(c, run->requests, flight.request, flight.since, &d->outbox);
        else
            client_delay(c, flight);
        double gap = 1e9 / run->rate;
        d->due += run->is_poisson ? -log(((double)random_next(&run->requests->random) + 1) / 4294967297.0) * gap : gap;
    }
    return last == NULL || flush(d, last);
}

static int wait_for_events(struct driver *d, struct epoll_event *events)
{
    double until = (double)d->phase_end, now = (double)clock_ns();
    if (d->run->rate > 0 && d->phase != PHASE_DRAIN && d->due < until)
        until = d->due;
    double left = d->run->is_preload ? 1e9 * DRAIN_SECONDS : MAX(until - now, 0.0);
    if (d->phase == PHASE_DRAIN && d->under_way == 0)
        left = 0;
    struct timespec timeout = {.tv_sec = (time_t)(left / 1e9)};
    timeout.tv_nsec = (long)(left - 1e9 * (double)timeout.tv_sec);
    int n = epoll_pwait2(d->epoll, events, EVENTS, &timeout, NULL);
    if (n < 0 && errno != EINTR)
        fprintf(stderr, "load: epoll_pwait2 (Linux 5.11 or newer): %s\n", strerror(errno));
    if (n == 0 && d->run->is_preload) {
        fprintf(stderr, "load: no answer for %d s while storing the keys\n", DRAIN_SECONDS);
        return -1;
    }
    return n < 0 && errno == EINTR ? 0 : n;
}

static bool is_over(const struct driver *d)
{
    if (d->run->is_preload)
        return d->preloaded == d->run->requests->set_count && d->under_way == 0;
    return d->phase == PHASE_OVER;
}

static bool loop(struct driver *d)
{
    struct epoll_event events[EVENTS];
    bool is_open = d->run->rate > 0;
    while (!is_over(d)) {
        if (is_open && !send_due(d))
            return false;
        int n = wait_for_events(d, events);
        if (n < 0)
            return false;
        d->now = clock_ns();
        if (!d->run->is_preload)
            step_phase(d);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0 && !receive(d, c))
                return false;
            if (!refill(d, c))
                return false;
        }
    }
    return true;
}

static bool open_clients(struct driver *d)
{
    for (uint32_t i = 0; i < d->run->connections; i++) {
        if (!client_open(&d->clients[i], d->run->address, d->run->depth))
            return false;
        watch_client(d, &d->clients[i], EPOLL_CTL_ADD, false);
    }
    return true;
}

static bool start(struct driver *d)
{
    d->now = clock_ns();
    d->phase_end = d->now + ns(d->run->warm_up);
    d->due = (double)d->now;
    for (uint32_t i = 0; i < d->run->connections && d->run->rate == 0; i++) {
        if (!refill(d, &d->clients[i]))
            return false;
    }
    return true;
}

bool driver_run(const struct run *run, struct tally *out)
{
    struct driver d = {.run = run, .tally = out, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    *out = (struct tally){0};
    prctl(PR_SET_TIMERSLACK, 1UL); /* or else every wait is 50 µs too long */
    bytes_reserve(&d.inbox, INBOX_SIZE);
    bytes_reserve(&d.outbox, run->requests->longest * run->depth);
    d.clients = xcalloc(run->connections, sizeof(*d.clients));
    for (uint32_t i = 0; i < run->connections; i++)
        d.clients[i].fd = -1;
    bool ok = open_clients(&d) && start(&d) && loop(&d);
    for (uint32_t i = 0; i < run->connections; i++)
        client_close(&d.clients[i]);
    free(d.clients);
    bytes_free(&d.inbox);
    bytes_free(&d.outbox);
    close(d.epoll);
    return ok;
}
