#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "proxy/admin/http.h"
#include "tests/unit/check_main.h"

#define WAIT_MS 8000

static const struct metric_def defs[] = {{"t_events_total", "Events.", METRIC_COUNTER, {-1, -1}}};

/* A component whose state the test sets; read on the server's thread. */
struct component {
    _Atomic bool is_ready;
    const char *text;
};

static bool component_is_ready(void *ctx, char *text, size_t size)
{
    struct component *c = ctx;
    bool is_ready = c->is_ready;
    snprintf(text, size, "%s", is_ready ? "" : c->text);
    return is_ready;
}

struct server {
    struct address address;
    char address_text[64];
    struct component pool;
    struct component bus;
    struct admin_probe probes[2];
    struct metrics *metrics;
    struct metrics_shard *shard;
    struct log *log;
    int log_fds[2];
    struct admin *admin;
};

static uint16_t free_port(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sin;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&sin, sizeof sin), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
    close(fd);
    return ntohs(sin.sin_port);
}

static enum err server_start_with(struct server *s, struct admin_options options)
{
    s->probes[0] = (struct admin_probe){"pool", component_is_ready, &s->pool};
    s->probes[1] = (struct admin_probe){"bus", component_is_ready, &s->bus};
    s->pool.text = "node 10.0.0.1:11211: not connected\nnode 10.0.0.2:11211: timed out\n";
    s->pool.is_ready = true;
    s->bus.text = "";
    s->bus.is_ready = true;
    s->metrics = metrics_create(defs, 1, NULL, 0);
    s->shard = metrics_shard_create(s->metrics);
    ck_assert_int_eq(pipe2(s->log_fds, O_CLOEXEC | O_NONBLOCK), 0);
    s->log = log_create(s->log_fds[1], LOG_INFO);
    if (s->address.path == NULL) {
        s->address.host = (char *)"127.0.0.1";
        snprintf(s->address_text, sizeof s->address_text, "127.0.0.1:%u", s->address.port);
        s->address.text = s->address_text;
    }
    options.address = &s->address;
    options.unix_mode = 0600;
    options.probes = s->probes;
    options.probe_count = 2;
    options.metrics = s->metrics;
    return admin_create(&options, s->log, &s->admin);
}

static enum err server_start(struct server *s, unsigned max_connections, unsigned timeout_s)
{
    return server_start_with(s, (struct admin_options){.max_connections = max_connections, .timeout_s = timeout_s});
}

static void server_stop(struct server *s)
{
    admin_destroy(&s->admin);
    ck_assert_ptr_null(s->admin);
    log_destroy(&s->log);
    close(s->log_fds[0]);
    close(s->log_fds[1]);
    metrics_destroy(&s->metrics);
}

static int server_connect(const struct server *s)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    sin.sin_port = htons(s->address.port);
    bool is_unix = s->address.path != NULL;
    int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (is_unix) {
        strncpy(sun.sun_path, s->address.path, sizeof sun.sun_path - 1);
    }
    const struct sockaddr *address = is_unix ? (struct sockaddr *)&sun : (struct sockaddr *)&sin;
    ck_assert_int_eq(connect(fd, address, is_unix ? sizeof sun : sizeof sin), 0);
    return fd;
}

static void put(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return; /* the server may have hung up: what it answered is what counts */
        }
        data += n;
        len -= (size_t)n;
    }
}

/* Reads until the server closes; returns false if it has not done so in time. `text` gets what came. */
static bool take_all(int fd, char *text, size_t size)
{
    size_t len = 0;
    text[0] = '\0';
    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        if (poll(&poll_fd, 1, WAIT_MS) != 1) {
            return false;
        }
        ssize_t n = recv(fd, text + len, size - 1 - len, 0);
        if (n <= 0) {
            return true;
        }
        len += (size_t)n;
        text[len] = '\0';
    }
}

static char page[1 << 18];

static const char *ask(const struct server *s, const char *request)
{
    int fd = server_connect(s);
    put(fd, request, strlen(request));
    ck_assert_msg(take_all(fd, page, sizeof page), "no end after: %.60s", request);
    close(fd);
    return page;
}

static const char *ask_for(const struct server *s, const char *method, const char *path)
{
    char request[1024];
    snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, path);
    return ask(s, request);
}

static const char *body_of(const char *answer)
{
    const char *end = strstr(answer, "\r\n\r\n");
    ck_assert_msg(end != NULL, "no headers: %s", answer);
    return end + 4;
}

static void assert_status(const char *answer, const char *status)
{
    char line[64];
    snprintf(line, sizeof line, "HTTP/1.1 %s ", status);
    ck_assert_msg(strncmp(answer, line, strlen(line)) == 0, "expected %s: %s", status, answer);
}

