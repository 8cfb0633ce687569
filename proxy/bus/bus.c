#include "proxy/bus/bus.h"

#include <inttypes.h>

#include "common/clock.h"
#include "common/random.h"
#include "proxy/bus/bus_parts.h"

/* The bus's thread and what hangs on it. It never waits for anything but its mailbox: whatever blocks is done by the
 * links' threads.
 *
 *   bus ─┬─ region 0, the own one: link ── publisher, keeper, rulebook, relays, replayer ⇄ spooler, which has a thread of its own
 *        └─ region 1 + i: link ── consumer of config.bus.peers[i]; closed while others are the region's relays
 */

#define REMIND_US 60000000ULL /* how often a connection that stays down is mentioned in the log */
#define SWEEPER_LEASE_US 15000000ULL
#define SWEEPER_KIND 's'
#define RESIGN_US 500000ULL /* how long an end waits for the answers to having given roles back */

/* --- what callers see; any thread (what they post: bus_post.c; what they ask: bus_status.c) --- */

void delivery_done(struct delivery *delivery, enum err err)
{
    delivery->err = err;
    delivery->mail.deliver = delivery->on_done;
    mailbox_post(delivery->reply_to, &delivery->mail);
}

/* --- the bus's thread: connections --- */

static bool is_own(const struct bus_region *r)
{
    return r->index == 0;
}

/* What a region has applied of its peers' streams is kept in its own NATS. */
static void tell_cursors(struct bus *bus, bool is_up, uint64_t now_us)
{
    for (uint32_t i = 1; i < bus->region_count; i++) {
        cursor_on_own_link(&bus->regions[i].consumer.cursor, is_up, now_us);
    }
}

static void on_up(void *ctx)
{
    struct bus_region *r = ctx;
    struct bus *bus = r->bus;
    uint64_t now_us = clock_mono_us();
    if (atomic_load(&bus->is_ending)) {
        return;
    }
    if (!r->is_up && r->was_up) {
        log_info(bus->log, "bus: connected again to the NATS of %s %s (%s) after %" PRIu64 " s",
                 is_own(r) ? "this region," : "region", r->name, r->url, (now_us - r->down_us) / 1000000);
    } else {
        log_info(bus->log, "bus: connected to the NATS of %s %s (%s)", is_own(r) ? "this region," : "region", r->name, r->url);
    }
    r->is_up = true;
    r->was_up = true;
    r->reason[0] = '\0';
    metrics_set(bus->metrics, METRIC_BUS_CONNECTED, r->index, 1);
    if (is_own(r)) {
        publisher_on_up(&bus->publisher, now_us);
        replayer_on_up(&bus->replayer, now_us);
        ring_on_up(&bus->ring);
        confirm_on_up(&bus->confirm);
        keeper_on_up(&bus->keeper, now_us);
        rulebook_on_up(&bus->rulebook, now_us);
        tell_cursors(bus, true, now_us);
        relays_on_up(&bus->relays, now_us);
        election_on_up(&bus->sweeper, now_us);
    } else {
        consumer_on_up(&r->consumer, now_us);
    }
}

static const char *consequence(const struct bus_region *r)
{
    return is_own(r) ? (r->bus->spooler != NULL ? "invalidations from this region wait in the spool until then"
                                                : "invalidations from this region fail until then")
                     : "its invalidations reach this region late, when it is back";
}

static void on_down(void *ctx, const char *reason)
{
    struct bus_region *r = ctx;
    struct bus *bus = r->bus;
    if (atomic_load(&bus->is_ending)) {
        if (is_own(r)) { /* nobody is left to take our word */
            relays_on_down(&bus->relays);
            election_on_down(&bus->sweeper);
        }
        return;
    }
    if (r->is_up || strcmp(r->reason, reason) != 0) { /* the same again is said by remind() */
        log_warn(bus->log, "bus: no connection to the NATS of %s %s (%s): %s; trying again; %s",
                 is_own(r) ? "this region," : "region", r->name, r->url, reason, consequence(r));
    }
    snprintf(r->reason, sizeof r->reason, "%s", reason);
    if (r->is_up) {
        r->down_us = clock_mono_us();
        r->remind_us = r->down_us + REMIND_US;
    }
    r->is_up = false;
    metrics_set(bus->metrics, METRIC_BUS_CONNECTED, r->index, 0);
    if (is_own(r)) {
        publisher_on_down(&bus->publisher);
        replayer_on_down(&bus->replayer);
        keeper_on_down(&bus->keeper);
        ring_on_down(&bus->ring);
        confirm_on_down(&bus->confirm);
        rulebook_on_down(&bus->rulebook);
        tell_cursors(bus, false, 0);
        relays_on_down(&bus->relays);
        election_on_down(&bus->sweeper);
    } else {
        consumer_on_down(&r->consumer);
    }
}

