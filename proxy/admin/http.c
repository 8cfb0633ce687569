#include "proxy/admin/http.h"

#include <microhttpd.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

#include "common/base.h"
#include "proxy/net/listener.h"

#define MAX_CONNECTIONS 64U
#define TIMEOUT_S 10U
#define CONNECTION_MEMORY 32768 /* request line and headers must fit, and a read buffer beside them */
#define BODY_MAX 65536

struct admin {
    struct log *log;
    struct MHD_Daemon *daemon;
    struct admin_probe *probes;
    struct routes routes;
    char *unix_path; /* to be removed at the end, or NULL */
};

/* One request under way. */
struct exchange {
    size_t body_len; /* received so far */
};

static enum MHD_Result send_response(struct MHD_Connection *connection, struct http_response *response, char *body, size_t len)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE);
    if (r == NULL) {
        free(body);
        return MHD_NO;
    }
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, response->content_type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (response->allow[0] != '\0') {
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, response->allow);
    }
    enum MHD_Result result = MHD_queue_response(connection, response->status, r); /* leaves the body out for HEAD */
    MHD_destroy_response(r);
    return result;
}

/* Composes the response in memory; `request` NULL: the one for a body that is too large. */
static enum MHD_Result answer(struct admin *admin, struct MHD_Connection *connection, const struct http_request *request)
{
    char *body = NULL;
    size_t len = 0;
    struct http_response response = {.body = open_memstream(&body, &len)};
    if (response.body == NULL) {
        return MHD_NO;
    }
    if (request != NULL) {
        routes_dispatch(&admin->routes, request, &response);
    } else {
        http_response_error(&response, MHD_HTTP_CONTENT_TOO_LARGE, "too_large", "the body is too large");
    }
    bool is_whole = ferror(response.body) == 0;
    if (fclose(response.body) != 0 || !is_whole) { /* out of memory */
        free(body);
        return MHD_NO;
    }
    return send_response(connection, &response, body, len);
}

static bool is_body_announced_too_large(struct MHD_Connection *connection)
{
    const char *text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return text != NULL && strtoull(text, NULL, 10) > BODY_MAX;
}

/* libmicrohttpd calls this once when the headers are there, once for each piece of the body, and once at its end. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_len, void **request_ctx)
{
    struct admin *admin = ctx;
    struct exchange *exchange = *request_ctx;
    if (exchange == NULL) {
        *request_ctx = xcalloc(1, sizeof *exchange);
        return is_body_announced_too_large(connection) ? answer(admin, connection, NULL) : MHD_YES;
    }
    if (*data_len > 0) { /* no route takes a body yet: it is read, so that the client gets to its answer, and dropped */
        exchange->body_len += *data_len;
        *data_len = 0;
        return exchange->body_len <= BODY_MAX ? MHD_YES : MHD_NO;
    }
    struct http_request request = {.method = method, .path = url};
    return answer(admin, connection, &request);
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **request_ctx, enum MHD_RequestTerminationCode code)
{
    free(*request_ctx);
    *request_ctx = NULL;
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

/* The library's thread must not be the one that the kernel picks for the process's signals. */
static struct MHD_Daemon *start_daemon(struct admin *admin, const struct admin_options *options, int fd)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* clang-format off */
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, admin,
        MHD_OPTION_EXTERNAL_LOGGER, on_library_log, admin, /* first: what follows may have something to say */
        MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
        MHD_OPTION_CONNECTION_LIMIT, options->max_connections != 0 ? options->max_connections : MAX_CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, options->timeout_s != 0 ? options->timeout_s : TIMEOUT_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_END);
    /* clang-format on */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return daemon;
}

static void admin_free(struct admin *admin)
{
    if (admin->unix_path != NULL) {
        unlink(admin->unix_path);
        free(admin->unix_path);
    }
    free(admin->probes);
    free(admin);
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
    struct admin *admin = xcalloc(1, sizeof *admin);
    admin->log = log;
    admin->unix_path = options->address->path != NULL ? xstrdup(options->address->path) : NULL;
    admin->probes = xcalloc(options->probe_count + 1, sizeof *admin->probes);
    for (uint32_t i = 0; i < options->probe_count; i++) {
        admin->probes[i] = options->probes[i];
    }
    routes_init(&admin->routes, admin->probes, options->probe_count, options->metrics);
    admin->daemon = start_daemon(admin, options, fd);
    if (admin->daemon == NULL) { /* the library has said why, and closed fd */
        log_error(log, "admin: can not start the HTTP server on %s", options->address->text);
        admin_free(admin);
        return ERR_IO;
    }
    log_info(log, "admin: listening on %s", options->address->text);
    *out = admin;
    return OK;
}

void admin_destroy(struct admin **admin)
{
    if (*admin == NULL) {
        return;
    }
    MHD_stop_daemon((*admin)->daemon); /* joins the thread, closes every socket */
    admin_free(*admin);
    *admin = NULL;
}
