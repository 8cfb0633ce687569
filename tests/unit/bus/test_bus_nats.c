/* What:    two buses, east and west, in one process, with a real nats-server each: what is published in one region is applied in
 * the other, whatever happens to the servers. Skipped where no nats-server is installed. The servers are our children, on free
 *          ports below 32768, and die with us.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "proxy/bus/bus.h"
#include "proxy/bus/nats.h"
#include "tests/unit/check_main.h"

#define EVENTS 10000
#define REGIONS 2
enum { EAST, WEST };

static const char *const region_names[REGIONS] = {"east", "west"};
static char *server_path;

/* --- servers --- */

struct server {
    pid_t pid;
    uint16_t port;
    char store[128];
    char url[64];
    bool has_password; /* which our URLs do not name */
};

static struct server servers[REGIONS];

static void pause_ms(uint32_t ms)
{
    usleep(1000 * ms);
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static uint16_t free_port(void)
{
    static uint32_t offset;
    for (;;) {
        uint16_t port = (uint16_t)(20000 + (uint32_t)(getpid() * 37 + (int)offset++ * 101) % 12000);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int bound = bind(fd, (struct sockaddr *)&address, sizeof address);
        close(fd);
        if (bound == 0) {
            return port;
        }
    }
}

static void server_start(struct server *s)
{
    char port[8];
    char log[160];
    snprintf(port, sizeof port, "%u", s->port);
    snprintf(log, sizeof log, "%s/log", s->store);
    char *argv[16] = {server_path, (char *)"-a", (char *)"127.0.0.1", (char *)"-p", port, (char *)"-js", (char *)"-sd", s->store};
    size_t argc = 8;
    argv[argc++] = (char *)"-l";
    argv[argc++] = log;
    if (s->has_password) {
        argv[argc++] = (char *)"--user";
        argv[argc++] = (char *)"user";
        argv[argc++] = (char *)"--pass";
        argv[argc++] = (char *)"secret";
    }
    argv[argc] = NULL;
    s->pid = fork();
    ck_assert_int_ge(s->pid, 0);
    if (s->pid == 0) { /* of a process with threads: nothing but system calls, or a lock that was held elsewhere stays so */
        syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
        syscall(SYS_execve, server_path, argv, environ);
        syscall(SYS_exit_group, 127);
    }
    for (int i = 0; i < 1000; i++) {
        int fd = connect_to(s->port);
        if (fd >= 0) {
            close(fd);
            return;
        }
        ck_assert_int_eq(waitpid(s->pid, NULL, WNOHANG), 0);
        pause_ms(10);
    }
    ck_abort_msg("nats-server does not start");
}

static void server_kill(struct server *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
        s->pid = 0;
    }
}

/* Says something to a server as a bare client would, and waits until it has been taken. */
static void server_say(struct server *s, const char *subject, const char *data)
{
    char text[2048];
    char buffer[8192];
    int n = snprintf(text, sizeof text, "CONNECT {\"verbose\":false}\r\nPUB %s _INBOX.nobody %zu\r\n%s\r\nPING\r\n", subject,
                     strlen(data), data);
    int fd = connect_to(s->port);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, (size_t)n), n);
    size_t used = 0;
    while (used < sizeof buffer - 1) {
        ssize_t got = read(fd, buffer + used, sizeof buffer - 1 - used);
        ck_assert_int_gt(got, 0);
        used += (size_t)got;
        buffer[used] = '\0';
        if (strstr(buffer, "PONG\r\n") != NULL) {
            break;
        }
    }
    close(fd);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* --- regions --- */

struct region {
    struct config config;
    struct config_bus bus_config;
    struct config_peer peer;
    struct log *log;
    struct metric_registry *registry;
    struct bus *bus;

    /* A worker: applies deliveries and hears of results, as the real ones do, on a thread of its own. */
    struct mailbox mailbox;
    pthread_t thread;
    _Atomic bool is_ending;
    _Atomic uint32_t fail_first; /* deliveries that fail */
    _Atomic uint32_t applied[EVENTS];
    _Atomic uint32_t applied_count; /* different ones */
    _Atomic uint32_t wrong;
    _Atomic uint32_t covered; /* rules for what may have been lost */