/* Whether there is to be a connection. */
static bool is_wanted(const struct bus_region *r)
{
    return is_own(r) || relays_is_relay(&r->bus->relays);
}

static void on_relay_change(void *ctx, bool is_relay)
{
    struct bus *bus = ctx;
    uint64_t now_us = clock_mono_us();
    for (uint32_t i = 1; i < bus->region_count; i++) {
        struct bus_region *r = &bus->regions[i];
        r->is_up = r->was_up = false;
        r->reason[0] = '\0';
        r->down_us = now_us;
        r->remind_us = now_us + REMIND_US;
        if (!is_relay) {
            consumer_on_down(&r->consumer); /* what is being applied is delivered again, to another */
            metrics_set(bus->metrics, METRIC_BUS_CONNECTED, r->index, 0);
        }
        link_want(r->link, is_relay);
    }
}

static uint64_t remind(struct bus_region *r, uint64_t now_us)
{
    if (r->is_up || !is_wanted(r)) {
        return UINT64_MAX;
    }
    if (now_us >= r->remind_us) {
        r->remind_us = now_us + REMIND_US;
        log_warn(r->bus->log, "bus: still no connection to the NATS of %s %s (%s) after %" PRIu64 " s: %s; %s",
                 is_own(r) ? "this region," : "region", r->name, r->url, (now_us - r->down_us) / 1000000, r->reason, consequence(r));
    }
    return r->remind_us;
}

/* --- the bus's thread: messages --- */

static void on_no_stream(void *ctx)
{
    struct bus *bus = ctx;
    keeper_check(&bus->keeper, clock_mono_us());
}

static void on_cursor_answer(struct bus *bus, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    uint32_t region = 1 + (uint32_t)(number & CURSOR_PEERS);
    if (region < bus->region_count) {
        cursor_on_own_answer(&bus->regions[region].consumer.cursor, number, message, now_us);
    }
}

static void on_own_message(struct bus *bus, char kind, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    switch (kind) {
    case 'p': publisher_on_answer(&bus->publisher, number, message, now_us); break;
    case 'r': replayer_on_answer(&bus->replayer, number, message, now_us); break;
    case 'g': ring_on_answer(&bus->ring, number, message, now_us); break;
    case 'k': keeper_on_answer(&bus->keeper, number, message, now_us); break;
    case 'b': rulebook_on_answer(&bus->rulebook, number, message, now_us); break;
    case RELAYS_KIND: relays_on_answer(&bus->relays, number, message, now_us); break;
    case CONFIRM_KIND: confirm_on_answer(&bus->confirm, number, message, now_us); break;
    case 'o': on_cursor_answer(bus, number, message, now_us); break;
    case SWEEPER_KIND: election_on_answer(&bus->sweeper, number, message, now_us); break;
    case 'q': rulebook_on_recorded(&bus->rulebook, number, message, now_us); break;
    default: rulebook_on_message(&bus->rulebook, message, now_us); break; /* under its own subject */
    }
}

static void on_peer_message(struct consumer *consumer, char kind, uint64_t number, const struct incoming *message,
                            uint64_t now_us)
{
    if (kind == 'r') {
        consumer_on_status(consumer, number, message, now_us);
    } else if (kind == 'c') {
        consumer_on_answer(consumer, number, message, now_us);
    } else if (kind == 'i') {
        cursor_on_peer_answer(&consumer->cursor, number, message, now_us);
    }
}

