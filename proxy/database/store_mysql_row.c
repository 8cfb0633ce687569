#include "proxy/database/store_mysql_writing.h"

struct lock_row {
    char keys[KEY_FIELDS_MAX][KEY_MAX + 1];
    char texts[LOCK_COLUMNS][WRITING_NUMBER_SIZE];
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
            .buffer_length = i < keys ? KEY_MAX + 1 : WRITING_NUMBER_SIZE,
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

bool writing_may_create(const struct write *write)
{
    bool is_store = write->op == WRITE_SET || write->op == WRITE_ADD;
    return (is_store && !write->has_cas && !write->has_expected) || ((write->op == WRITE_INCR || write->op == WRITE_DECR) && write->has_initial);
}

/* The one row that was found, and whether there was a second one. */
static enum fault take_lock_row(struct writing *w, const struct lock_row *row, bool is_alone)
{
    uint32_t keys = w->source->key.count;
    bool is_ours = is_same_key(w, row);
    struct span version = row->is_null[keys + LOCK_VERSION] ? span_of("", 0) : span_of(row->texts[LOCK_VERSION], MIN(row->lens[keys], WRITING_NUMBER_SIZE));
    if (!is_alone) {
        return writing_refuse(w, "more than one row has this key in the database's eyes");
    }
    if (!is_ours) {
        return writing_may_create(w->write) ? writing_refuse(w, "the database takes the key for that of another row, whose text differs") : FAULT_NONE;
    }
    if (source_version(version, &w->old_version) != OK) {
        w->code = 0;
        writing_fail(w, ERR_DATABASE, "version_column is not an unsigned 64-bit number");
        return FAULT_FAILED;
    }
    w->is_there = true;
    w->is_live = row->lens[keys + LOCK_IS_LIVE] == 1 && row->texts[LOCK_IS_LIVE][0] == '1';
    return FAULT_NONE;
}

enum fault writing_lock(struct writing *w)
{
    struct lock_row row;
    w->is_there = false;
    w->is_live = false;
    w->old_version = 0;
    enum fault fault = writing_run(w, STATEMENT_LOCK, false);
    if (fault != FAULT_NONE) {
        return store_mysql_classify(w->code) == OK && w->code != 0 ? FAULT_NO_ROW : fault;
    }
    MYSQL_STMT *stmt = w->at->statements[STATEMENT_LOCK];
    int got = bind_lock_row(w, stmt, &row) && mysql_stmt_store_result(stmt) == 0 ? mysql_stmt_fetch(stmt) : 1;
    if (got == 0 || got == MYSQL_DATA_TRUNCATED) {
        fault = take_lock_row(w, &row, mysql_stmt_num_rows(stmt) == 1);
    } else if (got != MYSQL_NO_DATA) {
        fault = writing_judge_stmt(w, stmt);
    }
    mysql_stmt_free_result(stmt);
    return fault;
}

enum fault writing_load(struct writing *w, struct row *out)
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