    _Atomic uint8_t results[EVENTS]; /* 1 + err, of publications */
    _Atomic uint32_t result_count[ERR_COUNT];
    _Atomic uint32_t ended;
    _Atomic uint64_t slowest_us;
};

static struct region regions[REGIONS];

static struct invalidation event_of(uint32_t region, uint32_t i)
{
    struct invalidation e = {.version = 1 + (uint64_t)i * 1000003, .timestamp_ms = clock_wall_ms()};
    int n = snprintf(e.key, sizeof e.key, "%s:%u:", region_names[region], i);
    e.key_len = (uint16_t)(n + (int)(i % 200));
    for (uint16_t j = (uint16_t)n; j < e.key_len; j++) {
        e.key[j] = (char)(i % 7 == 0 ? 0x80 + j % 100 : 'a' + j % 26);
    }
    return e;
}

static void on_delivery(struct mail *mail, void *owner)
{
    struct region *r = owner;
    struct delivery *d = container_of(mail, struct delivery, mail);
    uint32_t from = r == &regions[EAST] ? WEST : EAST;
    if (d->event.is_pattern) {
        atomic_fetch_add(&r->covered, d->event.version == 0 && d->event.key_len == 1 && d->event.key[0] == '*');
        delivery_done(d, OK);
        return;
    }
    if (atomic_load(&r->fail_first) > 0) {
        atomic_fetch_sub(&r->fail_first, 1);
        delivery_done(d, ERR_TIMEOUT);
        return;
    }
    const char *colon = memchr(d->event.key, ':', d->event.key_len);
    uint32_t i = colon != NULL ? (uint32_t)strtoul(colon + 1, NULL, 10) : EVENTS;
    struct invalidation expected = event_of(from, i);
    if (i >= EVENTS || d->event.version != expected.version || d->event.timestamp_ms > expected.timestamp_ms ||
        !span_eq(span_of(d->event.key, d->event.key_len), span_of(expected.key, expected.key_len))) {
        atomic_fetch_add(&r->wrong, 1);
    } else if (atomic_fetch_add(&r->applied[i], 1) == 0) {
        atomic_fetch_add(&r->applied_count, 1);
    }
    delivery_done(d, OK);
}

static void apply(void *ctx, struct delivery *delivery)
{
    struct region *r = ctx;
    delivery->mail.deliver = on_delivery;
    mailbox_post(&r->mailbox, &delivery->mail);
}

static void *worker(void *arg)
{
    struct region *r = arg;
    while (!atomic_load(&r->is_ending)) {
        if (mailbox_drain(&r->mailbox, r) == 0) {
            pause_ms(1);
        }
    }
    mailbox_drain(&r->mailbox, r);
    return NULL;
}

struct test_publication {
    struct publication publication;
    struct region *region;
    uint32_t i;
};

static void on_published(struct publication *p)
{
    struct test_publication *t = container_of(p, struct test_publication, publication);
    struct region *r = t->region;
    uint64_t took_us = clock_mono_us() - p->submitted_us;
    if (took_us > atomic_load(&r->slowest_us)) {
        atomic_store(&r->slowest_us, took_us);
    }
    atomic_store(&r->results[t->i], (uint8_t)(1 + p->err));
    atomic_fetch_add(&r->result_count[p->err], 1);
    atomic_fetch_add(&r->ended, 1);
    free(t);
}

static void publish(uint32_t region, uint32_t i)
{
    struct region *r = &regions[region];
    struct test_publication *t = xcalloc(1, sizeof *t);
    t->region = r;
    t->i = i;
    t->publication.reply_to = &r->mailbox;
    t->publication.on_done = on_published;
    t->publication.event = event_of(region, i);
    bus_publish(r->bus, &t->publication);
}

static void bus_up(uint32_t region)
{
    static const char *const commands[] = {"get"};
    struct region *r = &regions[region];
    memset(r, 0, sizeof *r);
    r->peer = (struct config_peer){.region = (char *)region_names[1 - region], .url = servers[1 - region].url};
    r->bus_config = (struct config_bus){
        .url = servers[region].url,
        .peers = &r->peer,
        .peer_count = 1,
        .publish_timeout_ms = 3000,
        .max_pending = 65536,
        .stream_max_age_s = 86400,
        .stream_max_bytes = 64 << 20,
        .stream_replicas = 1,
        .ack_wait_ms = 2000,
    };
    r->config = (struct config){.region = (char *)region_names[region], .bus = &r->bus_config};
    r->log = log_create(STDERR_FILENO, getenv("OUTRIGGER_TEST_LOG") != NULL ? LOG_INFO : LOG_ERROR);
    r->registry = metric_registry_create(&r->config, commands, 1);
    ck_assert_int_eq(mailbox_init(&r->mailbox), OK);
    ck_assert_int_eq(pthread_create(&r->thread, NULL, worker, r), 0);
    ck_assert_int_eq(bus_create(&r->config, r->log, metric_registry_metrics(r->registry), (struct bus_sink){.apply = apply, .ctx = r}, &r->bus),
                     OK);
}