static void on_message(void *ctx, const struct incoming *message)
{
    struct bus_region *r = ctx;
    uint64_t now_us = clock_mono_us();
    uint64_t number = 0;
    char kind = '\0';
    bool is_answer = transport_parse_inbox(link_transport(r->link), message->subject, &kind, &number);
    if (atomic_load(&r->bus->is_ending) && kind != RELAYS_KIND && kind != SWEEPER_KIND) {
        return; /* all have been stopped but the elections, which have the last word */
    }
    if (is_own(r)) {
        on_own_message(r->bus, kind, number, message, now_us);
    } else if (is_answer) {
        on_peer_message(&r->consumer, kind, number, message, now_us);
    } else { /* JetStream delivers under the message's own subject */
        consumer_on_message(&r->consumer, message, now_us);
    }
}

static const struct transport_handler handler = {.on_up = on_up, .on_down = on_down, .on_message = on_message};

/* --- the bus's thread, the spooler's, and what goes between them --- */

static void on_replayed(void *ctx, struct replay *replay)
{
    spooler_replayed(((struct bus *)ctx)->spooler, replay);
}

static void deliver_replay(struct mail *mail, void *owner)
{
    struct bus *bus = owner;
    replayer_take(&bus->replayer, container_of(mail, struct replay, mail), clock_mono_us());
}

static void on_replay(void *ctx, struct replay *replay)
{
    struct bus *bus = ctx;
    replay->mail.deliver = deliver_replay;
    mailbox_post(&bus->mailbox, &replay->mail);
}

static bool is_told(void *ctx, uint64_t spooled)
{
    return spooler_is_told(((struct bus *)ctx)->spooler, spooled);
}

static enum err create_spooler(struct bus *bus, struct metrics *metrics)
{
    struct spooler_context context = {
        .config = bus->config,
        .log = bus->log,
        .metrics = metrics,
        .sink = bus->sink,
        .replay = on_replay,
        .ctx = bus,
    };
    if (bus->config->bus->spool == NULL) {
        return OK;
    }
    return spooler_create(&context, &bus->spooler);
}

/* --- the bus's thread: its loop --- */

static void update_status(struct bus *bus)
{
    for (uint32_t i = 0; i < bus->region_count; i++) {
        struct bus_region *r = &bus->regions[i];
        char text[BUS_PROBLEM_MAX] = "";
        const char *problem = is_own(r) ? keeper_problem(&bus->keeper) : consumer_problem(&r->consumer);
        if (!is_wanted(r) && relays_is_settled(&bus->relays)) {
            problem = NULL; /* another's work */
        } else if (!r->is_up) {
            snprintf(text, sizeof text, "%s%s: not connected (%s)%s%s", is_own(r) ? "own region " : "", r->name, r->url,
                     r->reason[0] != '\0' ? ": " : "", r->reason);
        } else if (problem != NULL && is_own(r)) {
            snprintf(text, sizeof text, "own region %s: stream %s %s", r->name, bus->keeper.stream, problem);
        } else if (problem != NULL) {
            snprintf(text, sizeof text, "%s: connected, but nothing is received: %s", r->name, problem);
        } else if (!is_own(r) && cursor_problem(&r->consumer.cursor) != NULL) {
            snprintf(text, sizeof text, "%s: %s", r->name, cursor_problem(&r->consumer.cursor));
        }
        if (strcmp(text, r->text) != 0) { /* only this thread writes it */
            pthread_mutex_lock(&bus->status_lock);
            memcpy(r->text, text, sizeof text);
            pthread_mutex_unlock(&bus->status_lock);
        }
    }
}

static uint64_t step_sweeper(struct bus *bus, uint64_t now_us)
{
    uint64_t next_us = election_step(&bus->sweeper, now_us);
    if (atomic_exchange(&bus->sweeper_until_us, bus->sweeper.until_us) < now_us && bus->sweeper.until_us > now_us) {
        log_info(bus->log, "bus: this sidecar sweeps the pool of its region");
    }
    return next_us;
}

static uint64_t step(struct bus *bus)
{
    uint64_t now_us = clock_mono_us();
    uint64_t next_us = earlier(publisher_step(&bus->publisher, now_us), keeper_step(&bus->keeper, now_us));
    next_us = earlier(next_us, replayer_step(&bus->replayer, now_us));
    next_us = earlier(next_us, rulebook_step(&bus->rulebook, now_us));
    next_us = earlier(next_us, ring_step(&bus->ring, now_us));
    next_us = earlier(next_us, confirm_step(&bus->confirm, now_us));
    next_us = earlier(next_us, step_sweeper(bus, now_us));
    if (bus->region_count > 1) {
        next_us = earlier(next_us, relays_step(&bus->relays, now_us));
    }
    for (uint32_t i = 0; i < bus->region_count; i++) {
        struct bus_region *r = &bus->regions[i];
        next_us = earlier(next_us, remind(r, now_us));
        if (!is_own(r)) {
            next_us = earlier(next_us, consumer_step(&r->consumer, now_us));
        }
    }
    return next_us;
}

