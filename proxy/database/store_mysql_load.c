#include "proxy/database/store_mysql.h"

#include <inttypes.h>

#define CELL_SIZE 64 /* every number and date fits; what is longer is fetched by itself */

/* Statements are prepared for so many keys; what is over is padded with a key that is asked for anyway. */
static const uint32_t shapes[STORE_MYSQL_SHAPES] = {1, 4, 16, 64, STORE_BATCH_MAX};

/* Where one column of a fetched row lands. */
struct cell {
    enum column_kind kind;
    unsigned long length; /* of the column's text, which may be longer than what has landed */
    db_bool is_null;
    db_bool is_cut;
    char *data;
};

struct key_column {
    bool is_binary; /* VARBINARY and the like; text and numbers can only equal fields that are UTF-8 */
    bool is_text;
    bool is_integer;
};

/* A prepared SELECT of one source. */
struct load_statement {
    MYSQL *mysql; /* the connection's */
    MYSQL_STMT *stmt;
    const struct source *source;
    const struct store_options *options; /* the connection's */
    uint32_t column_count;
    uint32_t key_count; /* parameters */
    bool is_locking;
    struct key_column key_columns[KEY_FIELDS_MAX];
    bool *is_guarded;   /* by value column */
    struct cell *cells;
    MYSQL_BIND *binds; /* of the cells */
    MYSQL_BIND *params; /* of the keys' fields: */
    char *keys;         /* KEY_MAX for each */
    unsigned long *key_lens;
    char *found_keys; /* KEY_MAX + 1 for each key column */
    char *texts;      /* CELL_SIZE for each column */
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
    free(s->params);
    free(s->keys);
    free(s->key_lens);
    free(s->found_keys);
    free(s->texts);
    free(s);
}

