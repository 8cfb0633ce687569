#include "proxy/admin/http.h"

#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/uri.h"
#include "proxy/admin/access.h"
#include "proxy/net/listener.h"

#define MAX_CONNECTIONS 64U
#define TIMEOUT_S 10U
#define REQUEST_S 60U
#define MAX_ASKS 32U
#define ASK_MS 15000U
#define LOOK_MS 200             /* how often deadlines are looked at while there are connections */
#define CONNECTION_MEMORY 32768 /* request line and headers must fit, and a read buffer beside them */
#define SWALLOW_MAX (8UL << 20) /* the body of a request that is refused is still read, so that the client gets to its answer */
#define BODIES_MIN (64UL << 20) /* all together, at least */

struct admin {
    struct log *log;
    struct MHD_Daemon *daemon;
    struct admin_probe *probes;
    struct admin_view view;
    struct invalidator invalidator;
    struct routes routes;
    struct asks asks;
    struct list clients;
    bool has_closed; /* a connection has ended */
    char *token;     /* or NULL */
    char *unix_path; /* to be removed at the end, or NULL */
    uint64_t request_us;
    uint64_t ask_us;
    size_t value_max;
    size_t bodies_max;
    size_t bodies; /* bytes of them now */
    int epoll_fd;
    pthread_t thread;
    bool has_thread;
};

/* One connection, from its acceptance to its end. */
struct client {
    struct list link;
    int fd;
    struct exchange *exchange; /* or NULL: between requests */
    uint64_t expires_us; /* when it is ended, whatever it is doing; 0: not, a worker is being waited for */
};

/* One request under way. */
struct exchange {
    struct admin *admin;
    struct MHD_Connection *connection;
    struct client *client;
    char *uri; /* as it came; once dispatched, the path decoded */
    bool is_begun;
    const struct access_refusal *refusal; /* or NULL */
    bool is_suspended;
    bool is_resumed; /* to be answered now */
    char *body;
    size_t body_len;
    size_t body_cap;
    struct ask *ask; /* at a worker while is_suspended, else its answer; or NULL */
    uint64_t ask_expires_us;
};

/* --- responses --- */

static void add_headers(struct MHD_Response *r, const struct http_response *response)
{
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, response->content_type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (response->allow[0] != '\0') {
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, response->allow);
    }
    if (response->status == MHD_HTTP_UNAUTHORIZED) {
        MHD_add_response_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    }
    char headers[HTTP_HEADERS_MAX];
    memcpy(headers, response->headers, sizeof headers);
    char *rest = headers;
    for (char *line = strsep(&rest, "\n"); rest != NULL; line = strsep(&rest, "\n")) {
        char *value = strstr(line, ": ");
        *value = '\0';
        MHD_add_response_header(r, line, value + 2);
    }
}

static enum MHD_Result send_response(struct exchange *exchange, const struct http_response *response, char *body, size_t len)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE);
    if (r == NULL) {
        free(body);
        return MHD_NO;
    }
    add_headers(r, response);
    exchange->client->expires_us = clock_mono_us() + exchange->admin->request_us;
    enum MHD_Result result = MHD_queue_response(exchange->connection, response->status, r); /* leaves the body out for HEAD */
    MHD_destroy_response(r);
    return result;
}

struct composing {
    struct exchange *exchange;
    struct http_response response;
    char *body;
    size_t len;
};

/* Composes a response in memory; it is sent unless it must wait for a worker. */
static bool compose_begin(struct composing *c, struct exchange *exchange)
{
    *c = (struct composing){.exchange = exchange};
    FILE *out = open_memstream(&c->body, &c->len);
    http_response_init(&c->response, out);
    return out != NULL;
}

static bool compose_end(struct composing *c)
{
    bool is_whole = ferror(c->response.body) == 0;
    if (fclose(c->response.body) != 0 || !is_whole) { /* out of memory */
        free(c->body);
        return false;
    }
    return true;
}

static enum MHD_Result compose_send(struct composing *c)
{
    return compose_end(c) ? send_response(c->exchange, &c->response, c->body, c->len) : MHD_NO;
}