static void assert_has(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "expected \"%s\" in: %s", part, text);
}

START_TEST(test_health_and_index)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 2), OK);
    const char *answer = ask_for(&s, "GET", "/healthz");
    assert_status(answer, "200");
    assert_has(answer, "\r\nContent-Type: text/plain");
    assert_has(answer, "\r\nCache-Control: no-store\r\n");
    ck_assert_str_eq(body_of(answer), "ok\n");
    answer = ask_for(&s, "HEAD", "/healthz");
    assert_status(answer, "200");
    assert_has(answer, "\r\nContent-Length: 3\r\n");
    ck_assert_str_eq(body_of(answer), "");
    answer = ask_for(&s, "GET", "/healthz?verbose=1&x=%00");
    assert_status(answer, "200");
    answer = ask_for(&s, "GET", "/");
    assert_status(answer, "200");
    assert_has(body_of(answer), "outrigger " OUTRIGGER_VERSION "\n");
    assert_has(body_of(answer), "/healthz ");
    assert_has(body_of(answer), "/readyz ");
    assert_has(body_of(answer), "/metrics ");
    answer = ask_for(&s, "HEAD", "/");
    ck_assert_str_eq(body_of(answer), "");
    answer = ask(&s, "GET /healthz HTTP/1.0\r\n\r\n");
    ck_assert_str_eq(body_of(answer), "ok\n");
    server_stop(&s);
}
END_TEST

START_TEST(test_readiness)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 2), OK);
    const char *answer = ask_for(&s, "GET", "/readyz");
    assert_status(answer, "200");
    ck_assert_str_eq(body_of(answer), "pool: ok\nbus: ok\n");
    s.pool.is_ready = false;
    answer = ask_for(&s, "GET", "/readyz");
    assert_status(answer, "503");
    ck_assert_str_eq(body_of(answer), "pool: node 10.0.0.1:11211: not connected\n"
                                      "pool: node 10.0.0.2:11211: timed out\nbus: ok\n");
    s.bus.is_ready = false;
    s.pool.is_ready = true;
    answer = ask_for(&s, "HEAD", "/readyz");
    assert_status(answer, "503");
    answer = ask_for(&s, "GET", "/readyz");
    ck_assert_str_eq(body_of(answer), "pool: ok\nbus: not ready\n");
    assert_status(ask_for(&s, "GET", "/healthz"), "200");
    s.bus.is_ready = true;
    assert_status(ask_for(&s, "GET", "/readyz"), "200");
    server_stop(&s);
}
END_TEST

static double value_of(const char *text, const char *name)
{
    char line[128];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *p = strstr(text, line);
    ck_assert_msg(p != NULL, "no %s in: %s", name, text);
    return strtod(p + strlen(line), NULL);
}

START_TEST(test_metrics)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 2), OK);
    metrics_add(s.shard, 0, 0, 42);
    const char *answer = ask_for(&s, "GET", "/metrics");
    assert_status(answer, "200");
    assert_has(answer, "\r\nContent-Type: text/plain; version=0.0.4");
    const char *body = body_of(answer);
    ck_assert_int_eq(strncmp(body, "# HELP t_events_total Events.\n# TYPE t_events_total counter\nt_events_total 42\n", 76), 0);
    double now_s = (double)clock_wall_ms() / 1000;
    ck_assert_double_gt(value_of(body, "process_start_time_seconds"), now_s - 600);
    ck_assert_double_le(value_of(body, "process_start_time_seconds"), now_s + 0.02);
    ck_assert_double_ge(value_of(body, "process_cpu_seconds_total"), 0);
    ck_assert_double_gt(value_of(body, "process_resident_memory_bytes"), 100000);
    ck_assert_double_gt(value_of(body, "process_open_fds"), 3);
    ck_assert_double_lt(value_of(body, "process_open_fds"), 100);
    ck_assert_double_gt(value_of(body, "process_max_fds"), 3);
    assert_has(body, "\noutrigger_build_info{version=\"" OUTRIGGER_VERSION "\"} 1\n");
    assert_has(body, "# TYPE process_cpu_seconds_total counter\n");
    server_stop(&s);
}
END_TEST