static enum err prepare_sql(struct load_statement *s, char *error, size_t size)
{
    char *witness = store_mysql_witness(s->options);
    struct source_select select = {.key_count = s->key_count, .is_guarded = s->is_guarded, .witness = witness, .is_locking = s->is_locking};
    char *sql = witness != NULL || s->options->role == STORE_PRIMARY ? source_sql(s->source, &select) : NULL;
    free(witness);
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

static struct key_column key_column_of(const MYSQL_FIELD *field)
{
    bool is_binary = store_mysql_is_binary(field);
    return (struct key_column){.is_binary = is_binary, .is_text = store_mysql_is_string(field) && !is_binary, .is_integer = store_mysql_is_integer(field)};
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
    for (uint32_t i = 0; i < s->source->key.count; i++) {
        s->key_columns[i] = key_column_of(mysql_fetch_field_direct(columns, source_key_at(s->source, i)));
    }
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
    uint32_t fields = s->source->key.count;
    for (uint32_t i = 0; i < s->column_count; i++) {
        struct cell *cell = &s->cells[i];
        cell->data = s->texts + (size_t)i * CELL_SIZE;
        s->binds[i] = (MYSQL_BIND){
            .buffer_type = MYSQL_TYPE_STRING,
            .buffer = cell->data,
            .buffer_length = CELL_SIZE,
            .length = &cell->length,
            .is_null = &cell->is_null,
            .error = &cell->is_cut,
        };
    }
    for (uint32_t i = 0; i < fields; i++) {
        uint32_t at = source_key_at(s->source, i);
        s->cells[at].data = s->found_keys + (size_t)i * (KEY_MAX + 1);
        s->binds[at].buffer = s->cells[at].data;
        s->binds[at].buffer_length = KEY_MAX + 1;
    }
    for (uint32_t i = 0; i < s->key_count * fields; i++) {
        /* A text parameter against a binary column would do, but a binary one against a text column would not use its index. */
        s->params[i] = (MYSQL_BIND){
            .buffer_type = s->key_columns[i % fields].is_binary ? MYSQL_TYPE_BLOB : MYSQL_TYPE_STRING,
            .buffer = s->keys + (size_t)i * KEY_MAX,
            .buffer_length = KEY_MAX,
            .length = &s->key_lens[i],
        };
    }
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
    if (mysql_stmt_bind_param(s->stmt, s->params) != 0 || mysql_stmt_bind_result(s->stmt, s->binds) != 0) {
        err = fail_statement(s, error, size);
        return err == OK ? ERR_DATABASE : err;
    }
    return OK;
}

static struct load_statement *statement_create(struct store_connection *c, uint32_t source, uint32_t key_count, bool is_locking)
{
    struct load_statement *s = xcalloc(1, sizeof *s);
    s->mysql = c->mysql;
    s->source = &c->options.sources[source];
    s->options = &c->options;
    s->key_count = key_count;
    s->is_locking = is_locking;
    s->column_count = source_column_count(s->source);
    uint32_t fields = s->source->key.count;
    s->is_guarded = xcalloc(s->source->value_count, sizeof *s->is_guarded);
    s->cells = xcalloc(s->column_count, sizeof *s->cells);
    s->binds = xcalloc(s->column_count, sizeof *s->binds);
    s->texts = xcalloc(s->column_count, CELL_SIZE);
    s->params = xcalloc(key_count * fields, sizeof *s->params);
    s->keys = xcalloc(key_count * fields, KEY_MAX);
    s->key_lens = xcalloc(key_count * fields, sizeof *s->key_lens);
    s->found_keys = xcalloc(fields, KEY_MAX + 1);
    return s;
}

/* The batch's statement for at least so many keys on this connection, prepared when it is first needed. */
static enum err statement_get(struct store_connection *c, const struct store_batch *batch, uint32_t count, struct load_statement ***out,
                              char *error, size_t size)
{
    uint32_t shape = 0;
    while (shapes[shape] < count) {
        shape++;
    }
    *out = &c->loads[batch->source * STORE_MYSQL_LOADS + (batch->is_locking ? STORE_MYSQL_SHAPES : 0) + shape];
    if (**out == NULL) {
        struct load_statement *s = statement_create(c, batch->source, shapes[shape], batch->is_locking);
        enum err err = statement_prepare(s, error, size);
        if (err != OK) {
            statement_destroy(&s);
            return err;
        }
        **out = s;
    }
    return OK;
}

/* Whether the table has been altered in a way that matters since the statement was prepared. */
static bool is_outdated(const struct load_statement *s)
{
    MYSQL_RES *columns = mysql_stmt_result_metadata(s->stmt);
    if (columns == NULL) {
        return true;
    }
    bool is_changed = mysql_num_fields(columns) != s->column_count;
    for (uint32_t i = 0; !is_changed && i < s->source->key.count; i++) {
        struct key_column now = key_column_of(mysql_fetch_field_direct(columns, source_key_at(s->source, i)));
        const struct key_column *was = &s->key_columns[i];
        is_changed = now.is_binary != was->is_binary || now.is_text != was->is_text || now.is_integer != was->is_integer;
    }
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
    if (s->source->config->version_column != NULL) {
        struct span version = cell_text(&s->cells[source_version_at(s->source)]);
        if (source_version(version, &row->version) != OK) {
            char text[128];
            const char *name = s->source->config->version_column;
            snprintf(text, sizeof text, "column %s is not an unsigned 64-bit number: %.*s", name, SPAN_FMT(version));
            return store_mysql_fail(s->source, ERR_DATABASE, error, size, text, 0);
        }
    }
    if (guarded_size > s->source->max_value_size) {
        return fail_too_large(s, guarded_size, error, size);
    }
    return read_values(s, row, error, size);
}

static bool is_field_sociable(const struct key_column *column, struct span field)
{
    if (column->is_integer) {
        bool is_canonical = field.len > 0 && field.len <= 18 && (field.len == 1 || field.data[0] != '0');
        for (size_t i = 0; i < field.len; i++) {
            is_canonical = is_canonical && field.data[i] >= '0' && field.data[i] <= '9';
        }
        return is_canonical;
    }
    bool is_ascii = column->is_text;
    for (size_t i = 0; i < field.len && is_ascii; i++) {
        is_ascii = (unsigned char)field.data[i] < 0x80;
    }
    return column->is_binary || is_ascii;
}

/* Whether a key may be asked for together with others. Alone, a key that the columns' types or character sets can not hold costs
 * nothing or is an error of its own; among others it would make the server convert the whole column, index or not. */
static bool is_sociable(const struct load_statement *s, const struct store_load *load)
{
    bool is_all = true;
    for (uint32_t i = 0; i < s->source->key.count && is_all; i++) {
        is_all = is_field_sociable(&s->key_columns[i], load->fields[i]);
    }
    return is_all;
}

/* Whether the key can be that of a row at all; takes it apart. */
static bool take_fields(const struct load_statement *s, struct store_load *load)
{
    bool is_key = load->key.len <= KEY_MAX && source_split(s->source, load->key, load->fields);
    for (uint32_t i = 0; i < s->source->key.count && is_key; i++) {
        is_key = s->key_columns[i].is_binary || source_is_utf8(load->fields[i]);
    }
    return is_key;
}

static bool is_found_key(const struct load_statement *s, const struct store_load *load)
{
    bool is_equal = true;
    for (uint32_t i = 0; i < s->source->key.count && is_equal; i++) {
        const struct cell *found = &s->cells[source_key_at(s->source, i)];
        struct span field = load->fields[i];
        is_equal = !found->is_null && found->length == field.len && memcmp(found->data, field.data, field.len) == 0;
    }
    return is_equal;
}

/* What the row at hand says about the server. ERR_CLOSED: this is not the primary any more. */
static enum err read_witness(const struct load_statement *s, uint64_t *heartbeat, char *error, size_t size)
{
    const struct cell *witness = &s->cells[SOURCE_WITNESS];
    if (s->options->role == STORE_REPLICA) {
        *heartbeat = witness->is_null ? 0 : (uint64_t)cell_int(witness);
    } else if (s->options->role == STORE_PRIMARY_OF_SEVERAL && !store_mysql_is_writable(cell_text(witness))) {
        snprintf(error, size, "%s: is read-only", s->options->address->text);
        return ERR_CLOSED;
    }
    return OK;
}

static void set_done(struct store_load *load, enum err err)
{
    load->err = err;
    load->is_done = true;
    if (err != OK) {
        load->row = (struct row){.expires_in_s = -1};
    }
}

/* Finds the rows among those that the database calls equal. Loads that are still not done have no row, unless *is_cut: the LIMIT
 * has kept some rows back. */
static enum err fetch_rows(struct load_statement *s, struct store_load *const *loads, uint32_t count, bool *is_cut, char *error,
                           size_t size)
{
    uint32_t rows = 0;
    uint32_t left = count;
    while (left > 0) {
        int got = mysql_stmt_fetch(s->stmt);
        if (got == MYSQL_NO_DATA) {
            *is_cut = rows >= SOURCE_ROWS_MAX * s->key_count;
            return OK;
        }
        if (got != 0 && got != MYSQL_DATA_TRUNCATED) {
            return fail_statement(s, error, size);
        }
        rows++;
        uint64_t heartbeat = 0;
        enum err witnessed = read_witness(s, &heartbeat, error, size);
        if (witnessed != OK) {
            return witnessed;
        }
        for (uint32_t i = 0; i < count; i++) {
            loads[i]->heartbeat = loads[i]->is_done ? loads[i]->heartbeat : heartbeat; /* each row of a statement has the same */
            struct store_load *load = loads[i];
            if (!load->is_done && is_found_key(s, load)) {
                enum err err = read_row(s, &load->row, load->error, sizeof load->error);
                if (err == ERR_CLOSED) {
                    snprintf(error, size, "%s", load->error);
                    return err;
                }
                set_done(load, err);
                left--;
            }
        }
    }
    return OK;
}

/* Asks for the rows of these loads. On OK they are done, except those that must be asked for one by one; otherwise what is not
 * done has failed together. */
static enum err statement_run(struct load_statement *s, struct store_load *const *loads, uint32_t count, char *error, size_t size)
{
    uint32_t fields = s->source->key.count;
    for (uint32_t i = 0; i < s->key_count * fields; i++) {
        uint32_t k = i / fields;
        struct span field = loads[k < count ? k : 0]->fields[i % fields];
        memcpy(s->keys + (size_t)i * KEY_MAX, field.data, field.len);
        s->key_lens[i] = (unsigned long)field.len;
    }
    if (mysql_stmt_execute(s->stmt) != 0) {
        enum err err = fail_statement(s, error, size);
        if (err == OK && count == 1) {
            set_done(loads[0], OK); /* no row can equal this key */
        }
        return err;
    }
    bool is_cut = false;
    enum err err = is_outdated(s) ? ERR_CONFLICT : fetch_rows(s, loads, count, &is_cut, error, size);
    mysql_stmt_free_result(s->stmt);
    for (uint32_t i = 0; i < count && err == OK && (!is_cut || count == 1); i++) {
        if (!loads[i]->is_done) {
            set_done(loads[i], OK);
        }
    }
    return err;
}

/* Runs the loads that are not done, together or the one, in one statement; again when the table has changed since the statement was
 * prepared. *is_mapping: the statement can not be prepared at all, whatever the keys are. */
static enum err run_together(struct store_connection *c, struct store_batch *batch, uint32_t first, uint32_t count, bool *is_mapping,
                             char *error, size_t size)
{
    enum err err = ERR_CONFLICT;
    snprintf(error, size, "namespace %s: the table keeps changing", c->options.sources[batch->source].namespace->name);
    for (int attempt = 0; attempt < 2 && err == ERR_CONFLICT; attempt++) {
        struct load_statement **s = NULL;
        struct store_load *loads[STORE_BATCH_MAX];
        uint32_t n = 0;
        err = statement_get(c, batch, count, &s, error, size);
        *is_mapping = err != OK && err != ERR_CONFLICT;
        for (uint32_t i = first; i < first + count && err == OK; i++) {
            struct store_load *load = &batch->loads[i];
            if (!load->is_done && !take_fields(*s, load)) {
                set_done(load, OK);
            }
            if (!load->is_done && (count == 1 || is_sociable(*s, load))) {
                loads[n++] = load;
            }
        }
        if (err == OK && n > 0 && (n > 1 || count == 1)) {
            batch->queries++;
            batch->keys_asked += n;
            err = statement_run(*s, loads, n, error, size);
            batch->queries_failed += err != OK;
        }
        if (err == ERR_CONFLICT || err == ERR_DATABASE) {
            statement_destroy(s); /* as the table is now, the next one may do */
        }
    }
    return err == ERR_CONFLICT ? ERR_DATABASE : err;
}

static void fail_rest(struct store_batch *batch, enum err err, const char *error)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        struct store_load *load = &batch->loads[i];
        if (!load->is_done) {
            snprintf(load->error, sizeof load->error, "%s", error);
            set_done(load, err);
        }
    }
}