static enum MHD_Result send_error(struct exchange *exchange, unsigned status, const char *code, const char *message)
{
    struct composing c;
    if (!compose_begin(&c, exchange)) {
        return MHD_NO;
    }
    http_response_error(&c.response, status, code, message);
    return compose_send(&c);
}

/* --- what workers answer --- */

static void resume(struct exchange *exchange)
{
    exchange->is_suspended = false;
    exchange->is_resumed = true;
    MHD_resume_connection(exchange->connection); /* on_request() is called once more */
}

static void on_ask_done(struct ask *ask)
{
    struct exchange *exchange = ask->owner;
    exchange->ask = ask;
    resume(exchange);
}

static enum MHD_Result say_stopping(struct exchange *exchange)
{
    return send_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable", "the sidecar is stopping");
}

static enum MHD_Result suspend(struct exchange *exchange, struct ask *ask)
{
    struct admin *admin = exchange->admin;
    ask->owner = exchange;
    ask->on_done = on_ask_done;
    if (ask->kind == ASK_SET) {
        ask->value = exchange->body != NULL ? exchange->body : xcalloc(1, 1);
        ask->value_len = exchange->body_len;
        exchange->body = NULL; /* still counted in `bodies`, until the exchange ends */
    }
    bool is_stopping = atomic_load(&admin->asks.is_stopping); /* then run() waits for those under way: there should be no more */
    if (is_stopping || ask_start(&admin->asks, ask) != OK) {
        ask_destroy(&ask);
        return is_stopping ? say_stopping(exchange) : send_error(exchange, MHD_HTTP_TOO_MANY_REQUESTS, "too_many_requests", "too many requests are under way");
    }
    exchange->ask = ask;
    exchange->is_suspended = true;
    exchange->ask_expires_us = ask_has_end(ask) ? UINT64_MAX : clock_mono_us() + admin->ask_us;
    exchange->client->expires_us = 0;
    MHD_suspend_connection(exchange->connection);
    return MHD_YES;
}

/* Called again after resume(): with the worker's answer, or without one when it took too long or we are stopping. */
static enum MHD_Result finish(struct exchange *exchange)
{
    struct admin *admin = exchange->admin;
    if (exchange->ask == NULL) {
        return atomic_load(&admin->asks.is_stopping)
                   ? say_stopping(exchange)
                   : send_error(exchange, MHD_HTTP_GATEWAY_TIMEOUT, "timeout", "the worker did not answer in time; what was asked may still be done");
    }
    struct composing c;
    if (!compose_begin(&c, exchange)) {
        return MHD_NO;
    }
    routes_finish(&admin->routes, exchange->ask, &c.response);
    return compose_send(&c);
}

/* Nobody waits for the worker any more. */
static void give_up(struct exchange *exchange)
{
    if (exchange->ask != NULL && exchange->is_suspended) {
        ask_abandon(exchange->ask);
        exchange->ask = NULL;
    }
}

/* --- requests --- */

static bool is_trusted(const struct admin *admin, struct MHD_Connection *connection)
{
    return access_is_granted(MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION), admin->token);
}

static enum MHD_Result refuse(struct exchange *exchange)
{
    return send_error(exchange, exchange->refusal->status, exchange->refusal->code, exchange->refusal->message);
}

/* A client that were refused now might break off over its own sending, and not see why: its body is read first, and dropped. */
static enum MHD_Result begin(struct exchange *exchange)
{
    struct admin *admin = exchange->admin;
    const char *text = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    uint64_t announced = text != NULL ? strtoull(text, NULL, 10) : 0;
    exchange->is_begun = true;
    exchange->refusal = access_judge(&(struct access){
        .is_trusted = is_trusted(admin, exchange->connection),
        .uri = exchange->uri,
        .body_len = announced,
        .body_max = access_body_max(exchange->uri, admin->value_max),
        .bodies_left = admin->bodies_max - admin->bodies,
    });
    return exchange->refusal == NULL || announced <= SWALLOW_MAX ? MHD_YES : refuse(exchange);
}