START_TEST(test_errors)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 2), OK);
    const char *unknown[] = {"/nothing",       "/healthz/",   "//healthz", "/HEALTHZ",
                             "/../etc/passwd", "/%0d%0aX: y", "*",         "/metrics%2f"};
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        const char *answer = ask_for(&s, "GET", unknown[i]);
        assert_status(answer, "404");
        assert_has(answer, "\r\nContent-Type: application/json\r\n");
        assert_has(body_of(answer), "{\"error\":{\"code\":\"not_found\",\"message\":\"");
    }
    const char *methods[] = {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "SET", "DEL", "INVALIDATE", "get"};
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        const char *answer = ask_for(&s, methods[i], "/healthz");
        assert_status(answer, "405");
        assert_has(answer, "\r\nAllow: GET, HEAD\r\n");
        assert_has(body_of(answer), "{\"error\":{\"code\":\"method_not_allowed\",\"message\":\"");
    }
    assert_status(ask_for(&s, "OPTIONS", "/cache/x"), "405");
    assert_status(ask_for(&s, "GET", "/cache"), "404");
    const char *bad[] = {"/cache/100%", "/%", "/healthz%0", "/cache/%zz"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const char *answer = ask_for(&s, "GET", bad[i]);
        assert_status(answer, "400");
        assert_has(body_of(answer), "{\"error\":{\"code\":\"bad_path\",\"message\":\"");
    }
    assert_status(ask_for(&s, "GET", "/health%7a"), "200");
    assert_status(ask_for(&s, "GET", "/healthz%00"), "404");
    const char *needy[] = {"/cache/x", "/route?key=x", "/regions", "/config"};
    for (size_t i = 0; i < ARRAY_LEN(needy); i++) { /* this server has nothing to look at */
        assert_status(ask_for(&s, "GET", needy[i]), "503");
    }
    server_stop(&s);
}
END_TEST

START_TEST(test_bodies)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 2), OK);
    const char *answer = ask(&s, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
    ck_assert_str_eq(body_of(answer), "ok\n");
    answer = ask(&s, "SET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                     "5\r\nhello\r\n0\r\n\r\n");
    assert_status(answer, "404");
    static char large[65537 + 128] = "SET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 65537\r\n\r\n";
    memset(large + strlen(large), 'x', 65537);
    answer = ask(&s, large); /* read, dropped and refused */
    assert_status(answer, "413");
    assert_has(body_of(answer), "{\"error\":{\"code\":\"too_large\"");
    answer = ask(&s, "SET /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n");
    ck_assert(strncmp(answer, "HTTP/1.1 400", 12) == 0 || strncmp(answer, "HTTP/1.1 413", 12) == 0);
    answer = ask(&s, "SET /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n");
    ck_assert(strncmp(answer, "HTTP/1.1 400", 12) == 0 || strncmp(answer, "HTTP/1.1 413", 12) == 0);
    /* More chunks than may be: the server hangs up. */
    int fd = server_connect(&s);
    static const char head[] = "SET /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    static char chunk[4096 + 8] = "1000\r\n";
    memset(chunk + 6, 'x', 4096);
    memcpy(chunk + 6 + 4096, "\r\n", 2);
    put(fd, head, sizeof head - 1);
    for (int i = 0; i < 20; i++) {
        put(fd, chunk, sizeof chunk);
    }
    ck_assert(take_all(fd, page, sizeof page));
    ck_assert_ptr_null(strstr(page, "404"));
    close(fd);
    assert_status(ask_for(&s, "GET", "/healthz"), "200");
    server_stop(&s);
}
END_TEST

static void send_huge(const struct server *s, const char *head, size_t len)
{
    int fd = server_connect(s);
    char *data = malloc(len);
    memset(data, 'x', len);
    put(fd, head, strlen(head));
    put(fd, data, len);
    free(data);
    ck_assert(take_all(fd, page, sizeof page));
    ck_assert_msg(page[0] == '\0' || strncmp(page, "HTTP/1.1 4", 10) == 0, "%s", page);
    close(fd);
}

START_TEST(test_garbage)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 1), OK);
    const char *garbage[] = {
        "\r\n\r\n\r\n\r\n",
        "hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "GET /healthz HTTP/9.9\r\n\r\n",
        "GET /healthz NONSENSE\r\n\r\n",
        "get foo\r\nset a 0 0 1\r\nx\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client hello",
        "GET /healthz HTTP/1.1\r\nno colon here\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n: empty name\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nContent-Length: five\r\n\r\n",
        "GET \xff\xfe\xfd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
    };
    int fds[ARRAY_LEN(garbage)];
    for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
        fds[i] = server_connect(&s);
        put(fds[i], garbage[i], strlen(garbage[i]));
    }
    for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
        ck_assert(take_all(fds[i], page, sizeof page)); /* answered or not, the connection ends */
        ck_assert_msg(page[0] == '\0' || strncmp(page, "HTTP/1.", 7) == 0, "%s", page);
        close(fds[i]);
    }
    send_huge(&s, "GET /", 1 << 20);
    send_huge(&s, "GET /healthz HTTP/1.1\r\nX-Huge: ", 1 << 20);
    send_huge(&s, "", 1 << 20);
    assert_status(ask_for(&s, "GET", "/healthz"), "200");
    server_stop(&s);
}
END_TEST

