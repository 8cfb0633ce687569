#include "proxy/database/store_mysql.h"

#include <inttypes.h>

#define CELL_SIZE 64 /* every number and date fits; what is longer is fetched by itself */

/* Where one column of a fetched row lands. */
struct cell {
    enum column_kind kind;
    unsigned long length; /* of the column's text, which may be longer than what has landed */
    db_bool is_null;
    db_bool is_cut;
    char *data;
};

/* A prepared SELECT of one source. */
struct load_statement {
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

static enum err fail_statement(const struct load_statement *s, char *error, size_t size)
{
    return store_mysql_fail_stmt(s->source, s->mysql, s->stmt, error, size);
}

/* --- statements --- */

static void statement_destroy(struct load_statement **statement)
{
    struct load_statement *s = *statement;
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

static enum err prepare_sql(struct load_statement *s, char *error, size_t size)
{
    char *sql = source_sql(s->source, s->is_guarded);
    s->stmt = sql != NULL ? mysql_stmt_init(s->mysql) : NULL;
    enum err err = OK;
    if (s->stmt == NULL) {
        err = store_mysql_fail(s->source, ERR_NOMEM, error, size, err_text(ERR_NOMEM), 0);
    } else if (mysql_stmt_prepare(s->stmt, sql, (unsigned long)strlen(sql)) != 0) {
        err = fail_statement(s, error, size);
        err = err == OK ? ERR_DATABASE : err; /* there is no key yet that could be at fault */
    }
    free(sql);
    return err;
}

/* Learns the columns' types. Values that may be longer than allowed, as the server says, are guarded in a second statement; only
 * those, because IF() does not keep every type's text as it is. */
static enum err inspect_columns(struct load_statement *s, bool *needs_guard, char *error, size_t size)
{
    MYSQL_RES *columns = mysql_stmt_result_metadata(s->stmt);
    if (columns == NULL || mysql_num_fields(columns) != s->column_count) {
        if (columns != NULL) {
            mysql_free_result(columns);
        }
        return store_mysql_fail(s->source, ERR_DATABASE, error, size, "the result has other columns than were asked for", 0);
    }
    *needs_guard = false;
    s->is_key_binary = store_mysql_is_binary(mysql_fetch_field_direct(columns, SOURCE_KEY));
    for (uint32_t i = 0; i < s->source->value_count; i++) {
        const MYSQL_FIELD *field = mysql_fetch_field_direct(columns, SOURCE_VALUES + i);
        s->cells[SOURCE_VALUES + i].kind = store_mysql_kind_of(field);
        if (!s->is_guarded[i] && store_mysql_is_string(field) && field->length > s->source->max_value_size) {
            s->is_guarded[i] = true;
            *needs_guard = true;
        }
    }
    mysql_free_result(columns);
    return OK;
}

static void bind_columns(struct load_statement *s)
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

static enum err statement_prepare(struct load_statement *s, char *error, size_t size)
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
static enum err statement_get(struct store_connection *c, uint32_t source, struct load_statement **out, char *error, size_t size)
{
    if (c->loads[source] == NULL) {
        struct load_statement *s = xcalloc(1, sizeof *s);
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
        c->loads[source] = s;
    }
    *out = c->loads[source];
    return OK;
}

/* Whether the table has been altered in a way that matters since the statement was prepared. */
static bool is_outdated(const struct load_statement *s)
{
    MYSQL_RES *columns = mysql_stmt_result_metadata(s->stmt);
    if (columns == NULL) {
        return true;
    }
    bool is_changed = mysql_num_fields(columns) != s->column_count ||
                      store_mysql_is_binary(mysql_fetch_field_direct(columns, SOURCE_KEY)) != s->is_key_binary;
    for (uint32_t i = 0; !is_changed && i < s->source->value_count; i++) {
        const MYSQL_FIELD *field = mysql_fetch_field_direct(columns, SOURCE_VALUES + i);
        is_changed = store_mysql_kind_of(field) != s->cells[SOURCE_VALUES + i].kind ||
                     (!s->is_guarded[i] && store_mysql_is_string(field) && field->length > s->source->max_value_size);
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

static enum err fail_too_large(const struct load_statement *s, uint64_t len, char *error, size_t size)
{
    snprintf(error, size, "namespace %s, table %s: a value of %" PRIu64 " bytes, more than max_value_size",
             s->source->namespace->name, s->source->config->table, len);
    return ERR_TOO_LARGE;
}

/* All value columns, one behind the other in one chunk. */
static enum err fetch_values(struct load_statement *s, struct column *columns, struct chunk **out, char *error, size_t size)
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
        return store_mysql_fail(s->source, ERR_NOMEM, error, size, err_text(ERR_NOMEM), 0);
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

static enum err read_values(struct load_statement *s, struct row *row, char *error, size_t size)
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
            store_mysql_fail(s->source, err, error, size, err == ERR_TOO_LARGE ? "the JSON object exceeds max_value_size" : err_text(err), 0);
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
static enum err read_row(struct load_statement *s, struct row *row, char *error, size_t size)
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
        return store_mysql_fail(s->source, ERR_DATABASE, error, size, text, 0);
    }
    if (guarded_size > s->source->max_value_size) {
        return fail_too_large(s, guarded_size, error, size);
    }
    return read_values(s, row, error, size);
}

static bool is_key_equal(const struct load_statement *s)
{
    const struct cell *key = &s->cells[SOURCE_KEY];
    return !key->is_null && key->length == s->key_len && memcmp(s->found_key, s->key, s->key_len) == 0;
}

/* Looks for the one row among those that the database calls equal. */
static enum err fetch_row(struct load_statement *s, struct row *row, char *error, size_t size)
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

static enum err statement_run(struct load_statement *s, struct span key, struct row *row, char *error, size_t size)
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

enum err store_mysql_load(struct store_connection *c, uint32_t source, struct span key, struct row *out, char *error,
                                size_t size)
{
    struct row row;
    enum err err = ERR_CONFLICT;
    snprintf(error, size, "namespace %s: the table keeps changing", c->options.sources[source].namespace->name);
    for (int attempt = 0; attempt < 2 && err == ERR_CONFLICT; attempt++) {
        struct load_statement *s = NULL;
        row = (struct row){.expires_in_s = -1};
        err = statement_get(c, source, &s, error, size);
        if (err == OK) {
            err = statement_run(s, key, &row, error, size);
        }
        if (err == ERR_CONFLICT || err == ERR_DATABASE) {
            statement_destroy(&c->loads[source]); /* as the table is now, the next one may do */
        }
    }
    if (err == OK) {
        *out = row;
    }
    return err == ERR_CONFLICT ? ERR_DATABASE : err;
}

void store_mysql_load_close(struct store_connection *c)
{
    for (uint32_t i = 0; i < c->options.source_count; i++) {
        statement_destroy(&c->loads[i]);
    }
    free(c->loads);
    c->loads = NULL;
}