static void bus_down(uint32_t region)
{
    struct region *r = &regions[region];
    if (r->bus == NULL) {
        return;
    }
    bus_stop(r->bus);
    atomic_store(&r->is_ending, true);
    pthread_join(r->thread, NULL);
    mailbox_drain(&r->mailbox, r);
    bus_destroy(&r->bus);
    mailbox_deinit(&r->mailbox);
    metric_registry_destroy(&r->registry);
    log_destroy(&r->log);
}

static uint64_t sum(uint32_t region, enum metric metric, uint32_t index)
{
    return metrics_sum(metric_registry_metrics(regions[region].registry), metric, index);
}

#define WAIT(condition, seconds)                                                                                                 \
    do {                                                                                                                         \
        uint64_t wait_until_us = clock_mono_us() + (seconds)*1000000ULL;                                                         \
        while (!(condition)) {                                                                                                   \
            ck_assert_msg(clock_mono_us() < wait_until_us, "%s: not within %d s", #condition, seconds);                          \
            pause_ms(2);                                                                                                         \
        }                                                                                                                        \
    } while (0)

static bool is_ready(uint32_t region)
{
    char text[1024];
    return bus_is_ready(regions[region].bus, text, sizeof text);
}

static void setup(void)
{
    for (uint32_t i = 0; i < REGIONS; i++) {
        struct server *s = &servers[i];
        *s = (struct server){.pid = 0};
        snprintf(s->store, sizeof s->store, "/tmp/outrigger-bus-%s-XXXXXX", region_names[i]);
        ck_assert_ptr_nonnull(mkdtemp(s->store));
        s->port = free_port();
        snprintf(s->url, sizeof s->url, "nats://127.0.0.1:%u", s->port);
    }
}

static void teardown(void)
{
    for (uint32_t i = 0; i < REGIONS; i++) {
        bus_down(i);
    }
    for (uint32_t i = 0; i < REGIONS; i++) {
        server_kill(&servers[i]);
        nftw(servers[i].store, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    }
}

static void all_up(void)
{
    for (uint32_t i = 0; i < REGIONS; i++) {
        server_start(&servers[i]);
        bus_up(i);
    }
    WAIT(is_ready(EAST) && is_ready(WEST), 10);
    for (uint32_t i = 0; i < REGIONS; i++) { /* regions that have applied nothing yet, or have lost what they knew of it */
        WAIT(atomic_load(&regions[i].covered) == 1, 10);
    }
}

/* Everything that was acknowledged is applied on the other side, exactly as it was sent. */
static void assert_acknowledged_arrive(uint32_t from, uint32_t count)
{
    struct region *to = &regions[1 - from];
    uint32_t missing = 1;
    for (uint32_t round = 0; round < 3000 && missing > 0; round++) {
        missing = 0;
        for (uint32_t i = 0; i < count; i++) {
            missing += atomic_load(&regions[from].results[i]) == 1 + OK && atomic_load(&to->applied[i]) == 0;
        }
        pause_ms(missing > 0 ? 10 : 0);
    }
    ck_assert_uint_eq(missing, 0);
    ck_assert_uint_eq(atomic_load(&to->wrong), 0);
}

/* --- tests --- */

START_TEST(all_arrive_as_sent)
{
    all_up();
    uint64_t started_us = clock_mono_us();
    for (uint32_t i = 0; i < EVENTS; i++) {
        publish(EAST, i);
        publish(WEST, i);
        if (i % 50 == 0) {
            pause_ms(1);
        }
    }
    for (uint32_t i = 0; i < REGIONS; i++) {
        WAIT(atomic_load(&regions[i].ended) == EVENTS, 20);
        ck_assert_uint_eq(atomic_load(&regions[i].result_count[OK]), EVENTS);
    }
    for (uint32_t i = 0; i < REGIONS; i++) {
        WAIT(atomic_load(&regions[i].applied_count) == EVENTS, 20);
        assert_acknowledged_arrive(i, EVENTS);
        WAIT(sum(i, METRIC_BUS_APPLIED, 1) >= EVENTS, 5);
        ck_assert_uint_eq(sum(i, METRIC_BUS_PUBLISHED, 0), EVENTS);
        ck_assert_uint_eq(sum(i, METRIC_BUS_MALFORMED, 1), 0);
        ck_assert_uint_eq(sum(i, METRIC_BUS_CONNECTED, 0), 1);
        ck_assert_uint_eq(sum(i, METRIC_BUS_CONNECTED, 1), 1);
    }
    if (getenv("OUTRIGGER_TEST_LOG") != NULL) {
        fprintf(stderr, "2 x %d events in %.0f ms, slowest acknowledgement %.1f ms\n", EVENTS,
                (double)(clock_mono_us() - started_us) / 1e3, (double)atomic_load(&regions[WEST].slowest_us) / 1e3);
    }
    /* Nothing is delivered again: all acknowledgements arrived. */
    uint64_t received = sum(WEST, METRIC_BUS_RECEIVED, 1);
    pause_ms(2500);
    ck_assert_uint_eq(sum(WEST, METRIC_BUS_RECEIVED, 1), received);
    ck_assert_uint_ge(received, EVENTS); /* more, if this machine was held up for longer than ack_wait */
}
END_TEST

START_TEST(failed_ones_come_again)
{
    all_up();
    atomic_store(&regions[EAST].fail_first, 300);
    for (uint32_t i = 0; i < 1000; i++) {
        publish(WEST, i);
    }
    WAIT(atomic_load(&regions[EAST].applied_count) == 1000, 20);
    assert_acknowledged_arrive(WEST, 1000);
    ck_assert_uint_ge(sum(EAST, METRIC_BUS_FAILED, 1), 300);
}
END_TEST

START_TEST(malformed_is_in_nobodys_way)
{
    all_up();
    server_say(&servers[WEST], "outrigger.inval.west.key", "nonsense");
    server_say(&servers[WEST], "outrigger.inval.west.key", "{\"format\":1,\"region\":\"south\",\"events\":[]}");
    server_say(&servers[WEST], "outrigger.inval.west.key", "{\"format\":2}");
    for (uint32_t i = 0; i < 100; i++) {
        publish(WEST, i);
    }
    WAIT(atomic_load(&regions[EAST].applied_count) == 100, 10);
    ck_assert_uint_eq(sum(EAST, METRIC_BUS_MALFORMED, 1), 3);
    pause_ms(2500); /* longer than ack_wait: terminated and put off, not delivered again */
    ck_assert_uint_eq(sum(EAST, METRIC_BUS_MALFORMED, 1), 3);
}
END_TEST

START_TEST(own_server_killed_and_restarted)
{
    all_up();
    for (uint32_t i = 0; i < 6000; i++) {
        publish(WEST, i);
        if (i == 2000) {
            server_kill(&servers[WEST]);
        }
        if (i == 4000) {
            server_start(&servers[WEST]);
        }
        if (i % 10 == 0) {
            pause_ms(1);
        }
    }
    WAIT(atomic_load(&regions[WEST].ended) == 6000, 5);
    ck_assert_uint_le(atomic_load(&regions[WEST].slowest_us), 3200000);
    WAIT(is_ready(WEST) && is_ready(EAST), 15);
    for (uint32_t i = 6000; i < 8000; i++) {
        publish(WEST, i);
    }
    WAIT(atomic_load(&regions[WEST].ended) == 8000, 5);
    for (uint32_t i = 6000; i < 8000; i++) {
        ck_assert_uint_eq(atomic_load(&regions[WEST].results[i]), 1 + OK);
    }
    ck_assert_uint_gt(atomic_load(&regions[WEST].result_count[ERR_UNAVAILABLE]), 0);
    assert_acknowledged_arrive(WEST, 8000);
}
END_TEST

START_TEST(server_frozen_and_thawed)
{
    all_up();
    for (uint32_t i = 0; i < 3000; i++) {
        publish(WEST, i);
        if (i == 1000) {
            kill(servers[WEST].pid, SIGSTOP);
        }
        if (i % 10 == 0) {
            pause_ms(1);
        }
    }
    pause_ms(800);
    kill(servers[WEST].pid, SIGCONT);
    WAIT(atomic_load(&regions[WEST].ended) == 3000, 5);
    ck_assert_uint_eq(atomic_load(&regions[WEST].result_count[OK]), 3000); /* within publish_timeout */
    assert_acknowledged_arrive(WEST, 3000);
    ck_assert_uint_eq(sum(EAST, METRIC_BUS_RECEIVED, 1), 3000); /* what was sent twice is stored once */
}
END_TEST

START_TEST(own_server_down)
{
    char text[512];
    server_start(&servers[EAST]);
    bus_up(WEST); /* with nobody there at start */
    WAIT(sum(WEST, METRIC_BUS_CONNECTED, 1) == 1, 10);
    ck_assert(!bus_is_ready(regions[WEST].bus, text, sizeof text));
    ck_assert_ptr_nonnull(strstr(text, "own region west: not connected (nats://127.0.0.1:"));
    ck_assert(!bus_is_ready(regions[WEST].bus, text, 10));
    ck_assert_uint_lt(strlen(text), 10);
    for (uint32_t i = 0; i < 100; i++) {
        publish(WEST, i);
    }
    WAIT(atomic_load(&regions[WEST].ended) == 100, 1);
    ck_assert_uint_eq(atomic_load(&regions[WEST].result_count[ERR_UNAVAILABLE]), 100);
    ck_assert_uint_lt(atomic_load(&regions[WEST].slowest_us), 500000);
    server_start(&servers[WEST]);
    WAIT(is_ready(WEST), 10);
    publish(WEST, 100);
    WAIT(atomic_load(&regions[WEST].result_count[OK]) == 1, 2);
    bus_up(EAST); /* what was published before its time arrives, too */
    WAIT(atomic_load(&regions[EAST].applied_count) == 1, 10);
}
END_TEST

START_TEST(peer_down_or_frozen)
{
    char text[512];
    uint32_t published = 0;
    all_up();
    for (uint32_t round = 0; round < 2; round++) { /* 0: frozen, 1: dead */
        if (round == 0) {
            kill(servers[EAST].pid, SIGSTOP);
        } else {
            server_kill(&servers[EAST]);
        }
        atomic_store(&regions[WEST].slowest_us, 0);
        uint64_t until_us = clock_mono_us() + (round == 0 ? 9000000 : 2000000);
        while (clock_mono_us() < until_us) {
            publish(WEST, published++);
            pause_ms(4);
        }
        WAIT(atomic_load(&regions[WEST].ended) == published, 5);
        ck_assert_uint_eq(atomic_load(&regions[WEST].result_count[OK]), published);
        ck_assert_uint_lt(atomic_load(&regions[WEST].slowest_us), 2900000); /* publish_timeout is 3 s */
        WAIT(sum(WEST, METRIC_BUS_CONNECTED, 1) == 0, 15); /* noticed */
        ck_assert(!bus_is_ready(regions[WEST].bus, text, sizeof text));
        ck_assert_ptr_nonnull(strstr(text, "east: not connected (nats://127.0.0.1:"));
        if (round == 0) {
            kill(servers[EAST].pid, SIGCONT);
        } else {
            server_start(&servers[EAST]);
        }
        WAIT(is_ready(WEST) && is_ready(EAST), 20);
        assert_acknowledged_arrive(WEST, published);
    }
    for (uint32_t i = 0; i < 500; i++) {
        publish(EAST, i);
    }
    WAIT(atomic_load(&regions[WEST].applied_count) == 500, 10);
}
END_TEST

struct link_state {
    bool is_up;
    uint32_t ups;
    uint32_t messages;
};

static void on_link_up(void *ctx)
{
    ((struct link_state *)ctx)->is_up = true;
    ((struct link_state *)ctx)->ups++;
}

static void on_link_down(void *ctx, const char *reason)
{
    ((struct link_state *)ctx)->is_up = false;
}

static void on_link_message(void *ctx, const struct incoming *message)
{
    ((struct link_state *)ctx)->messages++;
}

static struct mailbox *link_box;

static bool drained(bool is_so)
{
    mailbox_drain(link_box, NULL);
    return is_so;
}

/* The socket's buffers and ours fill up: sending must not wait, must come to an end, and must work again afterwards. */
START_TEST(link_to_a_server_that_does_not_read)
{
    static const struct transport_handler handler = {on_link_up, on_link_down, on_link_message};
    struct mailbox box;
    struct link_state state = {.is_up = false};
    struct link *link = NULL;
    struct server *s = &servers[EAST];
    server_start(s);
    ck_assert_int_eq(mailbox_init(&box), OK);
    link_box = &box;
    struct log *log = log_create(STDERR_FILENO, LOG_ERROR);
    struct config_access nobody = {NULL};
    struct link_options options = {.name = "east",
                                   .access = {.urls = s->url, .own = &nobody, .section = "bus"},
                                   .client_name = "test",
                                   .send_asap = true,
                                   .is_wanted = true,
                                   .handler = &handler,
                                   .ctx = &state};
    ck_assert_int_eq(link_create(&options, log, &box, &link), OK);
    WAIT(drained(state.is_up), 10);
    kill(s->pid, SIGSTOP);
    char *data = xcalloc(1, 65536);
    struct outgoing out = {.subject = "x", .data = span_of(data, 65536)};
    uint64_t slowest_us = 0;
    uint32_t sent = 0;
    enum err err = OK;
    for (; err == OK && sent < 10000; sent++) {
        uint64_t now_us = clock_mono_us();
        err = link_transport(link)->ops->send(link_transport(link), &out);
        slowest_us = MAX(slowest_us, clock_mono_us() - now_us);
    }
    ck_assert_int_eq(err, ERR_OVERLOAD);
    ck_assert_uint_lt(slowest_us, 5000000); /* one that waits for the server waits until it is given up */
    WAIT(drained(!state.is_up), 30);
    kill(s->pid, SIGCONT);
    WAIT(drained(state.is_up && state.ups >= 2), 30);
    char to_self[128];
    snprintf(to_self, sizeof to_self, "%s.x.1", link_transport(link)->inbox);
    out = (struct outgoing){.subject = to_self, .msg_id = "m", .data = SPAN_LIT("hello")};
    for (uint32_t i = 0; i < 2000 && state.messages == 0; i++) { /* what is lost at a reconnection is lost */
        ck_assert_int_eq(link_transport(link)->ops->send(link_transport(link), &out), OK);
        pause_ms(5);
        mailbox_drain(&box, NULL);
    }
    ck_assert_uint_gt(state.messages, 0);
    kill(s->pid, SIGSTOP); /* and with a full socket it can be stopped */
    out = (struct outgoing){.subject = "x", .data = span_of(data, 65536)};
    while (link_transport(link)->ops->send(link_transport(link), &out) == OK) {
    }
    uint64_t now_us = clock_mono_us();
    link_stop(link);
    ck_assert_int_eq(link_transport(link)->ops->send(link_transport(link), &out), ERR_UNAVAILABLE);
    link_join(link);
    ck_assert_uint_lt(clock_mono_us() - now_us, 8000000);
    mailbox_drain(&box, NULL);
    link_destroy(&link);
    mailbox_deinit(&box);
    log_destroy(&log);
    free(data);
}
END_TEST

/* A link to the server of the region east that is up. */
static struct link *link_up(struct link_state *state, struct mailbox *box, struct log *log)
{
    static const struct transport_handler handler = {on_link_up, on_link_down, on_link_message};
    static const struct config_access nobody = {NULL};
    struct link *link = NULL;
    server_start(&servers[EAST]);
    ck_assert_int_eq(mailbox_init(box), OK);
    link_box = box;
    struct link_options options = {.name = "east",
                                   .access = {.urls = servers[EAST].url, .own = &nobody, .section = "bus"},
                                   .client_name = "test",
                                   .is_wanted = true,
                                   .handler = &handler,
                                   .ctx = state};
    ck_assert_int_eq(link_create(&options, log, box, &link), OK);
    WAIT(drained(state->is_up), 10);
    return link;
}

static void link_down(struct link *link, struct mailbox *box)
{
    link_stop(link);
    link_join(link);
    mailbox_drain(box, NULL);
    link_destroy(&link);
    mailbox_deinit(box);
}

/* Reads what a bare client gets until its PING is answered; how often `what` was in it. */
static uint32_t count_until_pong(int fd, const char *what)
{
    static char buffer[1 << 16];
    size_t used = 0;
    uint32_t count = 0;
    ck_assert_int_eq(write(fd, "PING\r\n", 6), 6);
    do {
        ssize_t got = read(fd, buffer + used, sizeof buffer - 1 - used);
        ck_assert_int_gt(got, 0);
        used += (size_t)got;
        buffer[used] = '\0';
    } while (strstr(buffer, "PONG\r\n") == NULL);
    for (const char *at = buffer; (at = strstr(at, what)) != NULL; at++) {
        count++;
    }
    return count;
}

/* The ends of locks are the last that a sidecar says. */
START_TEST(what_was_sent_before_a_stop_arrives)
{
    static const char subscribe[] = "CONNECT {\"verbose\":false}\r\nSUB last 1\r\n";
    struct mailbox box;
    struct link_state state = {.is_up = false};
    struct link *link = link_up(&state, &box, NULL);
    int fd = connect_to(servers[EAST].port);
    ck_assert_int_eq(write(fd, subscribe, sizeof subscribe - 1), (int)sizeof subscribe - 1);
    ck_assert_uint_eq(count_until_pong(fd, "MSG last"), 0);
    struct outgoing out = {.subject = "last", .data = SPAN_LIT("word")};
    for (uint32_t i = 0; i < 100; i++) {
        ck_assert_int_eq(link_transport(link)->ops->send(link_transport(link), &out), OK);
    }
    link_down(link, &box);
    ck_assert_uint_eq(count_until_pong(fd, "MSG last"), 100);
    close(fd);
}
END_TEST

START_TEST(a_link_that_is_wanted_again_at_once_comes_up_again)
{
    struct mailbox box;
    struct link_state state = {.is_up = false};
    struct log *log = log_create(STDERR_FILENO, LOG_ERROR);
    struct link *link = link_up(&state, &box, log);
    ck_assert_uint_eq(state.ups, 1);
    for (uint32_t ups = 2; ups < 4; ups++) { /* whether its thread has seen the first or not */
        link_want(link, false);
        link_want(link, true);
        WAIT(drained(state.ups >= ups), 10);
        ck_assert(state.is_up);
    }
    link_down(link, &box);
    log_destroy(&log);
}
END_TEST

START_TEST(a_url_is_shown_without_its_password)
{
    static const char *const urls[][2] = {
        {"nats://127.0.0.1:4222", "nats://127.0.0.1:4222"},
        {"tls://user:p@ss@host:4222", "tls://host:4222"},
        {"nats://token@[::1]:4222", "nats://[::1]:4222"},
        {"host", "host"},
        {"nats://a:p@b:1,nats://c:2,nats://d@e:3", "nats://b:1,nats://c:2,nats://e:3"},
    };
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        char out[64];
        access_display(urls[i][0], out, sizeof out);
        ck_assert_str_eq(out, urls[i][1]);
        access_display(urls[i][0], out, 5); /* cut short, and no more */
        ck_assert_uint_le(strlen(out), 4);
    }
}
END_TEST

/* The library gives a connection up when its credentials were refused twice; we do not. */
START_TEST(refused_credentials_are_tried_again)
{
    servers[WEST].has_password = true;
    server_start(&servers[WEST]);
    server_start(&servers[EAST]);
    bus_up(WEST);
    WAIT(sum(WEST, METRIC_BUS_CONNECTED, 1) == 1, 10);
    publish(WEST, 0);
    WAIT(atomic_load(&regions[WEST].result_count[ERR_UNAVAILABLE]) == 1, 1);
    pause_ms(3000); /* several attempts */
    ck_assert_uint_eq(sum(WEST, METRIC_BUS_CONNECTED, 0), 0);
    server_kill(&servers[WEST]);
    servers[WEST].has_password = false;
    server_start(&servers[WEST]);
    WAIT(is_ready(WEST), 20);
    publish(WEST, 1);
    WAIT(atomic_load(&regions[WEST].result_count[OK]) == 1, 2);
    /* And after it had been connected. */
    servers[WEST].has_password = true;
    server_kill(&servers[WEST]);
    server_start(&servers[WEST]);
    pause_ms(3000);
    ck_assert(!is_ready(WEST));
    server_kill(&servers[WEST]);
    servers[WEST].has_password = false;
    server_start(&servers[WEST]);
    WAIT(is_ready(WEST), 20);
}
END_TEST

START_TEST(deleted_stream_is_made_again)
{
    all_up();
    server_say(&servers[WEST], "$JS.API.STREAM.DELETE.INVAL_west", "");
    pause_ms(100);
    publish(WEST, 0);
    WAIT(atomic_load(&regions[WEST].result_count[OK]) == 1, 5);
    WAIT(atomic_load(&regions[EAST].applied_count) == 1, 20);
}
END_TEST

START_TEST(stops_while_busy)
{
    static uint8_t acknowledged[3000];
    struct region *west = &regions[WEST];
    all_up();
    for (uint32_t i = 0; i < 3000; i++) {
        publish(WEST, i);
    }
    bus_stop(west->bus);
    for (uint32_t i = 3000; i < 3100; i++) {
        publish(WEST, i);
    }
    WAIT(atomic_load(&west->ended) == 3100, 5);
    ck_assert_uint_ge(atomic_load(&west->result_count[ERR_STOPPING]), 100);
    ck_assert_uint_eq(atomic_load(&west->result_count[ERR_STOPPING]) + atomic_load(&west->result_count[OK]), 3100);
    for (uint32_t i = 0; i < 3000; i++) {
        acknowledged[i] = atomic_load(&west->results[i]) == 1 + OK;
    }
    bus_down(WEST);
    /* The receiving end stops with deliveries under way, and starts again: what it had not acknowledged comes again. */
    atomic_store(&regions[EAST].fail_first, UINT32_MAX);
    bus_up(WEST);
    WAIT(sum(WEST, METRIC_BUS_CONNECTED, 0) == 1, 10);
    for (uint32_t i = 3000; i < 6000; i++) {
        publish(WEST, i);
    }
    WAIT(atomic_load(&west->ended) == 3000, 10);
    atomic_store(&regions[EAST].fail_first, 0);
    static _Atomic uint32_t applied[EVENTS];
    bus_down(EAST);
    memcpy((void *)applied, (void *)regions[EAST].applied, sizeof applied);
    bus_up(EAST);
    for (uint32_t i = 0; i < 6000; i++) {
        bool was_acknowledged = i < 3000 ? acknowledged[i] : atomic_load(&west->results[i]) == 1 + OK;
        if (was_acknowledged) {
            WAIT(atomic_load(&applied[i]) + atomic_load(&regions[EAST].applied[i]) > 0, 40);
        }
    }
}
END_TEST

int main(void)
{
    static const char *const places[] = {"/usr/sbin/nats-server", "/usr/local/bin/nats-server", "/usr/bin/nats-server"};
    for (size_t i = 0; i < ARRAY_LEN(places) && server_path == NULL; i++) {
        server_path = access(places[i], X_OK) == 0 ? (char *)places[i] : NULL;
    }
    Suite *suite = suite_create("bus/bus_nats");
    TCase *tc = tcase_create("bus_nats");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    if (server_path == NULL) {
        puts("bus/bus_nats: skipped, no nats-server is installed");
    } else {
        tcase_add_test(tc, all_arrive_as_sent);
        tcase_add_test(tc, failed_ones_come_again);
        tcase_add_test(tc, malformed_is_in_nobodys_way);
        tcase_add_test(tc, own_server_killed_and_restarted);
        tcase_add_test(tc, server_frozen_and_thawed);
        tcase_add_test(tc, own_server_down);
        tcase_add_test(tc, peer_down_or_frozen);
        tcase_add_test(tc, link_to_a_server_that_does_not_read);
        tcase_add_test(tc, a_url_is_shown_without_its_password);
        tcase_add_test(tc, refused_credentials_are_tried_again);
        tcase_add_test(tc, deleted_stream_is_made_again);
        tcase_add_test(tc, stops_while_busy);
    }
    suite_add_tcase(suite, tc);
    TCase *links = tcase_create("links");
    tcase_set_timeout(links, 60);
    tcase_add_checked_fixture(links, setup, teardown);
    if (server_path != NULL) {
        tcase_add_test(links, what_was_sent_before_a_stop_arrives);
        tcase_add_test(links, a_link_that_is_wanted_again_at_once_comes_up_again);
    }
    suite_add_tcase(suite, links);
    return check_main(suite);
}
