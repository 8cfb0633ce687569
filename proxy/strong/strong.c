#include "proxy/strong/parts.h"

#include <inttypes.h>
#include <xxhash.h>

#include "common/random.h"

/* Start and end of the controller, and what other threads hand to it: by its mailbox. */

/* --- any thread --- */

static void deliver_prepare(struct mail *mail, void *owner)
{
    struct strong *strong = owner;
    preparer_submit(&strong->preparer, container_of(mail, struct strong_write, mail), clock_mono_us());
}

static void deliver_finish(struct mail *mail, void *owner)
{
    struct strong *strong = owner;
    preparer_finish(&strong->preparer, container_of(mail, struct strong_write, mail), clock_mono_us());
}

void strong_prepare(struct strong *strong, struct strong_write *write)
{
    write->mail.deliver = deliver_prepare;
    if (!gate_post(&strong->gate, &strong->mailbox, &write->mail)) {
        strong_write_refuse(write, ERR_STOPPING, "this sidecar is shutting down");
    }
}

void strong_finish(struct strong *strong, struct strong_write *write, bool is_settled)
{
    write->is_settled = is_settled;
    write->mail.deliver = deliver_finish;
    if (!gate_post(&strong->gate, &strong->mailbox, &write->mail)) {
        strong_write_destroy(write); /* its locks lapse */
    }
}

static void on_confirmed(struct strong_write *write)
{
    struct strong_confirmation *confirmation = write->ctx;
    confirmation->err = write->err;
    snprintf(confirmation->text, sizeof confirmation->text, "%s", write->text);
    strong_write_destroy(write);
    confirmation->on_done(confirmation);
}

void strong_confirm(struct strong *strong, struct strong_confirmation *confirmation)
{
    const struct invalidation *event = &confirmation->event;
    struct strong_write *write = strong_write_create(STRONG_RULE, span_of(event->key, event->key_len));
    write->version = event->version;
    write->reply_to = confirmation->reply_to;
    write->on_prepared = on_confirmed;
    write->ctx = confirmation;
    strong_prepare(strong, write);
}

void strong_on_digest(struct strong *strong)
{
    atomic_store(&strong->has_news, true);
    mailbox_wake(&strong->mailbox);
}

const struct strong_validity *strong_validity(const struct strong *strong)
{
    return &strong->validity;
}

void strong_region_status(struct strong *strong, uint32_t index, struct strong_status *out)
{
    pthread_mutex_lock(&strong->status_lock);
    *out = strong->status[index];
    pthread_mutex_unlock(&strong->status_lock);
}

bool strong_is_ready(struct strong *strong, char *text, size_t size)
{
    pthread_mutex_lock(&strong->status_lock);
    snprintf(text, size, "%s", strong->problem);
    pthread_mutex_unlock(&strong->status_lock);
    return text[0] == '\0';
}

/* --- from start to end --- */

/* The same in all regions, whoever is whose peer. */
static uint64_t voters_print(const struct config *config)
{
    uint64_t print = XXH64(config->region, strlen(config->region), 0);
    for (uint32_t i = 0; i < config->bus->peer_count; i++) {
        print += XXH64(config->bus->peers[i].region, strlen(config->bus->peers[i].region), 0);
    }
    for (uint32_t i = 0; i < config->strong->witness_count; i++) {
        print += XXH64(config->strong->witnesses[i].region, strlen(config->strong->witnesses[i].region), 1);
    }
    return print;
}

/* Who is asked at this voter, a peer or a witness; NULL: the own region's. */
static const struct config_peer *peer_of(const struct config *config, uint32_t index)
{
    uint32_t peer_count = config->bus->peer_count;
    return index == 0 ? NULL : index <= peer_count ? &config->bus->peers[index - 1] : &config->strong->witnesses[index - 1 - peer_count];
}

