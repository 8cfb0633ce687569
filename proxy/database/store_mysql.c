#include "proxy/database/store_mysql.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

/* One source, two client libraries: MariaDB's Connector/C and Oracle's libmysqlclient. What differs is here, in set_tls() and in
 * connect_socket(). */
#ifdef LIBMARIADB
static int socket_of(MYSQL *mysql)
{
    return (int)mysql_get_socket(mysql);
}
#else
static int socket_of(MYSQL *mysql)
{
    return (int)mysql->net.fd;
}
#endif

/* Error numbers of servers and client libraries; not every vendor's headers have them all. */
enum mysql_errno {
    ER_SHUTTING_DOWN = 1053,
    ER_ABORTING = 1152,
    ER_STATEMENT_UNKNOWN = 1243,
    ER_COLLATION_MIX = 1267, /* the key has characters that the key column's character set has not */
    ER_WRONG_TEXT = 1292, /* the key can not be a value of the key column's type */
    ER_WRONG_LITERAL = 1525,
    ER_REPREPARE = 1615,
    ER_KILLED_MARIADB = 1927,
    ER_TIMEOUT_MARIADB = 1969,
    CR_FIRST = 2000, /* client errors */
    CR_STATEMENT_CHANGED = 2057,
    CR_LAST = 2999,
    ER_TIMEOUT_MYSQL = 3024,
    ER_LOCKED = 1205, /* "Lock wait timeout exceeded" */
    ER_KILLED_MYSQL = 3169,
    ER_NOT_CONVERTIBLE = 3988, /* MySQL's ER_COLLATION_MIX */
    ER_IDLE_MYSQL = 4031,
    CR_FIRST_MARIADB = 5000,
    CR_LAST_MARIADB = 5999,
};

#define ASYNC_STACK (256U << 10)  /* of Connector/C's connecting coroutine: name resolution and TLS run on it */
#define PACKET_SLACK (64UL << 10) /* of a row, beside its values */
#define PACKET_MAX (1UL << 30)    /* the protocol's own limit */

/* --- errors --- */

static bool is_client_error(unsigned code)
{
    return (code >= CR_FIRST && code <= CR_LAST) || (code >= CR_FIRST_MARIADB && code <= CR_LAST_MARIADB);
}

enum err store_mysql_classify(unsigned code)
{
    switch (code) {
    case ER_COLLATION_MIX:
    case ER_WRONG_TEXT:
    case ER_WRONG_LITERAL:
    case ER_NOT_CONVERTIBLE:
        return OK;
    case ER_TIMEOUT_MARIADB:
    case ER_TIMEOUT_MYSQL:
    case ER_LOCKED:
        return ERR_TIMEOUT;
    case ER_STATEMENT_UNKNOWN:
    case ER_REPREPARE:
    case CR_STATEMENT_CHANGED:
        return ERR_CONFLICT;
    case ER_SHUTTING_DOWN:
    case ER_ABORTING:
    case ER_KILLED_MARIADB:
    case ER_KILLED_MYSQL:
    case ER_IDLE_MYSQL:
        return ERR_CLOSED;
    default:
        /* After any client error nobody knows what is still on the wire. */
        return is_client_error(code) ? ERR_CLOSED : ERR_DATABASE;
    }
}

enum err store_mysql_fail(const struct source *source, enum err err, char *error, size_t size, const char *text, unsigned code)
{
    snprintf(error, size, "namespace %s, table %s: %s (%u)", source->namespace->name, source->config->table, text, code);
    return err;
}

enum err store_mysql_fail_stmt(const struct source *source, MYSQL *mysql, MYSQL_STMT *stmt, char *error, size_t size)
{
    unsigned code = mysql_stmt_errno(stmt);
    const char *text = mysql_stmt_error(stmt);
    if (code == 0) {
        code = mysql_errno(mysql);
        text = mysql_error(mysql);
    }
    return store_mysql_fail(source, code == 0 ? ERR_CLOSED : store_mysql_classify(code), error, size, text, code);
}