static void resign(struct bus *bus)
{
    uint64_t until_us = clock_mono_us() + RESIGN_US;
    relays_resign(&bus->relays, clock_mono_us());
    election_resign(&bus->sweeper, clock_mono_us());
    while ((relays_is_resigning(&bus->relays) || election_is_resigning(&bus->sweeper)) && clock_mono_us() < until_us) {
        mailbox_wait(&bus->mailbox, bus, until_us);
    }
    link_stop(bus->regions[0].link);
}

static void *bus_main(void *arg)
{
    struct bus *bus = arg;
    while (!atomic_load(&bus->is_ending)) {
        uint64_t next_us = step(bus);
        update_status(bus);
        mailbox_wait(&bus->mailbox, bus, next_us);
    }
    mailbox_drain(&bus->mailbox, bus); /* publications that came before the gate was closed */
    publisher_stop(&bus->publisher);
    confirm_stop(&bus->confirm);
    rulebook_stop(&bus->rulebook);
    resign(bus);
    return NULL;
}

/* --- from start to end --- */

static void region_init(struct bus *bus, uint32_t index)
{
    struct bus_region *r = &bus->regions[index];
    bool own = index == 0;
    const struct config_bus *config = bus->config->bus;
    r->bus = bus;
    r->index = index;
    r->name = own ? bus->config->region : config->peers[index - 1].region;
    char url[sizeof r->url]; /* not r->url itself: gcc 12 at -O3 takes the two members for one */
    access_display(own ? config->url : config->peers[index - 1].url, url, sizeof url);
    memcpy(r->url, url, sizeof url);
    if (own) {
        snprintf(r->section, sizeof r->section, "bus");
    } else {
        snprintf(r->section, sizeof r->section, "bus.peers[%u]", index - 1);
    }
    r->down_us = clock_mono_us();
    r->remind_us = r->down_us + REMIND_US;
    snprintf(r->text, sizeof r->text, "%s%s: not connected (%s)", own ? "own region " : "", r->name, url);
}

static enum err region_start(struct bus *bus, uint32_t index)
{
    struct bus_region *r = &bus->regions[index];
    bool own = index == 0;
    const struct config_bus *config = bus->config->bus;
    struct link_options options = {
        .name = r->name,
        .access = access_of(config, own ? NULL : &config->peers[index - 1], r->section),
        .client_name = bus->client_name,
        .send_asap = own, /* few, large messages that somebody waits for; to peers go many small acknowledgements */
        .is_wanted = own,
        .handler = &handler,
        .ctx = r,
    };
    enum err err = link_create(&options, bus->log, &bus->mailbox, &r->link);
    if (err != OK) {
        return err;
    }
    uint64_t random = random_seed();
    struct transport *transport = link_transport(r->link);
    if (own) {
        publisher_init(&bus->publisher, bus->config, transport, bus->log, bus->metrics, random);
        bus->publisher.on_no_stream = on_no_stream;
        bus->publisher.ctx = bus;
        bus->publisher.spool = bus->spooler != NULL ? spooler_for_publisher(bus->spooler) : NULL;
        replayer_init(&bus->replayer, bus->config, transport, bus->log, random);
        bus->replayer.on_done = on_replayed;
        bus->replayer.on_no_stream = on_no_stream;
        bus->replayer.ctx = bus;
        ring_init(&bus->ring, bus->config, transport, bus->log, bus->metrics, random);
        bus->ring.on_no_stream = on_no_stream;
        bus->ring.ctx = bus;
        bus->publisher.ring = bus->replayer.ring = &bus->ring;
        confirm_init(&bus->confirm, &(struct confirm_context){bus->config, transport, &bus->ring, bus->spooler != NULL ? is_told : NULL, bus, random});
        keeper_init(&bus->keeper, bus->config, transport, bus->log, random);
        bus->keeper.ring = bus->publisher.ring;
        rulebook_init(&bus->rulebook, bus->config, transport, bus->log, bus->metrics, bus->sink, random);
        struct election_context sweeper = {bus->config, transport, bus->log, "sweeper", 1, SWEEPER_LEASE_US, SWEEPER_KIND, random_seed()};
        election_init(&bus->sweeper, &sweeper, clock_mono_us());
        relays_init(&bus->relays, bus->config, transport, bus->log, bus->metrics, random_seed(), clock_mono_us());
        bus->relays.on_change = on_relay_change;
        bus->relays.ctx = bus;
        return OK;
    }
    struct consumer_context context = {
        .config = bus->config,
        .transport = transport,
        .own = link_transport(bus->regions[0].link),
        .log = bus->log,
        .metrics = bus->metrics,
        .mailbox = &bus->mailbox,
        .sink = bus->sink,
        .spool = bus->publisher.spool,
        .seed = random,
    };
    consumer_init(&r->consumer, &context, index - 1);
    return OK;
}