/* One more piece of the body; MHD_NO ends the connection. */
static enum MHD_Result take_body(struct exchange *exchange, const char *data, size_t len)
{
    struct admin *admin = exchange->admin;
    if (exchange->refusal != NULL) {
        return MHD_YES;
    }
    if (len > access_body_max(exchange->uri, admin->value_max) - exchange->body_len || len > admin->bodies_max - admin->bodies) {
        return MHD_NO; /* chunked, or more than was announced: it can not be told any more */
    }
    if (exchange->body_len + len > exchange->body_cap) {
        size_t cap = MAX(exchange->body_len + len, exchange->body_cap * 2);
        char *grown = realloc(exchange->body, cap);
        if (grown == NULL) {
            return MHD_NO;
        }
        exchange->body = grown;
        exchange->body_cap = cap;
    }
    memcpy(exchange->body + exchange->body_len, data, len);
    exchange->body_len += len;
    admin->bodies += len;
    return MHD_YES;
}

static enum MHD_Result dispatch(struct exchange *exchange, const char *method)
{
    struct admin *admin = exchange->admin;
    size_t path_len = strcspn(exchange->uri, "?");
    struct span query = exchange->uri[path_len] == '?' ? span_str(exchange->uri + path_len + 1) : SPAN_LIT("");
    const char *accept = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
    size_t len = 0;
    struct composing c;
    if (uri_decode(span_of(exchange->uri, path_len), false, exchange->uri, &len) != OK) {
        return send_error(exchange, MHD_HTTP_BAD_REQUEST, "bad_path", "a '%' in the path must be followed by two hexadecimal digits");
    }
    exchange->uri[len] = '\0'; /* at the '?', at most */
    struct http_request request = {
        .method = method,
        .path = exchange->uri,
        .path_len = len,
        .query = query,
        .body = span_of(exchange->body, exchange->body_len),
        .content_type = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE),
        .wants_json = accept != NULL && strstr(accept, "application/json") != NULL,
        .is_trusted = is_trusted(admin, exchange->connection),
    };
    if (!compose_begin(&c, exchange)) {
        return MHD_NO;
    }
    routes_dispatch(&admin->routes, &request, &c.response);
    if (c.response.ask == NULL) {
        return compose_send(&c);
    }
    struct ask *ask = c.response.ask;
    free(compose_end(&c) ? c.body : NULL);
    return suspend(exchange, ask);
}

/* libmicrohttpd calls this once when the headers are there, once for each piece of the body, once at its end, and once more after resume(). */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_len, void **request_ctx)
{
    struct exchange *exchange = *request_ctx;
    if (!exchange->is_begun) {
        return begin(exchange);
    }
    if (*data_len > 0) {
        size_t len = *data_len;
        *data_len = 0;
        return take_body(exchange, data, len);
    }
    if (exchange->is_resumed) {
        return finish(exchange);
    }
    return exchange->refusal != NULL ? refuse(exchange) : dispatch(exchange, method);
}

/* The first that is seen of a request: its URI, before anything is decoded. */
static void *on_uri(void *ctx, const char *uri, struct MHD_Connection *connection)
{
    struct exchange *exchange = xcalloc(1, sizeof *exchange);
    exchange->admin = ctx;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    exchange->connection = connection;
    exchange->client = info->socket_context; /* on_connection() made it */
    exchange->uri = xstrdup(uri); /* bounded by CONNECTION_MEMORY */
    exchange->client->exchange = exchange;
    return exchange;
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **request_ctx, enum MHD_RequestTerminationCode code)
{
    struct admin *admin = ctx;
    struct exchange *exchange = *request_ctx;
    *request_ctx = NULL;
    if (exchange == NULL) {
        return;
    }
    give_up(exchange);
    exchange->client->exchange = NULL;
    exchange->client->expires_us = clock_mono_us() + admin->request_us; /* for the next request, where there is one */
    admin->bodies -= exchange->body_len;
    ask_destroy(&exchange->ask);
    free(exchange->body);
    free(exchange->uri);
    free(exchange);
}

/* --- connections --- */