/* Headers that fit are taken, and a client that pipelines or keeps its connection gets every answer. */
START_TEST(test_keep_alive)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 1), OK);
    char request[8192] = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ";
    size_t len = strlen(request);
    memset(request + len, 'y', 4096);
    snprintf(request + len + 4096, sizeof request - len - 4096, "\r\n\r\n");
    int fd = server_connect(&s);
    for (int i = 0; i < 3; i++) {
        put(fd, request, strlen(request));
    }
    put(fd, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", strlen("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"));
    uint64_t start_us = clock_mono_us();
    ck_assert(take_all(fd, page, sizeof page)); /* ends by the timeout of a silent connection */
    ck_assert_uint_ge(clock_mono_us() - start_us, 500000);
    unsigned answers = 0;
    for (const char *p = page; (p = strstr(p, "HTTP/1.1 200 ")) != NULL; p++) {
        answers++;
    }
    ck_assert_uint_eq(answers, 4);
    close(fd);
    server_stop(&s);
}
END_TEST

START_TEST(test_silent_clients)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 1), OK);
    int silent = server_connect(&s);
    int half = server_connect(&s);
    put(half, "GET /hea", 8);
    assert_status(ask_for(&s, "GET", "/healthz"), "200"); /* nobody waits for them */
    uint64_t start_us = clock_mono_us();
    ck_assert(take_all(silent, page, sizeof page));
    ck_assert_str_eq(page, "");
    ck_assert(take_all(half, page, sizeof page));
    ck_assert_uint_lt(clock_mono_us() - start_us, 5000000);
    close(silent);
    close(half);
    server_stop(&s);
}
END_TEST

/* Idle connections up to the limit, and beyond: the ones beyond wait, and are served when the idle ones have timed out. */
START_TEST(test_connection_limit)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 8, 1), OK);
    int fds[40];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = server_connect(&s);
    }
    assert_status(ask_for(&s, "GET", "/healthz"), "200");
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        close(fds[i]);
    }
    server_stop(&s);
}
END_TEST

struct client {
    pthread_t thread;
    const struct server *server;
    unsigned good;
};

static void *hammer(void *arg)
{
    struct client *c = arg;
    char *text = malloc(1 << 16);
    for (int i = 0; i < 50; i++) {
        int fd = server_connect(c->server);
        const char *request = i % 2 == 0 ? "GET /metrics HTTP/1.0\r\n\r\n" : "GET /readyz HTTP/1.0\r\n\r\n";
        put(fd, request, strlen(request));
        bool is_done = take_all(fd, text, 1 << 16);
        c->good += is_done && strstr(text, " 200 OK\r\n") != NULL;
        close(fd);
    }
    free(text);
    return NULL;
}

START_TEST(test_many_clients)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 5), OK);
    struct client clients[8] = {0};
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        clients[i].server = &s;
        pthread_create(&clients[i].thread, NULL, hammer, &clients[i]);
    }
    for (uint32_t i = 0; i < 100000; i++) {
        metrics_add(s.shard, 0, 0, 1);
    }
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        pthread_join(clients[i].thread, NULL);
        ck_assert_uint_eq(clients[i].good, 50);
    }
    const char *body = body_of(ask_for(&s, "GET", "/metrics"));
    assert_has(body, "t_events_total 100000\n");
    server_stop(&s);
}
END_TEST

START_TEST(test_stop_with_open_connections)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&s, 0, 10), OK);
    int fd = server_connect(&s);
    put(fd, "GET /healthz HTTP/1.1\r\n", 23);
    assert_status(ask_for(&s, "GET", "/healthz"), "200");
    uint64_t start_us = clock_mono_us();
    server_stop(&s);
    ck_assert_uint_lt(clock_mono_us() - start_us, 2000000);
    ck_assert(take_all(fd, page, sizeof page));
    close(fd);
}
END_TEST

static const char *ask_with(const struct server *s, const char *path, const char *header)
{
    char request[512];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", path, header);
    return ask(s, request);
}

