#include "proxy/database/store.h"

#include <mysql.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

/* One source, two client libraries: MariaDB's Connector/C and Oracle's libmysqlclient. What differs is here, in set_tls() and in
 * connect_socket(). */
#ifdef LIBMARIADB
typedef my_bool db_bool;

static int socket_of(MYSQL *mysql)
{
    return (int)mysql_get_socket(mysql);
}
#else
typedef bool db_bool;

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
    ER_KILLED_MYSQL = 3169,
    ER_NOT_CONVERTIBLE = 3988, /* MySQL's ER_COLLATION_MIX */
    ER_IDLE_MYSQL = 4031,
    CR_FIRST_MARIADB = 5000,
    CR_LAST_MARIADB = 5999,
};

#define CELL_SIZE 64                    /* every number and date fits; what is longer is fetched by itself */
#define ASYNC_STACK (256U << 10)        /* of Connector/C's connecting coroutine: name resolution and TLS run on it */
#define PACKET_SLACK (64UL << 10)       /* of a row, beside its values */
#define PACKET_MAX (1UL << 30)          /* the protocol's own limit */

/* Where one column of a fetched row lands. */
struct cell {
    enum column_kind kind;
    unsigned long length; /* of the column's text, which may be longer than what has landed */
    db_bool is_null;
    db_bool is_cut;
    char *data;
};

/* A prepared SELECT of one source. */
struct statement {
    MYSQL *mysql; /* the connection's */
    MYSQL_STMT *stmt;
    const struct source *source;
    uint32_t column_count;
    bool is_key_binary; /* VARBINARY and the like; text and numbers can only equal keys that are UTF-8 */
    bool *is_guarded;   /* by value column */
    struct cell *cells;
    MYSQL_BIND *binds; /* of the cells */
    MYSQL_BIND param;
    char key[KEY_MAX];
    unsigned long key_len;
    char found_key[KEY_MAX + 1];
    char *texts; /* CELL_SIZE for each other column */
};

struct store_connection {
    struct store_options options;
    MYSQL *mysql;
    struct statement **statements; /* by source; NULL: not prepared yet */
    pthread_mutex_t mutex;         /* guards the next two */
    int fd;                        /* what interrupt() shuts down, -1: nothing */
    bool is_interrupted;
    bool is_fd_own; /* a duplicate: the library closes its own descriptor whenever it sees an error */
};

/* --- errors --- */

static bool is_client_error(unsigned code)
{
    return (code >= CR_FIRST && code <= CR_LAST) || (code >= CR_FIRST_MARIADB && code <= CR_LAST_MARIADB);
}