bool store_mysql_is_writable(struct span read_only)
{
    return span_eq(read_only, SPAN_LIT("0")) || span_eq(read_only, SPAN_LIT("OFF"));
}

/* --- columns --- */

enum column_kind store_mysql_kind_of(const MYSQL_FIELD *field)
{
    switch (field->type) {
    case MYSQL_TYPE_TINY:
    case MYSQL_TYPE_SHORT:
    case MYSQL_TYPE_INT24:
    case MYSQL_TYPE_LONG:
    case MYSQL_TYPE_LONGLONG:
    case MYSQL_TYPE_FLOAT:
    case MYSQL_TYPE_DOUBLE:
    case MYSQL_TYPE_DECIMAL:
    case MYSQL_TYPE_NEWDECIMAL:
    case MYSQL_TYPE_YEAR:
        return COLUMN_NUMBER;
    case MYSQL_TYPE_BIT:
        return COLUMN_BITS;
    default:
        return COLUMN_TEXT;
    }
}

bool store_mysql_is_string(const MYSQL_FIELD *field)
{
    switch (field->type) {
    case MYSQL_TYPE_VARCHAR:
    case MYSQL_TYPE_VAR_STRING:
    case MYSQL_TYPE_STRING:
    case MYSQL_TYPE_TINY_BLOB:
    case MYSQL_TYPE_MEDIUM_BLOB:
    case MYSQL_TYPE_LONG_BLOB:
    case MYSQL_TYPE_BLOB:
    case MYSQL_TYPE_GEOMETRY:
    case MYSQL_TYPE_JSON:
        return true;
    default:
        return false;
    }
}

bool store_mysql_is_binary(const MYSQL_FIELD *field)
{
    return store_mysql_is_string(field) && field->charsetnr == 63;
}

bool store_mysql_is_integer(const MYSQL_FIELD *field)
{
    switch (field->type) {
    case MYSQL_TYPE_TINY:
    case MYSQL_TYPE_SHORT:
    case MYSQL_TYPE_INT24:
    case MYSQL_TYPE_LONG:
    case MYSQL_TYPE_LONGLONG:
        return true;
    default:
        return false;
    }
}

/* --- connecting --- */

static struct store_connection *connection_open(const struct store_options *options)
{
    mysql_library_init(0, NULL, NULL);
    struct store_connection *c = xcalloc(1, sizeof *c);
    c->options = *options;
    c->loads = xcalloc((size_t)options->source_count * STORE_MYSQL_LOADS, sizeof *c->loads);
    c->fd = -1;
    pthread_mutex_init(&c->mutex, NULL);
    return c;
}

/* Lets interrupt() reach the socket; false if it has been called already. */
static bool publish(struct store_connection *c, int fd)
{
    pthread_mutex_lock(&c->mutex);
    bool is_wanted = !c->is_interrupted;
    c->fd = fd;
    pthread_mutex_unlock(&c->mutex);
    return is_wanted;
}