START_TEST(test_token)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start_with(&s, (struct admin_options){.timeout_s = 2, .token = "0123456789abcdef"}), OK);
    const char *wrong[] = {"", "Authorization: 0123456789abcdef\r\n", "Authorization: Bearer 0123456789abcdeF\r\n",
                           "Authorization: Bearer 0123456789abcde\r\n", "Authorization: Bearer 0123456789abcdef0\r\n",
                           "Authorization: Bearer \r\n", "Authorization: Basic 0123456789abcdef\r\n", "X: Bearer 0123456789abcdef\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        const char *answer = ask_with(&s, "/metrics", wrong[i]);
        assert_status(answer, "401");
        assert_has(answer, "\r\nWWW-Authenticate: Bearer\r\n");
        assert_has(body_of(answer), "{\"error\":{\"code\":\"unauthorized\",");
        assert_status(ask_with(&s, "/none", wrong[i]), "401"); /* nor does one learn what there is */
        assert_status(ask_with(&s, "/healthz?x=1", wrong[i]), "200");
    }
    assert_status(ask_with(&s, "/metrics", "Authorization: Bearer 0123456789abcdef\r\n"), "200");
    assert_status(ask_with(&s, "/metrics", "authorization: bearer 0123456789abcdef\r\n"), "200");
    s.pool.is_ready = false;
    const char *answer = ask_with(&s, "/readyz", "");
    assert_status(answer, "503");
    ck_assert_str_eq(body_of(answer), "pool: not ready\nbus: ok\n"); /* without addresses */
    assert_has(body_of(ask_with(&s, "/readyz", "Authorization: Bearer 0123456789abcdef\r\n")), "10.0.0.1:11211");
    server_stop(&s);
}
END_TEST

/* Never silent for long, and never done: such clients are ended all the same, whether they send or read slowly. */
START_TEST(test_dripping_client)
{
    struct server s = {.address.port = free_port()};
    ck_assert_int_eq(server_start_with(&s, (struct admin_options){.timeout_s = 30, .request_s = 1}), OK);
    int fd = server_connect(&s);
    put(fd, "GET /healthz HTTP/1.1\r\nX-Long: ", 31);
    bool is_open = true;
    for (int i = 0; is_open && i < WAIT_MS / 50; i++) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        char c;
        put(fd, "x", 1);
        is_open = poll(&poll_fd, 1, 50) == 0 || recv(fd, &c, 1, 0) > 0;
    }
    ck_assert(!is_open);
    close(fd);
    assert_status(ask_for(&s, "GET", "/healthz"), "200");
    server_stop(&s);
}
END_TEST

/* --- a worker that does nothing until the test lets it --- */

struct worker {
    struct config config;
    struct admin_view view;
    struct loop loop;
    struct cache cache;
    struct cache *caches[1];
};

static struct admin_options worker_init(struct worker *w)
{
    w->config.max_value_size = 1 << 20;
    w->view.config = &w->config;
    ck_assert_int_eq(mailbox_init(&w->loop.mailbox), OK);
    w->cache.loop = &w->loop;
    w->cache.is_stopping = true; /* so that every question has the same answer */
    w->caches[0] = &w->cache;
    return (struct admin_options){.timeout_s = 5, .view = &w->view, .caches = w->caches, .cache_count = 1, .max_asks = 3, .ask_ms = 60000};
}

/* Waits until so many questions have come, and answers them. */
static void worker_answer(struct worker *w, unsigned count)
{
    while (count > 0) {
        struct pollfd poll_fd = {.fd = w->loop.mailbox.fd, .events = POLLIN};
        ck_assert_int_eq(poll(&poll_fd, 1, WAIT_MS), 1);
        unsigned answered = mailbox_drain(&w->loop.mailbox, w);
        count -= MIN(count, answered);
    }
}

static int begin(const struct server *s, const char *request)
{
    int fd = server_connect(s);
    put(fd, request, strlen(request));
    return fd;
}

#define GET_KEY "GET /cache/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
#define SET_KEY "SET /cache/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nvalue"

START_TEST(test_worker_answers)
{
    struct server s = {.address.port = free_port()};
    struct worker w = {.config.region = NULL};
    ck_assert_int_eq(server_start_with(&s, worker_init(&w)), OK);
    const char *requests[] = {GET_KEY, SET_KEY, "DEL /cache/k%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"};
    int fds[ARRAY_LEN(requests)];
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        fds[i] = begin(&s, requests[i]);
    }
    assert_status(ask_for(&s, "GET", "/healthz"), "200"); /* nobody waits for the worker but they */
    worker_answer(&w, ARRAY_LEN(requests));
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        ck_assert(take_all(fds[i], page, sizeof page));
        assert_status(page, "503");
        ck_assert_str_eq(body_of(page), "{\"error\":{\"code\":\"server_error\",\"message\":\"the sidecar is stopping\"}}\n");
        close(fds[i]);
    }
    server_stop(&s);
    mailbox_deinit(&w.loop.mailbox);
}
END_TEST