enum err bus_create(const struct config *config, struct log *log, struct metrics *metrics, struct bus_sink sink, struct bus **out)
{
    *out = NULL;
    uint32_t count = 1 + config->bus->peer_count;
    struct bus *bus = xcalloc(1, sizeof *bus + count * sizeof bus->regions[0]);
    bus->config = config;
    bus->log = log;
    bus->sink = sink;
    pthread_mutex_init(&bus->status_lock, NULL);
    snprintf(bus->client_name, sizeof bus->client_name, "outrigger %s", config->region);
    enum err err = mailbox_init(&bus->mailbox);
    if (err != OK) {
        bus_destroy(&bus);
        return err;
    }
    bus->metrics = metrics_shard_create(metrics);
    err = create_spooler(bus, metrics);
    for (uint32_t i = 0; i < count && err == OK; i++) {
        region_init(bus, i);
        err = region_start(bus, i); /* nothing is called back before the mailbox is drained */
        bus->region_count += err == OK ? 1 : 0;
    }
    if (err == OK) {
        bus->has_thread = pthread_create(&bus->thread, NULL, bus_main, bus) == 0;
        err = bus->has_thread ? OK : ERR_NOMEM;
    }
    if (err == OK && bus->spooler != NULL) {
        err = spooler_start(bus->spooler);
    }
    if (err != OK) {
        bus_stop(bus);
        bus_destroy(&bus);
        return err;
    }
    *out = bus;
    return OK;
}

void bus_stop(struct bus *bus)
{
    if (!gate_close(&bus->gate)) {
        return;
    }
    for (uint32_t i = 1; i < bus->region_count; i++) {
        link_stop(bus->regions[i].link);
    }
    atomic_store(&bus->is_ending, true);
    mailbox_wake(&bus->mailbox);
    if (bus->has_thread) {
        pthread_join(bus->thread, NULL); /* its last word goes by the own region's link */
        bus->has_thread = false;
    } else if (bus->region_count > 0) {
        link_stop(bus->regions[0].link);
    }
    if (bus->spooler != NULL) {
        spooler_stop(bus->spooler); /* after the bus's thread, which hands over what it could not publish */
    }
    for (uint32_t i = 0; i < bus->region_count; i++) {
        link_join(bus->regions[i].link);
    }
}

void bus_destroy(struct bus **out)
{
    struct bus *bus = *out;
    *out = NULL;
    if (bus == NULL) {
        return;
    }
    bus_stop(bus);
    if (bus->mailbox.fd >= 0) {
        mailbox_drain(&bus->mailbox, bus); /* late events of the links, and deliveries that were done after bus_stop() */
    }
    replayer_deinit(&bus->replayer);
    if (bus->region_count > 0) {
        ring_deinit(&bus->ring);
        confirm_deinit(&bus->confirm);
    }
    spooler_destroy(&bus->spooler);
    for (uint32_t i = 0; i < bus->region_count; i++) {
        if (i > 0) {
            consumer_deinit(&bus->regions[i].consumer);
        }
        link_destroy(&bus->regions[i].link);
    }
    mailbox_deinit(&bus->mailbox);
    pthread_mutex_destroy(&bus->status_lock);
    free(bus);
}