enum err store_mysql_load(struct store_connection *c, struct store_batch *batch)
{
    char error[STORE_ERROR_MAX] = "";
    bool is_mapping = false;
    enum err err = OK;
    for (uint32_t i = 0; i < batch->count; i++) {
        batch->loads[i].is_done = false;
        batch->loads[i].heartbeat = 0;
        batch->loads[i].row = (struct row){.expires_in_s = -1};
    }
    if (batch->count > 1) {
        err = run_together(c, batch, 0, batch->count, &is_mapping, error, sizeof error);
        if (err == ERR_CLOSED || err == ERR_TIMEOUT || is_mapping) {
            fail_rest(batch, err, error);
        }
    }
    /* What could not go together, and what failed together: one of the keys may be at fault. */
    for (uint32_t i = 0; i < batch->count; i++) {
        struct store_load *load = &batch->loads[i];
        if (load->is_done) {
            continue;
        }
        err = run_together(c, batch, i, 1, &is_mapping, load->error, sizeof load->error);
        if (err == ERR_CLOSED || is_mapping) {
            snprintf(error, sizeof error, "%s", load->error);
            fail_rest(batch, err, error);
        } else if (!load->is_done) {
            set_done(load, err);
        }
    }
    return err == ERR_CLOSED ? ERR_CLOSED : OK;
}

void store_mysql_load_close(struct store_connection *c)
{
    for (uint32_t i = 0; i < c->options.source_count * STORE_MYSQL_LOADS; i++) {
        statement_destroy(&c->loads[i]);
    }
    free(c->loads);
    c->loads = NULL;
}