/* More than may be under way are refused at once, and their places are free again when the worker has answered, not before: not when their client
 * has gone. */
START_TEST(test_too_many_asks)
{
    struct server s = {.address.port = free_port()};
    struct worker w = {.config.region = NULL};
    ck_assert_int_eq(server_start_with(&s, worker_init(&w)), OK);
    int fds[3];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = begin(&s, i == 1 ? SET_KEY : GET_KEY);
        struct pollfd poll_fd = {.fd = w.loop.mailbox.fd, .events = POLLIN};
        ck_assert_int_eq(poll(&poll_fd, 1, WAIT_MS), 1); /* the first is there */
    }
    const char *answer = "";
    for (int i = 0; i < WAIT_MS / 10 && strncmp(answer, "HTTP/1.1 429 ", 13) != 0; i++) { /* the others may not have been read yet */
        int fd = begin(&s, GET_KEY);
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        if (poll(&poll_fd, 1, 1000) == 1) {
            ck_assert(take_all(fd, page, sizeof page));
            answer = page;
        }
        close(fd);
    }
    assert_status(answer, "429");
    assert_has(body_of(answer), "{\"error\":{\"code\":\"too_many_requests\",");
    close(fds[0]);
    assert_status(ask(&s, GET_KEY), "429");
    worker_answer(&w, 3);
    ck_assert(take_all(fds[1], page, sizeof page));
    assert_status(page, "503");
    int fd = begin(&s, GET_KEY);
    worker_answer(&w, 1);
    ck_assert(take_all(fd, page, sizeof page));
    assert_status(page, "503");
    close(fd);
    close(fds[1]);
    close(fds[2]);
    server_stop(&s);
    mailbox_deinit(&w.loop.mailbox);
}
END_TEST

START_TEST(test_ask_deadline)
{
    struct server s = {.address.port = free_port()};
    struct worker w = {.config.region = NULL};
    struct admin_options options = worker_init(&w);
    options.ask_ms = 50;
    ck_assert_int_eq(server_start_with(&s, options), OK);
    const char *answer = ask(&s, SET_KEY);
    assert_status(answer, "504");
    assert_has(body_of(answer), "{\"error\":{\"code\":\"timeout\",");
    worker_answer(&w, 1); /* late: nobody is there to be told */
    assert_status(ask_for(&s, "GET", "/healthz"), "200");
    server_stop(&s);
    mailbox_deinit(&w.loop.mailbox);
}
END_TEST

/* Stopped while a worker is being asked: the client is told, and what the worker answers later has somewhere to go. */
START_TEST(test_stop_while_asking)
{
    struct server s = {.address.port = free_port()};
    struct worker w = {.config.region = NULL};
    ck_assert_int_eq(server_start_with(&s, worker_init(&w)), OK);
    int fd = begin(&s, SET_KEY);
    struct pollfd poll_fd = {.fd = w.loop.mailbox.fd, .events = POLLIN};
    ck_assert_int_eq(poll(&poll_fd, 1, WAIT_MS), 1);
    admin_stop(s.admin);
    ck_assert(take_all(fd, page, sizeof page));
    assert_status(page, "503");
    assert_has(body_of(page), "the sidecar is stopping");
    close(fd);
    worker_answer(&w, 1);
    server_stop(&s);
    mailbox_deinit(&w.loop.mailbox);
}
END_TEST

/* --- invalidations --- */

/* A worker that keeps the key it is to invalidate until the test says what has become of it. */
struct keeper {
    _Atomic(struct errand *) errand;
};

static void keep_errand(void *ctx, struct errand *errand)
{
    atomic_store(&((struct keeper *)ctx)->errand, errand);
}

static struct errand *take_errand(struct keeper *keeper)
{
    struct errand *errand = NULL;
    for (int i = 0; errand == NULL && i < WAIT_MS; i++) {
        errand = atomic_exchange(&keeper->errand, NULL);
        poll(NULL, 0, 1);
    }
    ck_assert_ptr_nonnull(errand);
    return errand;
}

#define INVALIDATE_KEY \
    "POST /invalidate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"keys\":[\"k\"]}"

static struct admin_options keeper_init(struct worker *w, struct keeper *keeper)
{
    struct admin_options options = worker_init(w);
    options.ask_ms = 1; /* not for invalidations: they end by themselves */
    options.invalidator = (struct invalidator){.rules = (struct rules *)(void *)w, .submit_key = keep_errand, .ctx = keeper}; /* no pattern comes */
    return options;
}

