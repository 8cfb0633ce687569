#include "proxy/admin/http.h"

#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <strings.h>
#include <unistd.h>

#include "common/base.h"
#include "proxy/net/listener.h"

#define MAX_CONNECTIONS 64U
#define TIMEOUT_S 10U
#define CONNECTION_MEMORY 32768 /* request line and headers must fit, and a read buffer beside them */
#define BODY_MAX 65536
#define JOB_BODY_MAX (1U << 20) /* of POST /invalidate */
#define INVALIDATE_PREFIX "/cache/"

struct admin {
    struct log *log;
    struct MHD_Daemon *daemon;
    struct admin_probe *probes;
    struct routes routes;
    struct invalidator invalidator;
    char *unix_path; /* to be removed at the end, or NULL */

    pthread_mutex_t jobs_lock;
    pthread_cond_t jobs_ended;
    uint32_t jobs; /* invalidations under way */
    bool is_stopping;
};

/* One request under way. */
struct exchange {
    struct admin *admin;
    struct MHD_Connection *connection;
    bool keeps_body; /* else it is read, so that the client gets to its answer, and dropped */
    size_t body_len; /* received so far */
    char *body;
    struct job *job; /* an invalidation that was started, or NULL */
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

/* What an answer is made of: a request, an invalidation that is done, or an error. */
struct subject {
    const struct http_request *request;
    const struct job *job;
    unsigned status;
    const char *code;
    const char *message; /* as http_response_error() wants it */
};

/* Composes the response in memory. */
static enum MHD_Result answer(struct admin *admin, struct MHD_Connection *connection, const struct subject *subject)
{
    char *body = NULL;
    size_t len = 0;
    struct http_response response = {.body = open_memstream(&body, &len)};
    if (response.body == NULL) {
        return MHD_NO;
    }
    if (subject->request != NULL) {
        routes_dispatch(&admin->routes, subject->request, &response);
    } else if (subject->job != NULL) {
        job_write(subject->job, &response);
    } else {
        http_response_error(&response, subject->status, subject->code, subject->message);
    }
    bool is_whole = ferror(response.body) == 0;
    if (fclose(response.body) != 0 || !is_whole) { /* out of memory */
        free(body);
        return MHD_NO;
    }
    return send_response(connection, &response, body, len);
}

static bool is_body_announced_too_large(struct MHD_Connection *connection, size_t max)
{
    const char *text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return text != NULL && strtoull(text, NULL, 10) > max;
}

static enum MHD_Result refuse(struct admin *admin, struct MHD_Connection *connection, unsigned status, const char *code, const char *message)
{
    return answer(admin, connection, &(struct subject){.status = status, .code = code, .message = message});
}

/* --- invalidations --- */

static bool is_post(const char *method, const char *url)
{
    return strcmp(method, "POST") == 0 && strcmp(url, "/invalidate") == 0;
}

static bool is_invalidation(const char *method, const char *url)
{
    return is_post(method, url) ||
           (strcmp(method, "INVALIDATE") == 0 && strncmp(url, INVALIDATE_PREFIX, sizeof INVALIDATE_PREFIX - 1) == 0);
}

/* So that no web page that somebody on this host looks at can send one: for these types a browser asks first, and is refused. */
static bool is_json(struct MHD_Connection *connection)
{
    const char *type = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);
    return type != NULL && strncasecmp(type, "application/json", 16) == 0;
}

/* On any thread. */
static void on_job_done(void *ctx)
{
    struct exchange *exchange = ctx;
    struct admin *admin = exchange->admin;
    struct MHD_Connection *connection = exchange->connection;
    pthread_mutex_lock(&admin->jobs_lock);
    MHD_resume_connection(connection); /* from here on the exchange is the server's again */
    admin->jobs--;
    pthread_cond_signal(&admin->jobs_ended);
    pthread_mutex_unlock(&admin->jobs_lock);
}

static bool begin_job(struct admin *admin)
{
    pthread_mutex_lock(&admin->jobs_lock);
    bool may = !admin->is_stopping;
    admin->jobs += may;
    pthread_mutex_unlock(&admin->jobs_lock);
    return may;
}

/* Error messages go into JSON as they are. */
static void make_plain(char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\' || (unsigned char)*text < ' ') {
            *text = '\'';
        }
    }
}

