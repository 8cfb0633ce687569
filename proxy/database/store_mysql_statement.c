#include "proxy/database/store_mysql_writing.h"

#include <stdarg.h>

#define PARAMS_MAX (SOURCE_VALUES_MAX + 2 * KEY_FIELDS_MAX + 8)

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

enum fault writing_end(struct writing *w, enum write_outcome outcome)
{
    write_end(w->write, outcome, OK, "%s", "");
    return FAULT_ENDED;
}

enum fault writing_refuse(struct writing *w, const char *fmt, ...)
{
    char text[WRITE_ERROR_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    write_end(w->write, WRITE_REFUSED, ERR_UNSUPPORTED, "namespace %s: %s", w->source->namespace->name, text);
    return FAULT_ENDED;
}

void writing_fail(struct writing *w, enum err err, const char *text)
{
    write_end(w->write, WRITE_FAILED, err, "namespace %s, table %s: %s (%u)", w->source->namespace->name, w->source->config->table, text,
              w->code);
}

enum fault writing_judge(struct writing *w, unsigned code, const char *text)
{
    enum err err = store_mysql_classify(code);
    w->code = code;
    if (code == 0 || err == ERR_CLOSED) {
        writing_fail(w, ERR_CLOSED, text);
        return FAULT_CLOSED;
    }
    if (code == ER_READ_ONLY_OPTION || code == ER_READ_ONLY_TRANSACTION || code == ER_READ_ONLY_MODE) {
        writing_fail(w, ERR_DATABASE, "the server is read-only, so it is not the primary");
        return w->c->options.role == STORE_PRIMARY_OF_SEVERAL ? FAULT_CLOSED : FAULT_FAILED; /* another address may be it */
    }
    if (code == ER_PACKET_TOO_LARGE) {
        write_end(w->write, WRITE_TOO_LARGE, ERR_TOO_LARGE, "the server's max_allowed_packet is less than this write");
        return FAULT_CLOSED; /* the server does not read the rest of it */
    }
    if (err == ERR_CONFLICT || code == ER_DEADLOCK || code == ER_LOCK_WAIT || code == ER_DUPLICATE) {
        writing_fail(w, ERR_CONFLICT, text);
        return FAULT_AGAIN;
    }
    if (is_refusal(code)) {
        return writing_refuse(w, "%s", text);
    }
    writing_fail(w, err == ERR_TIMEOUT ? ERR_TIMEOUT : ERR_DATABASE, text);
    return FAULT_FAILED;
}

enum fault writing_judge_stmt(struct writing *w, MYSQL_STMT *stmt)
{
    bool has_own = mysql_stmt_errno(stmt) != 0;
    return writing_judge(w, has_own ? mysql_stmt_errno(stmt) : mysql_errno(w->c->mysql),
                 has_own ? mysql_stmt_error(stmt) : mysql_error(w->c->mysql));
}

enum fault writing_judge_commit(struct writing *w, enum fault fault)
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

enum fault writing_run_text(struct writing *w, const char *sql)
{
    if (mysql_real_query(w->c->mysql, sql, (unsigned long)strlen(sql)) != 0) {
        return writing_judge(w, mysql_errno(w->c->mysql), mysql_error(w->c->mysql));
    }
    return FAULT_NONE;
}

/* --- statements --- */

void writing_forget(struct write_source *at)
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
        fault = writing_judge_stmt(w, stmt);
        mysql_stmt_close(stmt);
        stmt = NULL;
    }
    free(sql);
    *out = stmt;
    return fault;
}

enum fault writing_inspect(struct writing *w)
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
        writing_fail(w, ERR_DATABASE, "the result has other columns than were asked for");
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

enum fault writing_run(struct writing *w, enum write_statement statement, bool commits)
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
        return writing_judge_stmt(w, *stmt);
    }
    if (mysql_stmt_execute(*stmt) != 0) {
        enum fault fault = writing_judge_stmt(w, *stmt);
        return commits ? writing_judge_commit(w, fault) : fault;
    }
    return FAULT_NONE;
}