static void on_connection(void *ctx, struct MHD_Connection *connection, void **socket_ctx, enum MHD_ConnectionNotificationCode code)
{
    struct admin *admin = ctx;
    struct client *client = *socket_ctx;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        client = xcalloc(1, sizeof *client);
        client->fd = info != NULL ? info->connect_fd : -1;
        client->expires_us = clock_mono_us() + admin->request_us;
        list_push_back(&admin->clients, &client->link);
        *socket_ctx = client;
    } else if (client != NULL) {
        admin->has_closed = true;
        list_remove(&client->link);
        free(client);
        *socket_ctx = NULL;
    }
}

/* Ends what takes too long: a connection by shutting its socket down, which the library sees, and a worker's time with an answer. */
static void look_at_deadlines(struct admin *admin)
{
    uint64_t now_us = clock_mono_us();
    struct list *it, *tmp;
    list_for_each(it, tmp, &admin->clients)
    {
        struct client *client = list_entry(it, struct client, link);
        struct exchange *exchange = client->exchange;
        if (client->expires_us != 0 && now_us >= client->expires_us) {
            client->expires_us = 0;
            shutdown(client->fd, SHUT_RDWR);
        } else if (exchange != NULL && exchange->is_suspended && now_us >= exchange->ask_expires_us) {
            give_up(exchange);
            resume(exchange);
        }
    }
}

/* --- the thread --- */

static int poll_ms(struct admin *admin)
{
    MHD_UNSIGNED_LONG_LONG library_ms;
    int wait_ms = list_is_empty(&admin->clients) ? -1 : LOOK_MS;
    if (admin->has_closed) { /* it had stopped listening if that was one of too many, and listens again when it is run */
        admin->has_closed = false;
        return 0;
    }
    if (MHD_get_timeout(admin->daemon, &library_ms) == MHD_YES && (wait_ms < 0 || library_ms < LOOK_MS)) {
        wait_ms = (int)MIN(library_ms, 1000ULL * LOOK_MS);
    }
    return wait_ms;
}

/* Whoever waits for a worker is told that there will be no answer. */
static void say_goodbye(struct admin *admin)
{
    struct list *it, *tmp;
    list_for_each(it, tmp, &admin->clients)
    {
        struct exchange *exchange = list_entry(it, struct client, link)->exchange;
        if (exchange != NULL && exchange->is_suspended) {
            give_up(exchange);
            resume(exchange);
        }
    }
    MHD_run(admin->daemon); /* resumes and answers, */
    MHD_run(admin->daemon); /* and writes, as far as the sockets take it */
    MHD_stop_daemon(admin->daemon);
    admin->daemon = NULL;
}

static void *run(void *arg)
{
    struct admin *admin = arg;
    pthread_setname_np(pthread_self(), "admin");
    while (!atomic_load(&admin->asks.is_stopping) || admin->asks.jobs > 0) {
        MHD_run(admin->daemon);
        struct pollfd fds[] = {{.fd = admin->epoll_fd, .events = POLLIN}, {.fd = admin->asks.mailbox.fd, .events = POLLIN}};
        poll(fds, ARRAY_LEN(fds), poll_ms(admin));
        mailbox_drain(&admin->asks.mailbox, admin);
        look_at_deadlines(admin);
    }
    say_goodbye(admin);
    return NULL;
}

static void on_library_log(void *ctx, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));

static void on_library_log(void *ctx, const char *fmt, va_list args)
{
    const struct admin *admin = ctx;
    char text[512];
    int len = vsnprintf(text, sizeof text, fmt, args);
    while (len > 0 && (size_t)len < sizeof text && text[len - 1] == '\n') {
        text[--len] = '\0';
    }
    log_info(admin->log, "admin: %s", text); /* what clients do wrong is here, too */
}

static size_t leave_encoded(void *ctx, struct MHD_Connection *connection, char *text)
{
    return strlen(text); /* dispatch() decodes: the library would end a key at its first zero byte */
}

static struct MHD_Daemon *start_daemon(struct admin *admin, const struct admin_options *options, int fd)
{
    /* clang-format off */
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, admin,
        MHD_OPTION_EXTERNAL_LOGGER, on_library_log, admin, /* first: what follows may have something to say */
        MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_URI_LOG_CALLBACK, on_uri, admin,
        MHD_OPTION_UNESCAPE_CALLBACK, leave_encoded, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, admin,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, admin,
        MHD_OPTION_CONNECTION_LIMIT, options->max_connections != 0 ? options->max_connections : MAX_CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, options->timeout_s != 0 ? options->timeout_s : TIMEOUT_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_END);
    /* clang-format on */
}