/* The client waits until the key's worker has done it, on whichever thread; others are served meanwhile. */
START_TEST(test_invalidation)
{
    struct server s = {.address.port = free_port()};
    struct worker w = {.config.region = NULL};
    struct keeper keeper = {.errand = NULL};
    ck_assert_int_eq(server_start_with(&s, keeper_init(&w, &keeper)), OK);
    for (int failed = 0; failed <= 1; failed++) {
        int fd = begin(&s, INVALIDATE_KEY);
        struct errand *errand = take_errand(&keeper);
        assert_status(ask_for(&s, "GET", "/healthz"), "200");
        errand->status = failed ? REPLY_ERROR : REPLY_DELETED;
        snprintf(errand->text, sizeof errand->text, "SERVER_ERROR \"no\"");
        errand->on_done(errand);
        ck_assert(take_all(fd, page, sizeof page));
        close(fd);
        assert_status(page, failed ? "503" : "200");
        ck_assert_str_eq(body_of(page), failed ? "{\"failed\":1,\"results\":[{\"key\":\"k\",\"error\":\"SERVER_ERROR \\\"no\\\"\"}]}\n"
                                               : "{\"failed\":0,\"results\":[{\"key\":\"k\",\"result\":\"deleted\"}]}\n");
    }
    server_stop(&s);
    mailbox_deinit(&w.loop.mailbox);
}
END_TEST

#define INVALIDATE_AND_WAIT                                                                                                          \
    "POST /invalidate?wait=regions&timeout=5m HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n" \
    "Content-Length: 14\r\n\r\n{\"keys\":[\"k\"]}"