static void name_voter(struct strong_voter *v)
{
    const struct config *config = v->strong->config;
    uint32_t peer_count = config->bus->peer_count;
    const struct config_peer *peer = peer_of(config, v->index);
    v->name = peer == NULL ? config->region : peer->region;
    access_display(peer == NULL ? config->bus->url : peer->url, v->url, sizeof v->url);
    if (v->index == 0) {
        snprintf(v->section, sizeof v->section, "bus");
        snprintf(v->locks, sizeof v->locks, "outrigger.strong.%s.lock", v->name);
        snprintf(v->all_locks, sizeof v->all_locks, "outrigger.strong.%s.locks", v->name);
    } else if (v->index <= peer_count) {
        snprintf(v->section, sizeof v->section, "bus.peers[%u]", v->index - 1);
    } else {
        snprintf(v->section, sizeof v->section, "strong.witnesses[%u]", v->index - 1 - peer_count);
    }
    if (v->index <= peer_count) {
        snprintf(v->beacons, sizeof v->beacons, "outrigger.strong.%s.beacon", v->name);
    }
}

static enum err voter_start(struct strong *strong, uint32_t index)
{
    struct strong_voter *v = &strong->voters[index];
    v->strong = strong;
    v->index = index;
    name_voter(v);
    struct link_options options = {
        .name = v->name,
        .access = access_of(strong->config->bus, peer_of(strong->config, index), v->section),
        .client_name = strong->client_name,
        .send_asap = true, /* somebody waits for each of them */
        .is_wanted = true,
        .extra = {{v->beacons[0] != '\0' ? v->beacons : NULL, NULL}, {v->locks[0] != '\0' ? v->locks : NULL, "lock"},
                  {v->all_locks[0] != '\0' ? v->all_locks : NULL, NULL}},
        .handler = &strong_handler,
        .ctx = v,
    };
    enum err err = link_create(&options, strong->log, &strong->mailbox, &v->link);
    if (err != OK) {
        return err;
    }
    struct vote_context vote = {strong->config, link_transport(v->link), strong->log, index, VOTE_KIND, random_seed()};
    vote_init(&v->vote, &vote);
    strong->votes.all[index] = &v->vote;
    return OK;
}

static bool is_pool_whole(void *ctx)
{
    struct strong *strong = ctx;
    return strong->sink.is_pool_whole(strong->sink.ctx);
}

static void on_rule(void *ctx, struct holder *holder)
{
    struct strong *strong = ctx;
    ruler_come_back(&strong->ruler);
}

static void on_comeback(void *ctx, enum err err)
{
    struct strong *strong = ctx;
    holder_rule_done(&strong->holder, err, clock_mono_us());
}

static void on_holder_change(void *ctx, struct holder *holder)
{
    /* What it is now is told at the end of the turn. */
}

/* When all voters are there. */
static void machines_init(struct strong *strong, struct metrics_shard *shard)
{
    const struct config *config = strong->config;
    struct transport *own = link_transport(strong->voters[0].link);
    uint64_t now_us = clock_mono_us();
    struct election_context election = {config, own, strong->log, "strong", 1, 1000ULL * config->strong->lease_ms, ELECTION_KIND, strong->sidecar};
    election_init(&strong->election, &election, now_us);
    struct holder_context holder = {config, strong->log, &strong->votes, strong->ring, strong->sidecar, strong, is_pool_whole, on_rule, on_holder_change};
    holder_init(&strong->holder, &holder);
    struct share_context share = {config, own, strong->log, shard, strong->sidecar, strong->print, strong->ring};
    share_init(&strong->share, &share, (struct share_time){now_us, clock_wall_ms()});
    preparer_init(&strong->preparer, config, shard, strong->sidecar, strong->print);
    strong->server = (struct server){
        .config = config,
        .log = strong->log,
        .metrics = shard,
        .mailbox = &strong->mailbox,
        .transport = own,
        .sink = &strong->sink,
        .share = &strong->share,
        .sidecar = strong->sidecar,
        .voters = strong->print,
    };
    strong->ruler = (struct ruler){.server = &strong->server, .share = &strong->share, .on_comeback = on_comeback, .ctx = strong};
    ruler_init(&strong->ruler);
    strong->preparer.region_count = strong->region_count;
    for (uint32_t i = 0; i < strong->region_count; i++) {
        struct strong_voter *v = &strong->voters[i];
        struct suspension_context suspension = {config, strong->log, &strong->votes, i};
        suspension_init(&v->suspension, &suspension);
        strong->preparer.regions[i] = (struct prepare_region){
            .name = v->name, .transport = link_transport(v->link), .suspension = &v->suspension, .metric = i, .down_us = now_us};
        snprintf(strong->preparer.regions[i].group, SUBJECT_MAX, "outrigger.strong.%s.lock", v->name);
        snprintf(strong->preparer.regions[i].everybody, SUBJECT_MAX, "outrigger.strong.%s.locks", v->name);
    }
}