/* What an error means for a load. ERR_CONFLICT: the statement is out of date; OK: no row can equal this key. */
static enum err classify(unsigned code)
{
    switch (code) {
    case ER_COLLATION_MIX:
    case ER_WRONG_TEXT:
    case ER_WRONG_LITERAL:
    case ER_NOT_CONVERTIBLE:
        return OK;
    case ER_TIMEOUT_MARIADB:
    case ER_TIMEOUT_MYSQL:
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

static enum err fail(const struct source *source, enum err err, char *error, size_t size, const char *text, unsigned code)
{
    snprintf(error, size, "namespace %s, table %s: %s (%u)", source->namespace->name, source->config->table, text, code);
    return err;
}

/* What went wrong with a statement. Connector/C does not copy an error that arrives among the rows to the statement. */
static enum err fail_statement(const struct statement *s, char *error, size_t size)
{
    unsigned code = mysql_stmt_errno(s->stmt);
    const char *text = mysql_stmt_error(s->stmt);
    if (code == 0) {
        code = mysql_errno(s->mysql);
        text = mysql_error(s->mysql);
    }
    return fail(s->source, code == 0 ? ERR_CLOSED : classify(code), error, size, text, code);
}

/* --- connecting --- */

static struct store_connection *connection_open(const struct store_options *options)
{
    mysql_library_init(0, NULL, NULL);
    struct store_connection *c = xcalloc(1, sizeof *c);
    c->options = *options;
    c->statements = xcalloc(options->source_count, sizeof *c->statements);
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
 * columns without padding; and no statement that goes on for long after we have given it up. Each vendor skips the comment meant
 * for the other. */
static void set_session(MYSQL *mysql, const struct config_database *config)
{
    char text[256];
    snprintf(text, sizeof text,
             "SET SESSION autocommit=1, sql_mode='' /*M!100101 , max_statement_time=%" PRIu32 ".%03" PRIu32 " */ "
             "/*!50708 , max_execution_time=%" PRIu32 " */",
             config->timeout_ms / 1000, config->timeout_ms % 1000, config->timeout_ms);
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
    unsigned protocol = config->primary.path != NULL ? MYSQL_PROTOCOL_SOCKET : MYSQL_PROTOCOL_TCP;
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
    set_session(mysql, config);
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
    const struct address *at = &config->primary;
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

static enum err connection_connect(struct store_connection *c, char *error, size_t size)
{
    c->mysql = mysql_init(NULL);
    if (c->mysql == NULL) {
        snprintf(error, size, "%s", err_text(ERR_NOMEM));
        return ERR_NOMEM;
    }
    set_options(c);
    if (!connect_socket(c)) {
        snprintf(error, size, "%s: %s (%u)", c->options.config->primary.text, mysql_error(c->mysql), mysql_errno(c->mysql));
        return ERR_UNAVAILABLE;
    }
    int fd = fcntl(socket_of(c->mysql), F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        snprintf(error, size, "%s: %s", c->options.config->primary.text, strerror(errno));
        return ERR_IO;
    }
    c->is_fd_own = true;
    if (!publish(c, fd)) {
        snprintf(error, size, "%s", err_text(ERR_CLOSED));
        return ERR_CLOSED;
    }
    return OK;
}

static bool connection_is_alive(struct store_connection *c)
{
    /* Not POLLIN: TLS may have records of its own that nobody has asked for. */
    struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) == 0;
}

/* --- statements --- */

static void statement_destroy(struct statement **statement)
{
    struct statement *s = *statement;
    *statement = NULL;
    if (s == NULL) {
        return;
    }
    if (s->stmt != NULL) {
        mysql_stmt_close(s->stmt);
    }
    free(s->is_guarded);
    free(s->cells);
    free(s->binds);
    free(s->texts);
    free(s);
}

static enum column_kind kind_of(const MYSQL_FIELD *field)
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

/* Character strings, binary strings and what is kept like them. */
static bool is_string(const MYSQL_FIELD *field)
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

static bool is_binary(const MYSQL_FIELD *field)
{
    return is_string(field) && field->charsetnr == 63;
}

static enum err prepare_sql(struct statement *s, char *error, size_t size)
{
    char *sql = source_sql(s->source, s->is_guarded);
    s->stmt = sql != NULL ? mysql_stmt_init(s->mysql) : NULL;
    enum err err = OK;
    if (s->stmt == NULL) {
        err = fail(s->source, ERR_NOMEM, error, size, err_text(ERR_NOMEM), 0);
    } else if (mysql_stmt_prepare(s->stmt, sql, (unsigned long)strlen(sql)) != 0) {
        err = fail_statement(s, error, size);
        err = err == OK ? ERR_DATABASE : err; /* there is no key yet that could be at fault */
    }
    free(sql);
    return err;
}

/* Learns the columns' types. Values that may be longer than allowed, as the server says, are guarded in a second statement; only
 * those, because IF() does not keep every type's text as it is. */
static enum err inspect_columns(struct statement *s, bool *needs_guard, char *error, size_t size)
{
    MYSQL_RES *columns = mysql_stmt_result_metadata(s->stmt);
    if (columns == NULL || mysql_num_fields(columns) != s->column_count) {
        if (columns != NULL) {
            mysql_free_result(columns);
        }
        return fail(s->source, ERR_DATABASE, error, size, "the result has other columns than were asked for", 0);
    }
    *needs_guard = false;
    s->is_key_binary = is_binary(mysql_fetch_field_direct(columns, SOURCE_KEY));
    for (uint32_t i = 0; i < s->source->value_count; i++) {
        const MYSQL_FIELD *field = mysql_fetch_field_direct(columns, SOURCE_VALUES + i);
        s->cells[SOURCE_VALUES + i].kind = kind_of(field);
        if (!s->is_guarded[i] && is_string(field) && field->length > s->source->max_value_size) {
            s->is_guarded[i] = true;
            *needs_guard = true;
        }
    }
    mysql_free_result(columns);
    return OK;
}

static void bind_columns(struct statement *s)
{
    for (uint32_t i = 0; i < s->column_count; i++) {
        struct cell *cell = &s->cells[i];
        cell->data = i == SOURCE_KEY ? s->found_key : s->texts + (size_t)i * CELL_SIZE;
        s->binds[i] = (MYSQL_BIND){
            .buffer_type = MYSQL_TYPE_STRING,
            .buffer = cell->data,
            .buffer_length = i == SOURCE_KEY ? sizeof s->found_key : CELL_SIZE,
            .length = &cell->length,
            .is_null = &cell->is_null,
            .error = &cell->is_cut,
        };
    }
    /* A text parameter against a binary column would do, but a binary one against a text column would not use its index. */
    s->param = (MYSQL_BIND){
        .buffer_type = s->is_key_binary ? MYSQL_TYPE_BLOB : MYSQL_TYPE_STRING,
        .buffer = s->key,
        .buffer_length = sizeof s->key,
        .length = &s->key_len,
    };
}

static enum err statement_prepare(struct statement *s, char *error, size_t size)
{
    bool needs_guard = false;
    enum err err = prepare_sql(s, error, size);
    if (err == OK) {
        err = inspect_columns(s, &needs_guard, error, size);
    }
    if (err == OK && needs_guard) {
        bool still_needs_guard;
        mysql_stmt_close(s->stmt);
        err = prepare_sql(s, error, size);
        err = err == OK ? inspect_columns(s, &still_needs_guard, error, size) : err;
    }
    if (err != OK) {
        return err;
    }
    bind_columns(s);
    if (mysql_stmt_bind_param(s->stmt, &s->param) != 0 || mysql_stmt_bind_result(s->stmt, s->binds) != 0) {
        err = fail_statement(s, error, size);
        return err == OK ? ERR_DATABASE : err;
    }
    return OK;
}

/* The source's statement on this connection, prepared when it is first needed. */
static enum err statement_get(struct store_connection *c, uint32_t source, struct statement **out, char *error, size_t size)
{
    if (c->statements[source] == NULL) {
        struct statement *s = xcalloc(1, sizeof *s);
        s->mysql = c->mysql;
        s->source = &c->options.sources[source];
        s->column_count = SOURCE_VALUES + s->source->value_count;
        s->is_guarded = xcalloc(s->source->value_count, sizeof *s->is_guarded);
        s->cells = xcalloc(s->column_count, sizeof *s->cells);
        s->binds = xcalloc(s->column_count, sizeof *s->binds);
        s->texts = xcalloc(s->column_count, CELL_SIZE);
        enum err err = statement_prepare(s, error, size);
        if (err != OK) {
            statement_destroy(&s);
            return err;
        }
        c->statements[source] = s;
    }
    *out = c->statements[source];
    return OK;
}

/* Whether the table has been altered in a way that matters since the statement was prepared. */
static bool is_outdated(const struct statement *s)
{
    MYSQL_RES *columns = mysql_stmt_result_metadata(s->stmt);
    if (columns == NULL) {
        return true;
    }
    bool is_changed = mysql_num_fields(columns) != s->column_count ||
                      is_binary(mysql_fetch_field_direct(columns, SOURCE_KEY)) != s->is_key_binary;
    for (uint32_t i = 0; !is_changed && i < s->source->value_count; i++) {
        const MYSQL_FIELD *field = mysql_fetch_field_direct(columns, SOURCE_VALUES + i);
        is_changed = kind_of(field) != s->cells[SOURCE_VALUES + i].kind ||
                     (!s->is_guarded[i] && is_string(field) && field->length > s->source->max_value_size);
    }
    mysql_free_result(columns);
    return is_changed;
}

/* --- rows --- */

static struct span cell_text(const struct cell *cell)
{
    return cell->is_null ? span_of(cell->data, 0) : span_of(cell->data, MIN(cell->length, CELL_SIZE));
}

static int64_t cell_int(const struct cell *cell)
{
    char text[CELL_SIZE + 1];
    snprintf(text, sizeof text, "%.*s", SPAN_FMT(cell_text(cell)));
    return strtoll(text, NULL, 10);
}

static enum err fail_too_large(const struct statement *s, uint64_t len, char *error, size_t size)
{
    snprintf(error, size, "namespace %s, table %s: a value of %" PRIu64 " bytes, more than max_value_size",
             s->source->namespace->name, s->source->config->table, len);
    return ERR_TOO_LARGE;
}

/* All value columns, one behind the other in one chunk. */
static enum err fetch_values(struct statement *s, struct column *columns, struct chunk **out, char *error, size_t size)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < s->source->value_count; i++) {
        struct cell *cell = &s->cells[SOURCE_VALUES + i];
        total += cell->is_null ? 0 : cell->length;
        if (total > s->source->max_value_size) {
            return fail_too_large(s, total, error, size);
        }
    }
    struct chunk *chunk = chunk_get(NULL, total + ROW_VALUE_SLACK);
    if (chunk == NULL) {
        return fail(s->source, ERR_NOMEM, error, size, err_text(ERR_NOMEM), 0);
    }
    char *to = chunk->data;
    for (uint32_t i = 0; i < s->source->value_count; i++) {
        struct cell *cell = &s->cells[SOURCE_VALUES + i];
        size_t len = cell->is_null ? 0 : cell->length;
        columns[i] = (struct column){.kind = cell->kind, .is_null = cell->is_null != 0, .bytes = span_of(to, len)};
        if (len <= CELL_SIZE) {
            memcpy(to, cell->data, len);
        } else {
            MYSQL_BIND bind = s->binds[SOURCE_VALUES + i];
            bind.buffer = to;
            bind.buffer_length = len;
            if (mysql_stmt_fetch_column(s->stmt, &bind, SOURCE_VALUES + i, 0) != 0) {
                chunk_unref(&chunk);
                return fail_statement(s, error, size);
            }
        }
        to += len;
    }
    *out = chunk;
    return OK;
}

static enum err read_values(struct statement *s, struct row *row, char *error, size_t size)
{
    struct column *columns = xcalloc(s->source->value_count, sizeof *columns);
    struct chunk *chunk = NULL;
    enum err err = fetch_values(s, columns, &chunk, error, size);
    if (err != OK) {
        goto out;
    }
    if (s->source->is_json) {
        err = source_json(s->source, columns, row);
        if (err != OK) {
            fail(s->source, err, error, size, err == ERR_TOO_LARGE ? "the JSON object exceeds max_value_size" : err_text(err), 0);
        }
        row->found = err == OK;
    } else if (!columns[0].is_null) {
        row->found = true;
        row->value = chunk;
        row->value_len = columns[0].bytes.len;
        chunk = NULL;
    }
out:
    chunk_unref(&chunk);
    free(columns);
    return err;
}

/* The row at hand, whose key is the one that was asked for. */
static enum err read_row(struct statement *s, struct row *row, char *error, size_t size)
{
    const struct cell *expires = &s->cells[SOURCE_EXPIRES];
    struct span flags = cell_text(&s->cells[SOURCE_FLAGS]);
    uint64_t guarded_size = (uint64_t)cell_int(&s->cells[SOURCE_SIZE]);
    if (!expires->is_null && !source_expiry(cell_int(expires), &row->expires_in_s)) {
        return OK;
    }
    if (source_flags(flags, &row->flags) != OK) {
        char text[128];
        const char *name = s->source->config->flags_column;
        snprintf(text, sizeof text, "column %s is not an unsigned 32-bit number: %.*s", name, SPAN_FMT(flags));
        return fail(s->source, ERR_DATABASE, error, size, text, 0);
    }
    if (guarded_size > s->source->max_value_size) {
        return fail_too_large(s, guarded_size, error, size);
    }
    return read_values(s, row, error, size);
}

static bool is_key_equal(const struct statement *s)
{
    const struct cell *key = &s->cells[SOURCE_KEY];
    return !key->is_null && key->length == s->key_len && memcmp(s->found_key, s->key, s->key_len) == 0;
}

/* Looks for the one row among those that the database calls equal. */
static enum err fetch_row(struct statement *s, struct row *row, char *error, size_t size)
{
    for (;;) {
        int got = mysql_stmt_fetch(s->stmt);
        if (got == MYSQL_NO_DATA) {
            return OK;
        }
        if (got != 0 && got != MYSQL_DATA_TRUNCATED) {
            return fail_statement(s, error, size);
        }
        if (is_key_equal(s)) {
            return read_row(s, row, error, size);
        }
    }
}

static enum err statement_run(struct statement *s, struct span key, struct row *row, char *error, size_t size)
{
    if (key.len > sizeof s->key || (!s->is_key_binary && !source_is_utf8(key))) {
        return OK;
    }
    memcpy(s->key, key.data, key.len);
    s->key_len = (unsigned long)key.len;
    if (mysql_stmt_execute(s->stmt) != 0) {
        return fail_statement(s, error, size);
    }
    enum err err = is_outdated(s) ? ERR_CONFLICT : fetch_row(s, row, error, size);
    mysql_stmt_free_result(s->stmt);
    return err;
}

static enum err connection_load(struct store_connection *c, uint32_t source, struct span key, struct row *out, char *error,
                                size_t size)
{
    struct row row;
    enum err err = ERR_CONFLICT;
    snprintf(error, size, "namespace %s: the table keeps changing", c->options.sources[source].namespace->name);
    for (int attempt = 0; attempt < 2 && err == ERR_CONFLICT; attempt++) {
        struct statement *s = NULL;
        row = (struct row){.expires_in_s = -1};
        err = statement_get(c, source, &s, error, size);
        if (err == OK) {
            err = statement_run(s, key, &row, error, size);
        }
        if (err == ERR_CONFLICT || err == ERR_DATABASE) {
            statement_destroy(&c->statements[source]); /* as the table is now, the next one may do */
        }
    }
    if (err == OK) {
        *out = row;
    }
    return err == ERR_CONFLICT ? ERR_DATABASE : err;
}

static void connection_close(struct store_connection **connection)
{
    struct store_connection *c = *connection;
    *connection = NULL;
    if (c == NULL) {
        return;
    }
    for (uint32_t i = 0; i < c->options.source_count; i++) {
        statement_destroy(&c->statements[i]);
    }
    free(c->statements);
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
    .load = connection_load,
    .is_alive = connection_is_alive,
    .interrupt = connection_interrupt,
    .close = connection_close,
};