/* Half of the asks at most wait for regions (here one of three), from their beginning; without other regions that is over when the rest is. */
START_TEST(test_invalidation_that_waits)
{
    struct server s = {.address.port = free_port()};
    struct worker w = {.config.region = NULL};
    struct keeper keeper = {.errand = NULL};
    ck_assert_int_eq(server_start_with(&s, keeper_init(&w, &keeper)), OK);
    int fd = begin(&s, INVALIDATE_AND_WAIT);
    struct errand *errand = take_errand(&keeper);
    const char *refused = ask(&s, INVALIDATE_AND_WAIT);
    assert_status(refused, "429");
    assert_has(body_of(refused), "too_many_requests");
    assert_status(ask(&s, "GET /applied HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "429");
    int other = begin(&s, INVALIDATE_KEY);
    struct errand *second = take_errand(&keeper);
    second->status = errand->status = REPLY_DELETED;
    second->on_done(second);
    ck_assert(take_all(other, page, sizeof page));
    ck_assert_str_eq(body_of(page), "{\"failed\":0,\"results\":[{\"key\":\"k\",\"result\":\"deleted\"}]}\n");
    errand->on_done(errand);
    ck_assert(take_all(fd, page, sizeof page));
    assert_status(page, "200");
    ck_assert_str_eq(body_of(page), "{\"failed\":0,\"results\":[{\"key\":\"k\",\"result\":\"deleted\"}],\"position\":null,\"regions\":[]}\n");
    assert_status(ask(&s, "GET /applied HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "200");
    close(other);
    close(fd);
    server_stop(&s);
    mailbox_deinit(&w.loop.mailbox);
}
END_TEST

static void *stop_admin(void *admin)
{
    admin_stop(admin);
    return NULL;
}

/* A stop waits for invalidations under way, and takes no more. */
START_TEST(test_stop_while_invalidating)
{
    struct server s = {.address.port = free_port()};
    struct worker w = {.config.region = NULL};
    struct keeper keeper = {.errand = NULL};
    pthread_t stopper;
    ck_assert_int_eq(server_start_with(&s, keeper_init(&w, &keeper)), OK);
    int fd = begin(&s, INVALIDATE_KEY);
    struct errand *first = take_errand(&keeper);
    ck_assert_int_eq(pthread_create(&stopper, NULL, stop_admin, s.admin), 0);
    bool is_refused = false;
    for (int i = 0; !is_refused && i < WAIT_MS; i++) { /* the stop may not have come yet: those are done at once */
        int other = begin(&s, INVALIDATE_KEY);
        struct pollfd poll_fd = {.fd = other, .events = POLLIN};
        while (poll(&poll_fd, 1, 1) == 0) {
            struct errand *errand = atomic_exchange(&keeper.errand, NULL);
            if (errand != NULL) {
                errand->status = REPLY_NOT_FOUND;
                errand->on_done(errand);
            }
        }
        ck_assert(take_all(other, page, sizeof page));
        close(other);
        is_refused = strstr(page, "the sidecar is stopping") != NULL;
    }
    ck_assert(is_refused);
    first->status = REPLY_DELETED;
    first->on_done(first);
    ck_assert(take_all(fd, page, sizeof page));
    assert_status(page, "200");
    close(fd);
    pthread_join(stopper, NULL);
    server_stop(&s);
    mailbox_deinit(&w.loop.mailbox);
}
END_TEST

START_TEST(test_bad_questions)
{
    struct server s = {.address.port = free_port()};
    struct worker w = {.config.region = NULL};
    ck_assert_int_eq(server_start_with(&s, worker_init(&w)), OK);
    char path[512] = "/cache/";
    assert_status(ask_for(&s, "GET", path), "400");
    memset(path + 7, 'k', 251);
    const char *answer = ask_for(&s, "GET", path);
    assert_status(answer, "400");
    assert_has(body_of(answer), "{\"error\":{\"code\":\"bad_key\",");
    const char *bad[] = {"/cache/k?ttl=", "/cache/k?ttl=-1", "/cache/k?ttl=1h", "/cache/k?ttl=315360001", "/cache/k?flags=4294967296", "/cache/k?flags=1.0",
                         "/cache/k?ttl=99999999999999999999999"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        answer = ask_for(&s, "SET", bad[i]);
        assert_status(answer, "400");
        assert_has(body_of(answer), "{\"error\":{\"code\":\"bad_parameter\",");
    }
    assert_status(ask(&s, "SET /cache/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576000\r\nConnection: close\r\n\r\n"), "413");
    server_stop(&s);
    mailbox_deinit(&w.loop.mailbox);
}
END_TEST

START_TEST(test_busy_port)
{
    struct server first = {.address.port = free_port()};
    ck_assert_int_eq(server_start(&first, 0, 2), OK);
    struct server second = {.address.port = first.address.port};
    ck_assert_int_eq(server_start(&second, 0, 2), ERR_IO);
    ck_assert_ptr_null(second.admin);
    char text[1024];
    ssize_t n = read(second.log_fds[0], text, sizeof text - 1);
    ck_assert_int_gt(n, 0);
    text[n] = '\0';
    assert_has(text, " error admin: can not listen on 127.0.0.1:");
    assert_has(text, "Address already in use");
    server_stop(&second);
    assert_status(ask_for(&first, "GET", "/healthz"), "200");
    server_stop(&first);
    struct server third = {.address.port = first.address.port}; /* free again at once */
    ck_assert_int_eq(server_start(&third, 0, 2), OK);
    server_stop(&third);
}
END_TEST

START_TEST(test_unix_socket)
{
    char dir[] = "/tmp/test_http.XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    char path[64];
    snprintf(path, sizeof path, "%s/admin.sock", dir);
    struct server s = {.address = {.path = path, .text = path}};
    ck_assert_int_eq(server_start(&s, 0, 2), OK);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    ck_assert_str_eq(body_of(ask_for(&s, "GET", "/healthz")), "ok\n");
    struct server second = {.address = {.path = path, .text = path}};
    ck_assert_int_eq(server_start(&second, 0, 2), ERR_IO);
    server_stop(&second);
    ck_assert_str_eq(body_of(ask_for(&s, "GET", "/healthz")), "ok\n");
    server_stop(&s);
    ck_assert_int_eq(stat(path, &st), -1);
    ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("http");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_health_and_index);
    tcase_add_test(tests, test_readiness);
    tcase_add_test(tests, test_metrics);
    tcase_add_test(tests, test_errors);
    tcase_add_test(tests, test_bodies);
    tcase_add_test(tests, test_garbage);
    tcase_add_test(tests, test_keep_alive);
    tcase_add_test(tests, test_silent_clients);
    tcase_add_test(tests, test_connection_limit);
    tcase_add_test(tests, test_many_clients);
    tcase_add_test(tests, test_stop_with_open_connections);
    tcase_add_test(tests, test_token);
    tcase_add_test(tests, test_dripping_client);
    tcase_add_test(tests, test_worker_answers);
    tcase_add_test(tests, test_too_many_asks);
    tcase_add_test(tests, test_ask_deadline);
    tcase_add_test(tests, test_stop_while_asking);
    tcase_add_test(tests, test_invalidation);
    tcase_add_test(tests, test_invalidation_that_waits);
    tcase_add_test(tests, test_stop_while_invalidating);
    tcase_add_test(tests, test_bad_questions);
    tcase_add_test(tests, test_busy_port);
    tcase_add_test(tests, test_unix_socket);
    Suite *suite = suite_create("http");
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