static void connection_interrupt(struct store_connection *c)
{
    pthread_mutex_lock(&c->mutex);
    c->is_interrupted = true;
    if (c->fd >= 0) {
        shutdown(c->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&c->mutex);
}

static void set_tls(MYSQL *mysql, const char *ca)
{
#ifdef LIBMARIADB
    my_bool yes = 1;
    mysql_options(mysql, MYSQL_OPT_SSL_ENFORCE, &yes);
    mysql_options(mysql, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &yes);
#else
    unsigned mode = SSL_MODE_VERIFY_IDENTITY;
    mysql_options(mysql, MYSQL_OPT_SSL_MODE, &mode);
#endif
    mysql_options(mysql, MYSQL_OPT_SSL_CA, ca);
}

/* What the session must be, whatever the server's defaults are: every SELECT by itself, seeing all that is committed; CHAR
 * columns without padding; for a writer, errors instead of values that are cut to fit; and no statement that goes on for long after we have given it up. A locking load is told that a
 * row is locked before its deadline, where seconds allow: then that is an answer, and no failure of the database. Each vendor skips the comment meant for the other. */
static void set_session(MYSQL *mysql, const struct config_database *config, bool is_writer)
{
    char text[320];
    snprintf(text, sizeof text,
             "SET SESSION autocommit=1, innodb_lock_wait_timeout=%" PRIu32 ", sql_mode='%s' /*M!100101 , max_statement_time=%" PRIu32 ".%03" PRIu32 " */ "
             "/*!50708 , max_execution_time=%" PRIu32 " */",
             MAX(config->timeout_ms / (is_writer ? 1000 : 2000), 1), is_writer ? "STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO" : "", config->timeout_ms / 1000,
             config->timeout_ms % 1000, config->timeout_ms);
    mysql_options(mysql, MYSQL_INIT_COMMAND, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    mysql_options(mysql, MYSQL_INIT_COMMAND, text);
    mysql_options(mysql, MYSQL_SET_CHARSET_NAME, "utf8mb4");
}

static void set_options(struct store_connection *c)
{
    const struct config_database *config = c->options.config;
    MYSQL *mysql = c->mysql;
    unsigned connect_s = (config->connect_timeout_ms + 999) / 1000;
    unsigned io_s = MAX(config->timeout_ms, config->connect_timeout_ms) / 1000 + 2; /* later than the loader's watchdog */
    unsigned protocol = c->options.address->path != NULL ? MYSQL_PROTOCOL_SOCKET : MYSQL_PROTOCOL_TCP;
    unsigned no = 0;
    size_t columns = 1;
    for (uint32_t i = 0; i < c->options.source_count; i++) {
        columns = MAX(columns, c->options.sources[i].value_count);
    }
    unsigned long packet = (unsigned long)MIN(c->options.max_value_size * columns + PACKET_SLACK, PACKET_MAX);
    mysql_options(mysql, MYSQL_OPT_CONNECT_TIMEOUT, &connect_s);
    mysql_options(mysql, MYSQL_OPT_READ_TIMEOUT, &io_s);
    mysql_options(mysql, MYSQL_OPT_WRITE_TIMEOUT, &io_s);
    mysql_options(mysql, MYSQL_OPT_PROTOCOL, &protocol);
    mysql_options(mysql, MYSQL_OPT_LOCAL_INFILE, &no); /* a server could ask for our files */
    mysql_options(mysql, MYSQL_OPT_MAX_ALLOWED_PACKET, &packet);
    set_session(mysql, config, c->options.is_writer);
    if (config->tls_ca != NULL) {
        set_tls(mysql, config->tls_ca);
    }
}

#ifdef LIBMARIADB
/* Waits for what the library waits for; says that the time is over when it is, or when nobody wants the connection any more. */
static int wait_for_socket(struct store_connection *c, int wanted, uint64_t deadline_us)
{
    uint64_t now = clock_mono_us();
    int fd = socket_of(c->mysql);
    int got = MYSQL_WAIT_TIMEOUT;
    if (publish(c, fd) && fd >= 0 && now < deadline_us) {
        struct pollfd p = {.fd = fd};
        p.events = (short)((wanted & MYSQL_WAIT_READ ? POLLIN : 0) | (wanted & MYSQL_WAIT_WRITE ? POLLOUT : 0) |
                           (wanted & MYSQL_WAIT_EXCEPT ? POLLPRI : 0));
        int n = poll(&p, 1, (int)((deadline_us - now) / 1000) + 1);
        bool is_broken = n > 0 && (p.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
        if (is_broken) {
            got = wanted & (MYSQL_WAIT_READ | MYSQL_WAIT_WRITE);
        } else if (n > 0) {
            got = (p.revents & POLLIN ? MYSQL_WAIT_READ : 0) | (p.revents & POLLOUT ? MYSQL_WAIT_WRITE : 0) |
                  (p.revents & POLLPRI ? MYSQL_WAIT_EXCEPT : 0);
        } else if (n < 0 && errno == EINTR) {
            got = 0;
        }
    }
    publish(c, -1); /* the library may close it now */
    return got;
}
#endif

/* mysql_real_connect, in a way that interrupt() can end. Oracle's library has no such way for all of connecting; there
 * connect_timeout bounds it. */
static bool connect_socket(struct store_connection *c)
{
    const struct config_database *config = c->options.config;
    const struct address *at = c->options.address;
    MYSQL *connected = NULL;
#ifdef LIBMARIADB
    uint64_t deadline_us = clock_mono_us() + 1000ULL * config->connect_timeout_ms;
    mysql_options(c->mysql, MYSQL_OPT_NONBLOCK, &(size_t){ASYNC_STACK});
    int wanted = mysql_real_connect_start(&connected, c->mysql, at->host, config->user, config->password, config->schema,
                                          at->port, at->path, 0);
    while (wanted != 0) {
        wanted = mysql_real_connect_cont(&connected, c->mysql, wait_for_socket(c, wanted, deadline_us));
    }
#else
    connected = mysql_real_connect(c->mysql, at->host, config->user, config->password, config->schema, at->port, at->path, 0);
#endif
    return connected != NULL;
}

/* Of several primaries the one that is read-only is none. */
static enum err check_writable(struct store_connection *c, char *error, size_t size)
{
    MYSQL_RES *result = mysql_query(c->mysql, "SELECT @@global.read_only") == 0 ? mysql_store_result(c->mysql) : NULL;
    MYSQL_ROW row = result != NULL ? mysql_fetch_row(result) : NULL;
    enum err err = OK;
    if (row == NULL || row[0] == NULL) {
        snprintf(error, size, "%s: %s (%u)", c->options.address->text, mysql_error(c->mysql), mysql_errno(c->mysql));
        err = ERR_UNAVAILABLE;
    } else if (!store_mysql_is_writable(span_str(row[0]))) {
        snprintf(error, size, "%s: is read-only", c->options.address->text);
        err = ERR_UNSUPPORTED;
    }
    if (result != NULL) {
        mysql_free_result(result);
    }
    return err;
}

static enum err connection_connect(struct store_connection *c, char *error, size_t size)
{
    c->mysql = mysql_init(NULL);
    if (c->mysql == NULL) {
        snprintf(error, size, "%s", err_text(ERR_NOMEM));
        return ERR_NOMEM;
    }
    set_options(c);
    if (!connect_socket(c)) {
        snprintf(error, size, "%s: %s (%u)", c->options.address->text, mysql_error(c->mysql), mysql_errno(c->mysql));
        return ERR_UNAVAILABLE;
    }
    int fd = fcntl(socket_of(c->mysql), F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        snprintf(error, size, "%s: %s", c->options.address->text, strerror(errno));
        return ERR_IO;
    }
    c->is_fd_own = true;
    if (!publish(c, fd)) {
        snprintf(error, size, "%s", err_text(ERR_CLOSED));
        return ERR_CLOSED;
    }
    return c->options.role == STORE_PRIMARY_OF_SEVERAL ? check_writable(c, error, size) : OK;
}

static bool connection_is_alive(struct store_connection *c)
{
    /* Not POLLIN: TLS may have records of its own that nobody has asked for. */
    struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) == 0;
}

static void connection_close(struct store_connection **connection)
{
    struct store_connection *c = *connection;
    *connection = NULL;
    if (c == NULL) {
        return;
    }
    store_mysql_load_close(c);
    store_mysql_write_close(c);
    if (c->mysql != NULL) {
        mysql_close(c->mysql);
        mysql_thread_end();
    }
    if (c->is_fd_own) {
        close(c->fd);
    }
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

const struct store store_mysql = {
    .open = connection_open,
    .connect = connection_connect,
    .load = store_mysql_load,
    .write = store_mysql_write,
    .beat = store_mysql_beat,
    .describe = store_mysql_describe,
    .run = store_mysql_run,
    .is_alive = connection_is_alive,
    .interrupt = connection_interrupt,
    .close = connection_close,
};
