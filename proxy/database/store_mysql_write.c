#include "proxy/database/store_mysql.h"

#include <inttypes.h>
#include <stdarg.h>
#include <time.h>

#include "common/clock.h"
#include "proxy/database/source_write.h"

/*   set, delete of the built-in table, without cas:   one statement that commits by itself; in doubt once it is sent
 *
 *   everything else:   START TRANSACTION
 *                      LOCK                  the row: is it there, is it the one, what is its version?
 *                      load                  append, prepend, incr, decr: its value (store_mysql_load.c, in this transaction)
 *                      INSERT, UPDATE, …
 *                      LOCK, load            a mapped table: is it now what was asked for?
 *                      COMMIT                in doubt once it is sent
 *
 * No INSERT … ON DUPLICATE KEY UPDATE on mapped tables: it would write to the row "bash" for the key "Bash", or to whatever row another
 * unique index finds. What is written is read back: whatever a column type makes of a key or a value, only what is found under the very
 * key that was asked for is committed.
 */

#define ATTEMPTS 5 /* deadlocks, and rows that somebody else inserts meanwhile */
#define RETRY_PAUSE_US 2000
#define PARAMS_MAX (SOURCE_VALUES_MAX + 2 * KEY_FIELDS_MAX + 8)
#define NUMBER_SIZE 24

enum write_errno {
    ER_BAD_NULL = 1048,
    ER_NO_COLUMN = 1054,
    ER_DUPLICATE = 1062,
    ER_TABLE_FULL = 1114,
    ER_TABLE_DENIED = 1142,
    ER_NO_TABLE = 1146,
    ER_PACKET_TOO_LARGE = 1153,
    ER_LOCK_WAIT = 1205,
    ER_DEADLOCK = 1213,
    ER_OUT_OF_RANGE = 1264,
    ER_CUT = 1265,
    ER_CHARSET_MIX = 1267,
    ER_READ_ONLY_OPTION = 1290,
    ER_WRONG_VALUE = 1292,
    ER_NO_DEFAULT = 1364,
    ER_WRONG_VALUE_FOR_FIELD = 1366,
    ER_TOO_LONG = 1406,
    ER_DATETIME_OVERFLOW = 1441,
    ER_ROW_REFERENCED = 1451,
    ER_NO_REFERENCED_ROW = 1452,
    ER_NO_PARTITION = 1526,
    ER_SIGNAL = 1644,
    ER_OUT_OF_RANGE_RESULT = 1690,
    ER_READ_ONLY_TRANSACTION = 1792,
    ER_READ_ONLY_MODE = 1836,
    ER_JSON_TEXT = 3140,
    ER_CHECK_MYSQL = 3819,
    ER_CHECK_MARIADB = 4025,
};

/* What went wrong on the way; the ways out of a write. */
enum fault {
    FAULT_NONE,
    FAULT_ENDED,  /* the outcome is set; roll back */
    FAULT_AGAIN,  /* somebody else was in the way, or the statement is out of date */
    FAULT_NO_ROW, /* no row can have such a key */
    FAULT_FAILED, /* roll back */
    FAULT_CLOSED, /* the connection is gone, and with it what was not committed */
};

/* What is known of a source's columns on this connection, and its statements. */
struct write_source {
    bool is_inspected;
    bool is_key_binary[KEY_FIELDS_MAX];
    bool is_value_binary[SOURCE_VALUES_MAX];
    bool is_value_bits[SOURCE_VALUES_MAX];
    MYSQL_STMT *statements[WRITE_STATEMENTS];
};

/* A write under way. */
struct writing {
    struct store_connection *c;
    struct write *write;
    const struct source *source;
    struct write_source *at;
    struct span row_key;
    struct span fields[KEY_FIELDS_MAX];
    struct member members[SOURCE_VALUES_MAX];
    uint32_t flags;
    bool has_expiry;
    bool keeps_expiry;
    bool is_expiry_relative;
    int64_t expiry_s;
    int64_t fence_us;

    /* What LOCK has found. */
    bool is_there;
    bool is_live;
    uint64_t old_version;
    struct row old; /* what load has found */

    char digits[NUMBER_SIZE];
    unsigned code; /* the last error */
};

struct params {
    uint32_t count;
    MYSQL_BIND binds[PARAMS_MAX];
    unsigned long lens[PARAMS_MAX];
    int64_t numbers[PARAMS_MAX];
};

/* --- errors --- */