enum err strong_create(const struct config *config, struct log *log, struct metrics *metrics, uint64_t ring, struct strong_sink sink, struct strong **out)
{
    *out = NULL;
    uint32_t count = voters_count(config);
    struct strong *strong = xcalloc(1, sizeof *strong + count * sizeof strong->voters[0]);
    strong->config = config;
    strong->log = log;
    strong->sink = sink;
    strong->ring = ring;
    strong->sidecar = random_seed();
    strong->print = voters_print(config);
    strong->region_count = 1 + config->bus->peer_count;
    strong->status = xcalloc(count, sizeof *strong->status);
    strong->has_news = true;
    pthread_mutex_init(&strong->status_lock, NULL);
    snprintf(strong->client_name, sizeof strong->client_name, "outrigger strong %s", config->region);
    snprintf(strong->problem, sizeof strong->problem, "no share in the region's lease yet");
    enum err err = mailbox_init(&strong->mailbox);
    if (err != OK) {
        strong_destroy(&strong);
        return err;
    }
    strong->metrics = metrics_shard_create(metrics);
    for (uint32_t i = 0; i < count && err == OK; i++) {
        err = voter_start(strong, i); /* nothing is called back before the mailbox is drained */
        strong->voter_count += err == OK;
    }
    strong->votes.count = strong->voter_count;
    if (err == OK) {
        machines_init(strong, strong->metrics);
        strong->has_machines = true;
        log_info(log, "strong: the others know this sidecar as %016" PRIx64, strong->sidecar);
        strong->has_thread = pthread_create(&strong->thread, NULL, strong_main, strong) == 0;
        err = strong->has_thread ? OK : ERR_NOMEM;
    }
    if (err != OK) {
        strong_stop(strong);
        strong_destroy(&strong);
        return err;
    }
    *out = strong;
    return OK;
}

void strong_stop(struct strong *strong)
{
    if (!gate_close(&strong->gate)) {
        return;
    }
    atomic_store(&strong->is_ending, true);
    mailbox_wake(&strong->mailbox);
    if (strong->has_thread) {
        pthread_join(strong->thread, NULL); /* it has a last word, and stops the links behind it */
    }
    for (uint32_t i = 0; i < strong->voter_count && !strong->has_thread; i++) {
        link_stop(strong->voters[i].link);
    }
    for (uint32_t i = 0; i < strong->voter_count; i++) {
        link_join(strong->voters[i].link);
    }
}

void strong_destroy(struct strong **out)
{
    struct strong *strong = *out;
    *out = NULL;
    if (strong == NULL) {
        return;
    }
    strong_stop(strong);
    if (strong->mailbox.fd >= 0) {
        mailbox_drain(&strong->mailbox, strong); /* late events of the links, and tasks that were done after strong_stop() */
    }
    if (strong->has_machines) {
        holder_deinit(&strong->holder);
        for (uint32_t i = 0; i < strong->region_count; i++) {
            suspension_deinit(&strong->voters[i].suspension, clock_mono_us());
        }
        ruler_deinit(&strong->ruler);
        preparer_deinit(&strong->preparer);
    }
    for (uint32_t i = 0; i < strong->voter_count; i++) {
        link_destroy(&strong->voters[i].link);
    }
    mailbox_deinit(&strong->mailbox);
    pthread_mutex_destroy(&strong->status_lock);
    free(strong->status);
    free(strong);
}