/* --- life --- */

static void admin_free(struct admin *admin)
{
    if (admin->unix_path != NULL) {
        unlink(admin->unix_path);
        free(admin->unix_path);
    }
    if (admin->token != NULL) {
        explicit_bzero(admin->token, strlen(admin->token));
        free(admin->token);
    }
    free(admin->probes);
    free(admin);
}

static struct admin *create(const struct admin_options *options, struct log *log)
{
    struct admin *admin = xcalloc(1, sizeof *admin);
    admin->log = log;
    list_init(&admin->clients);
    admin->unix_path = options->address->path != NULL ? xstrdup(options->address->path) : NULL;
    admin->token = options->token != NULL ? xstrdup(options->token) : NULL;
    admin->request_us = 1000000ULL * (options->request_s != 0 ? options->request_s : REQUEST_S);
    admin->ask_us = 1000ULL * (options->ask_ms != 0 ? options->ask_ms : ASK_MS);
    admin->value_max = options->view != NULL ? options->view->config->max_value_size : 0;
    admin->bodies_max = MAX(BODIES_MIN, 2 * admin->value_max);
    admin->probes = xcalloc(options->probe_count + 1, sizeof *admin->probes);
    for (uint32_t i = 0; i < options->probe_count; i++) {
        admin->probes[i] = options->probes[i];
    }
    routes_init(&admin->routes, admin->probes, options->probe_count, options->metrics);
    admin->invalidator = options->invalidator;
    admin->routes.invalidator = &admin->invalidator;
    if (options->view != NULL) {
        admin->view = *options->view;
        admin->routes.view = &admin->view;
    }
    return admin;
}

/* The thread must not be the one that the kernel picks for the process's signals. */
static bool start_thread(struct admin *admin)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    admin->has_thread = pthread_create(&admin->thread, NULL, run, admin) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return admin->has_thread;
}

enum err admin_create(const struct admin_options *options, struct log *log, struct admin **out)
{
    *out = NULL;
    char error[256];
    int fd;
    enum err err = listener_probe(options->address, error, sizeof error);
    if (err == OK) {
        err = listener_socket(options->address, options->unix_mode, &fd, error, sizeof error);
    }
    if (err != OK) {
        log_error(log, "admin: %s", error);
        return err;
    }
    struct admin *admin = create(options, log);
    if (asks_init(&admin->asks, options->caches, options->cache_count, options->max_asks != 0 ? options->max_asks : MAX_ASKS) != OK) {
        log_error(log, "admin: no descriptor is left for the mailbox");
        close(fd);
        admin_free(admin);
        return ERR_IO;
    }
    admin->daemon = start_daemon(admin, options, fd);
    if (admin->daemon == NULL) { /* the library has said why, and closed fd */
        log_error(log, "admin: can not start the HTTP server on %s", options->address->text);
        goto fail;
    }
    admin->epoll_fd = MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    if (!start_thread(admin)) {
        log_error(log, "admin: can not start the HTTP server's thread");
        MHD_stop_daemon(admin->daemon);
        goto fail;
    }
    log_info(log, "admin: listening on %s", options->address->text);
    *out = admin;
    return OK;
fail:
    asks_deinit(&admin->asks);
    admin_free(admin);
    return ERR_IO;
}

void admin_stop(struct admin *admin)
{
    if (admin == NULL || !admin->has_thread) {
        return;
    }
    atomic_store(&admin->asks.is_stopping, true);
    mailbox_wake(&admin->asks.mailbox);
    pthread_join(admin->thread, NULL);
    admin->has_thread = false;
}

void admin_destroy(struct admin **admin)
{
    if (*admin == NULL) {
        return;
    }
    admin_stop(*admin);
    asks_deinit(&(*admin)->asks);
    admin_free(*admin);
    *admin = NULL;
}