static bool is_refusal(unsigned code)
{
    static const unsigned codes[] = {
        ER_BAD_NULL,       ER_OUT_OF_RANGE,      ER_CUT,          ER_CHARSET_MIX,    ER_WRONG_VALUE,       ER_NO_DEFAULT,
        ER_TOO_LONG,       ER_DATETIME_OVERFLOW, ER_NO_PARTITION, ER_ROW_REFERENCED, ER_NO_REFERENCED_ROW, ER_SIGNAL,
        ER_JSON_TEXT,      ER_CHECK_MYSQL,       ER_CHECK_MARIADB, ER_WRONG_VALUE_FOR_FIELD, ER_OUT_OF_RANGE_RESULT,
    };
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        if (codes[i] == code) {
            return true;
        }
    }
    return false;
}

static enum fault end(struct writing *w, enum write_outcome outcome)
{
    write_end(w->write, outcome, OK, "%s", "");
    return FAULT_ENDED;
}

static enum fault refuse(struct writing *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static enum fault refuse(struct writing *w, const char *fmt, ...)
{
    char text[WRITE_ERROR_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    write_end(w->write, WRITE_REFUSED, ERR_UNSUPPORTED, "namespace %s: %s", w->source->namespace->name, text);
    return FAULT_ENDED;
}

static void set_failure(struct writing *w, enum err err, const char *text)
{
    write_end(w->write, WRITE_FAILED, err, "namespace %s, table %s: %s (%u)", w->source->namespace->name, w->source->config->table, text,
              w->code);
}

/* What an error means, while nothing that commits has been sent. The write has its text, whatever becomes of it. */
static enum fault judge(struct writing *w, unsigned code, const char *text)
{
    enum err err = store_mysql_classify(code);
    w->code = code;
    if (code == 0 || err == ERR_CLOSED) {
        set_failure(w, ERR_CLOSED, text);
        return FAULT_CLOSED;
    }
    if (code == ER_READ_ONLY_OPTION || code == ER_READ_ONLY_TRANSACTION || code == ER_READ_ONLY_MODE) {
        set_failure(w, ERR_DATABASE, "the server is read-only, so it is not the primary");
        return w->c->options.role == STORE_PRIMARY_OF_SEVERAL ? FAULT_CLOSED : FAULT_FAILED; /* another address may be it */
    }
    if (code == ER_PACKET_TOO_LARGE) {
        write_end(w->write, WRITE_TOO_LARGE, ERR_TOO_LARGE, "the server's max_allowed_packet is less than this write");
        return FAULT_CLOSED; /* the server does not read the rest of it */
    }
    if (err == ERR_CONFLICT || code == ER_DEADLOCK || code == ER_LOCK_WAIT || code == ER_DUPLICATE) {
        set_failure(w, ERR_CONFLICT, text);
        return FAULT_AGAIN;
    }
    if (is_refusal(code)) {
        return refuse(w, "%s", text);
    }
    set_failure(w, err == ERR_TIMEOUT ? ERR_TIMEOUT : ERR_DATABASE, text);
    return FAULT_FAILED;
}

static enum fault judge_stmt(struct writing *w, MYSQL_STMT *stmt)
{
    bool has_own = mysql_stmt_errno(stmt) != 0;
    return judge(w, has_own ? mysql_stmt_errno(stmt) : mysql_errno(w->c->mysql),
                 has_own ? mysql_stmt_error(stmt) : mysql_error(w->c->mysql));
}

/* What an error means that came back for what commits: the server's word counts only where it can not have begun to commit. */
static enum fault judge_commit(struct writing *w, enum fault fault)
{
    bool is_before = w->code == ER_READ_ONLY_OPTION || w->code == ER_READ_ONLY_TRANSACTION || w->code == ER_READ_ONLY_MODE ||
                     w->code == ER_TABLE_FULL || w->code == ER_NO_TABLE || w->code == ER_NO_COLUMN || w->code == ER_TABLE_DENIED;
    if (fault == FAULT_AGAIN || fault == FAULT_ENDED || (fault != FAULT_NONE && is_before)) {
        return fault;
    }
    if (w->code != ER_PACKET_TOO_LARGE) {
        char text[WRITE_ERROR_MAX];
        snprintf(text, sizeof text, "%s", w->write->error);
        write_end(w->write, WRITE_IN_DOUBT, w->write->err, "%s", text);
    }
    return FAULT_CLOSED;
}

static enum fault run_text(struct writing *w, const char *sql)
{
    if (mysql_real_query(w->c->mysql, sql, (unsigned long)strlen(sql)) != 0) {
        return judge(w, mysql_errno(w->c->mysql), mysql_error(w->c->mysql));
    }
    return FAULT_NONE;
}

/* --- statements --- */

static void forget(struct write_source *at)
{
    for (int i = 0; i < WRITE_STATEMENTS; i++) {
        if (at->statements[i] != NULL) {
            mysql_stmt_close(at->statements[i]);
        }
    }
    *at = (struct write_source){0};
}

static enum fault prepare(struct writing *w, char *sql, MYSQL_STMT **out)
{
    MYSQL_STMT *stmt = sql != NULL ? mysql_stmt_init(w->c->mysql) : NULL;
    enum fault fault = FAULT_NONE;
    if (stmt == NULL) {
        write_end(w->write, WRITE_FAILED, ERR_NOMEM, "%s", err_text(ERR_NOMEM));
        fault = FAULT_FAILED;
    } else if (mysql_stmt_prepare(stmt, sql, (unsigned long)strlen(sql)) != 0) {
        fault = judge_stmt(w, stmt);
        mysql_stmt_close(stmt);
        stmt = NULL;
    }
    free(sql);
    *out = stmt;
    return fault;
}

/* Learns how the parameters are to be sent. */
static enum fault inspect(struct writing *w)
{
    MYSQL_STMT *stmt;
    if (w->at->is_inspected) {
        return FAULT_NONE;
    }
    enum fault fault = prepare(w, source_sql(w->source, &(struct source_select){.key_count = 1}), &stmt);
    if (fault != FAULT_NONE) {
        return fault;
    }
    MYSQL_RES *columns = mysql_stmt_result_metadata(stmt);
    if (columns == NULL || mysql_num_fields(columns) != source_column_count(w->source)) {
        w->code = 0;
        set_failure(w, ERR_DATABASE, "the result has other columns than were asked for");
        fault = FAULT_FAILED;
    }
    for (uint32_t i = 0; i < w->source->key.count && fault == FAULT_NONE; i++) {
        w->at->is_key_binary[i] = store_mysql_is_binary(mysql_fetch_field_direct(columns, source_key_at(w->source, i)));
    }
    for (uint32_t i = 0; i < w->source->value_count && fault == FAULT_NONE; i++) {
        const MYSQL_FIELD *field = mysql_fetch_field_direct(columns, SOURCE_VALUES + i);
        w->at->is_value_binary[i] = store_mysql_is_binary(field);
        w->at->is_value_bits[i] = store_mysql_kind_of(field) == COLUMN_BITS;
    }
    w->at->is_inspected = fault == FAULT_NONE;
    if (columns != NULL) {
        mysql_free_result(columns);
    }
    mysql_stmt_close(stmt);
    return fault;
}

static void add_bytes(struct params *p, struct span bytes, bool is_binary)
{
    p->lens[p->count] = (unsigned long)bytes.len;
    p->binds[p->count] = (MYSQL_BIND){
        .buffer_type = is_binary ? MYSQL_TYPE_BLOB : MYSQL_TYPE_STRING,
        .buffer = (void *)(uintptr_t)(bytes.data != NULL ? bytes.data : ""), /* a NULL would be one of SQL's */
        .buffer_length = (unsigned long)bytes.len,
        .length = &p->lens[p->count],
    };
    p->count++;
}

static void add_number(struct params *p, uint64_t number)
{
    p->numbers[p->count] = (int64_t)number;
    p->binds[p->count] = (MYSQL_BIND){.buffer_type = MYSQL_TYPE_LONGLONG, .buffer = &p->numbers[p->count], .is_unsigned = 1};
    p->count++;
}

static void add_null(struct params *p)
{
    p->binds[p->count++] = (MYSQL_BIND){.buffer_type = MYSQL_TYPE_NULL};
}

static void add_keys(struct params *p, const struct writing *w)
{
    for (uint32_t i = 0; i < w->source->key.count; i++) {
        add_bytes(p, w->fields[i], w->at->is_key_binary[i]);
    }
}

static void add_written(struct params *p, const struct writing *w)
{
    for (uint32_t i = 0; i < w->source->value_count; i++) {
        const struct member *m = &w->members[i];
        uint64_t bits;
        if (source_value_key(w->source, i) >= 0) {
            continue;
        }
        if (m->kind == MEMBER_NULL) {
            add_null(p);
        } else if (w->at->is_value_bits[i] && m->kind == MEMBER_NUMBER && source_version(m->bytes, &bits) == OK) {
            add_number(p, bits);
        } else {
            add_bytes(p, m->bytes, w->at->is_value_binary[i]);
        }
    }
    if (w->source->config->flags_column != NULL) {
        add_number(p, w->flags);
    }
    if (w->source->config->version_column != NULL) {
        add_number(p, w->write->version);
    }
}

static void add_expiry(struct params *p, const struct writing *w)
{
    if (w->has_expiry) {
        add_number(p, (uint64_t)w->expiry_s);
    } else {
        add_null(p);
    }
    add_number(p, w->is_expiry_relative);
}

static void add_params(struct params *p, const struct writing *w, enum write_statement statement)
{
    bool has_expires = w->source->config->expires_column != NULL;
    p->count = 0;
    switch (statement) {
    case STATEMENT_INSERT:
    case STATEMENT_SET_AT_ONCE:
        add_keys(p, w);
        add_written(p, w);
        if (has_expires) {
            add_expiry(p, w);
        }
        break;
    case STATEMENT_UPDATE:
        add_written(p, w);
        if (has_expires) {
            add_number(p, w->keeps_expiry);
            add_expiry(p, w);
        }
        add_keys(p, w);
        break;
    case STATEMENT_TOUCH:
        add_expiry(p, w);
        add_keys(p, w);
        break;
    default: add_keys(p, w);
    }
    if (statement == STATEMENT_SET_AT_ONCE || statement == STATEMENT_DELETE_AT_ONCE) {
        add_number(p, (uint64_t)w->fence_us);
    }
    if (statement == STATEMENT_SET_AT_ONCE) {
        add_number(p, (uint64_t)w->fence_us);
    }
}

/* Prepares it, too, when it is first needed on this connection. */
static enum fault run(struct writing *w, enum write_statement statement, bool commits)
{
    MYSQL_STMT **stmt = &w->at->statements[statement];
    struct params p;
    if (*stmt == NULL) {
        enum fault fault = prepare(w, source_write_sql(w->source, statement), stmt);
        if (fault != FAULT_NONE) {
            return fault;
        }
    }
    add_params(&p, w, statement);
    if (mysql_stmt_bind_param(*stmt, p.binds) != 0) {
        return judge_stmt(w, *stmt);
    }
    if (mysql_stmt_execute(*stmt) != 0) {
        enum fault fault = judge_stmt(w, *stmt);
        return commits ? judge_commit(w, fault) : fault;
    }
    return FAULT_NONE;
}

/* --- the row --- */

struct lock_row {
    char keys[KEY_FIELDS_MAX][KEY_MAX + 1];
    char texts[LOCK_COLUMNS][NUMBER_SIZE];
    unsigned long lens[KEY_FIELDS_MAX + LOCK_COLUMNS];
    db_bool is_null[KEY_FIELDS_MAX + LOCK_COLUMNS];
    db_bool is_cut[KEY_FIELDS_MAX + LOCK_COLUMNS];
};

static bool bind_lock_row(const struct writing *w, MYSQL_STMT *stmt, struct lock_row *row)
{
    MYSQL_BIND binds[KEY_FIELDS_MAX + LOCK_COLUMNS] = {0};
    uint32_t keys = w->source->key.count;
    for (uint32_t i = 0; i < keys + LOCK_COLUMNS; i++) {
        binds[i] = (MYSQL_BIND){
            .buffer_type = MYSQL_TYPE_STRING,
            .buffer = i < keys ? row->keys[i] : row->texts[i - keys],
            .buffer_length = i < keys ? KEY_MAX + 1 : NUMBER_SIZE,
            .length = &row->lens[i],
            .is_null = &row->is_null[i],
            .error = &row->is_cut[i],
        };
    }
    return mysql_stmt_bind_result(stmt, binds) == 0;
}

static bool is_same_key(const struct writing *w, const struct lock_row *row)
{
    for (uint32_t i = 0; i < w->source->key.count; i++) {
        struct span field = w->fields[i];
        if (row->is_null[i] || row->lens[i] != field.len || memcmp(row->keys[i], field.data, field.len) != 0) {
            return false;
        }
    }
    return true;
}

static bool may_create(const struct write *write)
{
    bool is_store = write->op == WRITE_SET || write->op == WRITE_ADD;
    return (is_store && !write->has_cas && !write->has_expected) || ((write->op == WRITE_INCR || write->op == WRITE_DECR) && write->has_initial);
}

/* The one row that was found, and whether there was a second one. */
static enum fault take_lock_row(struct writing *w, const struct lock_row *row, bool is_alone)
{
    uint32_t keys = w->source->key.count;
    bool is_ours = is_same_key(w, row);
    struct span version = row->is_null[keys + LOCK_VERSION] ? span_of("", 0) : span_of(row->texts[LOCK_VERSION], MIN(row->lens[keys], NUMBER_SIZE));
    if (!is_alone) {
        return refuse(w, "more than one row has this key in the database's eyes");
    }
    if (!is_ours) {
        return may_create(w->write) ? refuse(w, "the database takes the key for that of another row, whose text differs") : FAULT_NONE;
    }
    if (source_version(version, &w->old_version) != OK) {
        w->code = 0;
        set_failure(w, ERR_DATABASE, "version_column is not an unsigned 64-bit number");
        return FAULT_FAILED;
    }
    w->is_there = true;
    w->is_live = row->lens[keys + LOCK_IS_LIVE] == 1 && row->texts[LOCK_IS_LIVE][0] == '1';
    return FAULT_NONE;
}

static enum fault lock(struct writing *w)
{
    struct lock_row row;
    w->is_there = false;
    w->is_live = false;
    w->old_version = 0;
    enum fault fault = run(w, STATEMENT_LOCK, false);
    if (fault != FAULT_NONE) {
        return store_mysql_classify(w->code) == OK && w->code != 0 ? FAULT_NO_ROW : fault;
    }
    MYSQL_STMT *stmt = w->at->statements[STATEMENT_LOCK];
    int got = bind_lock_row(w, stmt, &row) && mysql_stmt_store_result(stmt) == 0 ? mysql_stmt_fetch(stmt) : 1;
    if (got == 0 || got == MYSQL_DATA_TRUNCATED) {
        fault = take_lock_row(w, &row, mysql_stmt_num_rows(stmt) == 1);
    } else if (got != MYSQL_NO_DATA) {
        fault = judge_stmt(w, stmt);
    }
    mysql_stmt_free_result(stmt);
    return fault;
}

/* The row as loads see it, in this transaction. */
static enum fault load(struct writing *w, struct row *out)
{
    struct store_load one = {.key = w->row_key};
    struct store_batch batch = {.source = w->write->namespace, .count = 1, .loads = &one};
    enum err err = store_mysql_load(w->c, &batch);
    if (err == OK && one.err == OK) {
        *out = one.row;
        return FAULT_NONE;
    }
    if (one.err == ERR_TOO_LARGE) {
        write_end(w->write, WRITE_TOO_LARGE, ERR_TOO_LARGE, "%s", one.error);
        return FAULT_ENDED;
    }
    write_end(w->write, WRITE_FAILED, one.err, "%s", one.error);
    return err == ERR_CLOSED ? FAULT_CLOSED : FAULT_FAILED;
}

/* --- what is to be written --- */

static void set_value(struct writing *w, struct span value)
{
    w->members[0] = (struct member){.kind = MEMBER_TEXT, .bytes = value};
}

/* The client's value, as members. */
static enum fault take_value(struct writing *w)
{
    struct reason why;
    const struct source *source = w->source;
    if (w->write->value.len > source->max_value_size) {
        return end(w, WRITE_TOO_LARGE);
    }
    w->flags = w->write->flags;
    if (w->flags != 0 && source->config->flags_column == NULL) {
        return refuse(w, "flags %" PRIu32 " have no place: the source has no flags_column", w->flags);
    }
    if (!source->is_json) {
        set_value(w, w->write->value);
    } else if (source_members(source, w->write->value, w->fields, w->members, &why) != OK) {
        return refuse(w, "%s", why.text);
    }
    for (uint32_t i = 0; i < source->value_count; i++) {
        const struct member *m = &w->members[i];
        const char *name = source->is_json ? source->config->value_columns[i] : source->config->value_column;
        int key = source_value_key(source, i);
        if (key >= 0 && !source->is_json && !span_eq(m->bytes, w->fields[key])) {
            return refuse(w, "column %s is part of the key, and the key has something else there", name);
        }
        if (key < 0 && m->kind != MEMBER_NULL && !w->at->is_value_binary[i] && !w->at->is_value_bits[i] && !source_is_utf8(m->bytes)) {
            return refuse(w, "column %s is for text, and the value is not UTF-8", name);
        }
    }
    return FAULT_NONE;
}

static enum fault take_joined(struct writing *w)
{
    struct write *write = w->write;
    bool is_append = write->op == WRITE_APPEND;
    struct span old = span_of(w->old.value->data, w->old.value_len);
    size_t len = old.len + write->value.len;
    if (write->value.len > w->source->max_value_size || len > w->source->max_value_size) {
        return end(w, WRITE_TOO_LARGE);
    }
    struct chunk *joined = chunk_get(NULL, len + ROW_VALUE_SLACK);
    if (joined == NULL) {
        write_end(write, WRITE_FAILED, ERR_NOMEM, "%s", err_text(ERR_NOMEM));
        return FAULT_FAILED;
    }
    memcpy(joined->data + (is_append ? 0 : write->value.len), old.data, old.len);
    if (write->value.len > 0) {
        memcpy(joined->data + (is_append ? old.len : 0), write->value.data, write->value.len);
    }
    write->row = w->old;
    write->row.value = joined;
    write->row.value_len = len;
    if (!w->at->is_value_binary[0] && !source_is_utf8(span_of(joined->data, len))) {
        return refuse(w, "column %s is for text, and the value is not UTF-8", w->source->config->value_column);
    }
    set_value(w, span_of(joined->data, len));
    return FAULT_NONE;
}

static enum fault take_number(struct writing *w)
{
    struct write *write = w->write;
    uint64_t number = 0;
    if (w->is_live) {
        if (!source_number(span_of(w->old.value->data, w->old.value_len), &number)) {
            return end(w, WRITE_NON_NUMERIC);
        }
        write->number = source_add(number, write->delta, write->op == WRITE_DECR);
    } else {
        write->number = write->initial;
    }
    int len = snprintf(w->digits, sizeof w->digits, "%" PRIu64, write->number);
    write->row = w->is_live ? w->old : (struct row){.found = true, .expires_in_s = -1};
    write->row.value_len = (size_t)len;
    write->row.value = chunk_get(NULL, (size_t)len + ROW_VALUE_SLACK);
    if (write->row.value == NULL) {
        write_end(write, WRITE_FAILED, ERR_NOMEM, "%s", err_text(ERR_NOMEM));
        return FAULT_FAILED;
    }
    memcpy(write->row.value->data, w->digits, (size_t)len);
    if (!w->is_live && w->has_expiry && w->source->config->expires_column != NULL) {
        write->row.found = false; /* how long it has left is the database's to say */
        chunk_unref(&write->row.value);
    }
    set_value(w, span_str(w->digits));
    return FAULT_NONE;
}

/* append, prepend, incr, decr of a row that is there: from its value. */
static enum fault compute(struct writing *w)
{
    enum write_op op = w->write->op;
    bool is_number = op == WRITE_INCR || op == WRITE_DECR;
    if (w->is_live) {
        enum fault fault = load(w, &w->old);
        if (fault != FAULT_NONE) {
            return fault;
        }
        if (!w->old.found) { /* it has expired since it was locked */
            w->is_live = false;
            return is_number && w->write->has_initial ? take_number(w) : end(w, is_number ? WRITE_NOT_FOUND : WRITE_NOT_STORED);
        }
        w->flags = w->old.flags;
        w->keeps_expiry = true;
    }
    return is_number ? take_number(w) : take_joined(w);
}

/* Whether the row is what the client saw: a reader's value can not be told by a version, since loads have versions of their own. */
static enum fault expect(struct writing *w)
{
    const struct write *write = w->write;
    struct row now = {0};
    enum fault fault = load(w, &now);
    if (fault != FAULT_NONE) {
        return fault;
    }
    bool is_same = now.found && now.flags == write->expected_flags && span_eq(span_of(now.value->data, now.value_len), write->expected);
    bool is_gone = !now.found;
    if (now.found) {
        chunk_unref(&now.value);
    }
    return is_same ? FAULT_NONE : end(w, is_gone ? WRITE_NOT_FOUND : WRITE_EXISTS);
}

/* What ends here because of what is there; FAULT_NONE: it is to be written. */
static enum fault decide(struct writing *w)
{
    const struct write *write = w->write;
    bool is_add = write->op == WRITE_ADD;
    bool wants_row = write->op == WRITE_REPLACE || write->op == WRITE_APPEND || write->op == WRITE_PREPEND;
    if (is_add && w->is_live) {
        return end(w, WRITE_NOT_STORED);
    }
    if (!w->is_live && !is_add && (write->has_cas || write->has_expected || !may_create(write))) {
        return end(w, wants_row ? WRITE_NOT_STORED : WRITE_NOT_FOUND);
    }
    if (write->has_cas && !is_add && w->old_version != write->cas) {
        return end(w, WRITE_EXISTS);
    }
    return write->has_expected && w->is_live && !is_add ? expect(w) : FAULT_NONE;
}

static enum fault change(struct writing *w)
{
    bool is_new = !w->is_there;
    switch (w->write->op) {
    case WRITE_DELETE: return run(w, STATEMENT_DELETE, false);
    case WRITE_SETTLE: return FAULT_NONE;
    case WRITE_TOUCH: return w->source->config->expires_column != NULL ? run(w, STATEMENT_TOUCH, false) : FAULT_NONE;
    case WRITE_APPEND:
    case WRITE_PREPEND:
    case WRITE_INCR:
    case WRITE_DECR: {
        enum fault fault = compute(w);
        if (fault != FAULT_NONE) {
            return fault;
        }
        break;
    }
    default: break;
    }
    return run(w, is_new ? STATEMENT_INSERT : STATEMENT_UPDATE, false);
}

/* Whether a mapped table now has what was asked for, under the key that was asked for. */
static enum fault verify(struct writing *w, bool is_new)
{
    struct write *write = w->write;
    struct row now = {0};
    if (write->op == WRITE_DELETE || write->op == WRITE_TOUCH || write->op == WRITE_SETTLE || w->source->config->kind == SOURCE_ENTRIES) {
        return FAULT_NONE;
    }
    enum fault fault = is_new ? lock(w) : FAULT_NONE;
    if (fault == FAULT_NO_ROW || (fault == FAULT_NONE && !w->is_there)) {
        return refuse(w, "the key columns have no place for this key as it is written");
    }
    if (fault == FAULT_NONE) {
        fault = load(w, &now);
    }
    if (fault != FAULT_NONE) {
        return fault;
    }
    if (now.found && !w->source->is_json && !span_eq(span_of(now.value->data, now.value_len), w->members[0].bytes)) {
        fault = refuse(w, "column %s would make \"%.*s\" of this value", w->source->config->value_column,
                       (int)MIN(now.value_len, 40), now.value->data);
        chunk_unref(&now.value);
        return fault;
    }
    chunk_unref(&write->row.value);
    write->row = now;
    return FAULT_NONE;
}

/* --- the two ways --- */

static enum fault transact(struct writing *w)
{
    enum fault fault = run_text(w, "START TRANSACTION");
    fault = fault == FAULT_NONE ? lock(w) : fault;
    if (fault == FAULT_NO_ROW && may_create(w->write)) {
        return refuse(w, "the key columns have no place for such a key");
    }
    bool is_new = !w->is_there;
    if (fault == FAULT_NONE || fault == FAULT_NO_ROW) {
        fault = decide(w);
    }
    fault = fault == FAULT_NONE ? change(w) : fault;
    fault = fault == FAULT_NONE ? verify(w, is_new) : fault;
    if (fault == FAULT_NONE) {
        fault = run_text(w, "COMMIT");
        fault = fault == FAULT_NONE || fault == FAULT_AGAIN ? fault : judge_commit(w, FAULT_CLOSED);
    }
    return fault == FAULT_NONE ? end(w, WRITE_APPLIED) : fault;
}

/* The database's clock, a little less than it is. */
static enum fault read_clock(struct writing *w, int64_t *out)
{
    struct store_connection *c = w->c;
    enum fault fault = run_text(w, "SELECT UNIX_TIMESTAMP(SYSDATE(6))*1000000");
    MYSQL_RES *result = fault == FAULT_NONE ? mysql_store_result(c->mysql) : NULL;
    MYSQL_ROW row = result != NULL ? mysql_fetch_row(result) : NULL;
    if (row != NULL && row[0] != NULL) {
        *out = strtoll(row[0], NULL, 10);
    } else if (fault == FAULT_NONE) {
        fault = judge(w, mysql_errno(c->mysql), mysql_error(c->mysql));
    }
    if (result != NULL) {
        mysql_free_result(result);
    }
    return fault;
}

static enum fault set_fence(struct writing *w)
{
    struct store_connection *c = w->c;
    int64_t now = 0;
    if (!c->has_clock) {
        enum fault fault = read_clock(w, &now);
        if (fault != FAULT_NONE) {
            return fault;
        }
        c->clock_us = now - (int64_t)clock_mono_us();
        c->has_clock = true;
    }
    w->fence_us = (int64_t)w->write->deadline_us + c->clock_us;
    return FAULT_NONE;
}

static enum fault write_at_once(struct writing *w)
{
    bool is_delete = w->write->op == WRITE_DELETE;
    enum write_statement statement = is_delete ? STATEMENT_DELETE_AT_ONCE : STATEMENT_SET_AT_ONCE;
    int64_t now = 0;
    enum fault fault = set_fence(w);
    fault = fault == FAULT_NONE ? run(w, statement, true) : fault;
    if (fault != FAULT_NONE) {
        return fault;
    }
    if (mysql_stmt_affected_rows(w->at->statements[statement]) > 0) {
        return end(w, WRITE_APPLIED);
    }
    /* Nothing was done: the fence, or there is no row to delete. */
    w->c->has_clock = false;
    fault = is_delete ? read_clock(w, &now) : FAULT_NONE;
    if (fault == FAULT_NONE && is_delete && now < w->fence_us) {
        return end(w, WRITE_NOT_FOUND);
    }
    w->code = 0;
    set_failure(w, ERR_TIMEOUT, "the deadline had passed before the row could be written");
    return fault == FAULT_CLOSED ? FAULT_CLOSED : FAULT_FAILED;
}

/* --- beginning and end --- */

/* What needs no look at the database, beside the columns' types. */
static enum fault check(struct writing *w)
{
    const struct write *write = w->write;
    const struct config_source *config = w->source->config;
    bool is_key = source_split(w->source, w->row_key, w->fields);
    bool wants_row = write->op == WRITE_REPLACE || write->op == WRITE_APPEND || write->op == WRITE_PREPEND;
    for (uint32_t i = 0; i < w->source->key.count && is_key; i++) {
        is_key = w->at->is_key_binary[i] || source_is_utf8(w->fields[i]);
    }
    if (!is_key) {
        return may_create(write) ? refuse(w, "no row has such a key") : end(w, wants_row ? WRITE_NOT_STORED : WRITE_NOT_FOUND);
    }
    if (write->has_cas && config->version_column == NULL) {
        return refuse(w, "cas needs a version, and the source has no version_column");
    }
    bool is_computed = write->op == WRITE_APPEND || write->op == WRITE_PREPEND || write->op == WRITE_INCR || write->op == WRITE_DECR;
    if (is_computed && w->source->is_json) {
        return refuse(w, "append, prepend, incr and decr need a single value_column");
    }
    if (is_computed && source_value_key(w->source, 0) >= 0) {
        return refuse(w, "column %s is part of the key", config->value_column);
    }
    w->has_expiry = source_exptime(write->exptime, &w->expiry_s, &w->is_expiry_relative);
    return write->op == WRITE_SET || write->op == WRITE_ADD || write->op == WRITE_REPLACE ? take_value(w) : FAULT_NONE;
}

static void start_over(struct writing *w)
{
    source_members_free(w->source, w->members);
    chunk_unref(&w->old.value);
    chunk_unref(&w->write->row.value);
    w->old = (struct row){0};
    w->write->row = (struct row){.expires_in_s = -1};
    w->flags = 0;
    w->keeps_expiry = false;
    w->code = 0;
}

static enum fault attempt(struct writing *w)
{
    bool is_at_once = w->source->config->kind == SOURCE_ENTRIES && !w->write->has_cas && !w->write->has_expected && (w->write->op == WRITE_SET || w->write->op == WRITE_DELETE);
    start_over(w);
    enum fault fault = inspect(w);
    fault = fault == FAULT_NONE ? check(w) : fault;
    if (fault != FAULT_NONE) {
        return fault;
    }
    if (is_at_once) {
        return write_at_once(w);
    }
    fault = transact(w);
    if (fault != FAULT_CLOSED && w->write->outcome != WRITE_APPLIED) {
        /* The text and outcome of what went wrong before are what counts. */
        if (mysql_real_query(w->c->mysql, "ROLLBACK", 8) != 0) {
            fault = fault == FAULT_ENDED ? fault : FAULT_CLOSED;
            w->c->is_rollback_lost = true;
        }
    }
    return fault;
}

enum err store_mysql_write(struct store_connection *c, struct write *write)
{
    const struct source *source = &c->options.sources[write->namespace];
    if (c->writes == NULL) {
        c->writes = xcalloc(c->options.source_count, sizeof *c->writes);
    }
    struct writing w = {
        .c = c,
        .write = write,
        .source = source,
        .at = &c->writes[write->namespace],
        .row_key = source_row_key(source, span_of(write->key, write->key_len)),
    };
    write->number = 0;
    write->row = (struct row){.expires_in_s = -1};
    write->outcome = WRITE_FAILED;
    enum fault fault = FAULT_AGAIN;
    for (unsigned i = 0; i < ATTEMPTS && fault == FAULT_AGAIN; i++) {
        uint64_t now = clock_mono_us();
        if (i > 0 && now + i * RETRY_PAUSE_US >= write->deadline_us) {
            break;
        }
        if (i > 1) {
            nanosleep(&(struct timespec){.tv_nsec = (long)(1000ULL * (RETRY_PAUSE_US + now % RETRY_PAUSE_US) * i)}, NULL);
        }
        fault = attempt(&w);
        if (fault == FAULT_FAILED || (fault == FAULT_AGAIN && store_mysql_classify(w.code) == ERR_CONFLICT)) {
            forget(w.at); /* as the table is now, the next one may do */
        }
    }
    if (fault == FAULT_AGAIN && w.code == ER_DUPLICATE) {
        write->outcome = WRITE_REFUSED; /* another unique index of the table, and it will be so the next time */
    }
    source_members_free(source, w.members);
    chunk_unref(&w.old.value);
    if (write->outcome != WRITE_APPLIED) {
        chunk_unref(&write->row.value);
        write->row = (struct row){.expires_in_s = -1};
    } else if (write->row.found) {
        write->row.version = source->config->version_column != NULL ? write->version : 0;
    }
    return fault == FAULT_CLOSED || c->is_rollback_lost ? ERR_CLOSED : OK;
}

void store_mysql_write_close(struct store_connection *c)
{
    for (uint32_t i = 0; i < c->options.source_count && c->writes != NULL; i++) {
        forget(&c->writes[i]);
    }
    free(c->writes);
    c->writes = NULL;
}