static enum MHD_Result invalidate(struct admin *admin, struct MHD_Connection *connection, struct exchange *exchange, const char *method,
                                  const char *url)
{
    const struct invalidator *invalidator = &admin->invalidator;
    char why[RULES_TEXT] = "";
    if (invalidator->is_refused) {
        return refuse(admin, connection, MHD_HTTP_FORBIDDEN, "forbidden", "not where other hosts can ask for it (admin.public)");
    }
    enum err err;
    if (!is_post(method, url)) {
        err = job_create(invalidator, span_str(url + sizeof INVALIDATE_PREFIX - 1), &exchange->job, why, sizeof why);
    } else if (!is_json(connection)) {
        return refuse(admin, connection, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Content-Type is to be application/json");
    } else {
        err = job_create_json(invalidator, span_of(exchange->body, exchange->body_len), &exchange->job, why, sizeof why);
    }
    if (err != OK) {
        make_plain(why);
        return refuse(admin, connection, MHD_HTTP_BAD_REQUEST, "invalid", why);
    }
    if (!begin_job(admin)) {
        job_destroy(&exchange->job);
        return refuse(admin, connection, MHD_HTTP_SERVICE_UNAVAILABLE, "stopping", err_text(ERR_STOPPING));
    }
    exchange->connection = connection;
    MHD_suspend_connection(connection);
    job_start(exchange->job, on_job_done, exchange);
    return MHD_YES;
}

static bool keep_body(struct exchange *exchange, const char *data, size_t len)
{
    if (exchange->body_len + len > (exchange->keeps_body ? JOB_BODY_MAX : BODY_MAX)) {
        return false;
    }
    if (exchange->keeps_body) {
        char *body = realloc(exchange->body, exchange->body_len + len);
        if (body == NULL) {
            return false;
        }
        memcpy(body + exchange->body_len, data, len);
        exchange->body = body;
    }
    exchange->body_len += len;
    return true;
}

/* libmicrohttpd calls this once when the headers are there, once for each piece of the body, and once at its end. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_len, void **request_ctx)
{
    struct admin *admin = ctx;
    struct exchange *exchange = *request_ctx;
    if (exchange == NULL) {
        exchange = xcalloc(1, sizeof *exchange);
        exchange->admin = admin;
        exchange->keeps_body = admin->invalidator.rules != NULL && is_post(method, url);
        *request_ctx = exchange;
        if (is_body_announced_too_large(connection, exchange->keeps_body ? JOB_BODY_MAX : BODY_MAX)) {
            return refuse(admin, connection, MHD_HTTP_CONTENT_TOO_LARGE, "too_large", "the body is too large");
        }
        return MHD_YES;
    }
    if (*data_len > 0) {
        size_t len = *data_len;
        *data_len = 0;
        return keep_body(exchange, data, len) ? MHD_YES : MHD_NO;
    }
    if (exchange->job != NULL) { /* resumed */
        return answer(admin, connection, &(struct subject){.job = exchange->job});
    }
    if (admin->invalidator.rules != NULL && is_invalidation(method, url)) {
        return invalidate(admin, connection, exchange, method, url);
    }
    struct http_request request = {.method = method, .path = url};
    return answer(admin, connection, &(struct subject){.request = &request});
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **request_ctx, enum MHD_RequestTerminationCode code)
{
    struct exchange *exchange = *request_ctx;
    if (exchange != NULL) {
        job_destroy(&exchange->job);
        free(exchange->body);
        free(exchange);
    }
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
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_USE_ERROR_LOG | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, admin,
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
    pthread_mutex_destroy(&admin->jobs_lock);
    pthread_cond_destroy(&admin->jobs_ended);
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
    admin->invalidator = options->invalidator;
    pthread_mutex_init(&admin->jobs_lock, NULL);
    pthread_cond_init(&admin->jobs_ended, NULL);
    admin->unix_path = options->address->path != NULL ? xstrdup(options->address->path) : NULL;
    admin->probes = xcalloc(options->probe_count + 1, sizeof *admin->probes);
    for (uint32_t i = 0; i < options->probe_count; i++) {
        admin->probes[i] = options->probes[i];
    }
    routes_init(&admin->routes, admin->probes, options->probe_count, options->metrics);
    admin->routes.rules = options->invalidator.rules;
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
    struct admin *a = *admin;
    pthread_mutex_lock(&a->jobs_lock); /* each ends within the timeouts of node and bus, whose threads are still there */
    a->is_stopping = true;
    while (a->jobs > 0) {
        pthread_cond_wait(&a->jobs_ended, &a->jobs_lock);
    }
    pthread_mutex_unlock(&a->jobs_lock);
    MHD_stop_daemon(a->daemon); /* joins the thread, closes every socket */
    admin_free(*admin);
    *admin = NULL;
}
