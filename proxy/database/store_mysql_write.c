#include "proxy/database/store_mysql_writing.h"

#include <time.h>

#include "common/clock.h"

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

/* Whether the row is what the client saw: a reader's value can not be told by a version, since loads have versions of their own. */
static enum fault expect(struct writing *w)
{
    const struct write *write = w->write;
    struct row now = {0};
    enum fault fault = writing_load(w, &now);
    if (fault != FAULT_NONE) {
        return fault;
    }
    bool is_same = now.found && now.flags == write->expected_flags && span_eq(span_of(now.value->data, now.value_len), write->expected);
    bool is_gone = !now.found;
    if (now.found) {
        chunk_unref(&now.value);
    }
    return is_same ? FAULT_NONE : writing_end(w, is_gone ? WRITE_NOT_FOUND : WRITE_EXISTS);
}

/* What ends here because of what is there; FAULT_NONE: it is to be written. */
static enum fault decide(struct writing *w)
{
    const struct write *write = w->write;
    bool is_add = write->op == WRITE_ADD;
    bool wants_row = write->op == WRITE_REPLACE || write->op == WRITE_APPEND || write->op == WRITE_PREPEND;
    if (is_add && w->is_live) {
        return writing_end(w, WRITE_NOT_STORED);
    }
    if (!w->is_live && !is_add && (write->has_cas || write->has_expected || !writing_may_create(write))) {
        return writing_end(w, wants_row ? WRITE_NOT_STORED : WRITE_NOT_FOUND);
    }
    if (write->has_cas && !is_add && w->old_version != write->cas) {
        return writing_end(w, WRITE_EXISTS);
    }
    return write->has_expected && w->is_live && !is_add ? expect(w) : FAULT_NONE;
}

static enum fault change(struct writing *w)
{
    bool is_new = !w->is_there;
    switch (w->write->op) {
    case WRITE_DELETE: return writing_run(w, STATEMENT_DELETE, false);
    case WRITE_SETTLE: return FAULT_NONE;
    case WRITE_TOUCH: return w->source->config->expires_column != NULL ? writing_run(w, STATEMENT_TOUCH, false) : FAULT_NONE;
    case WRITE_APPEND:
    case WRITE_PREPEND:
    case WRITE_INCR:
    case WRITE_DECR: {
        enum fault fault = writing_compute(w);
        if (fault != FAULT_NONE) {
            return fault;
        }
        break;
    }
    default: break;
    }
    return writing_run(w, is_new ? STATEMENT_INSERT : STATEMENT_UPDATE, false);
}

/* Whether a mapped table now has what was asked for, under the key that was asked for. */
static enum fault verify(struct writing *w, bool is_new)
{
    struct write *write = w->write;
    struct row now = {0};
    if (write->op == WRITE_DELETE || write->op == WRITE_TOUCH || write->op == WRITE_SETTLE || w->source->config->kind == SOURCE_ENTRIES) {
        return FAULT_NONE;
    }
    enum fault fault = is_new ? writing_lock(w) : FAULT_NONE;
    if (fault == FAULT_NO_ROW || (fault == FAULT_NONE && !w->is_there)) {
        return writing_refuse(w, "the key columns have no place for this key as it is written");
    }
    if (fault == FAULT_NONE) {
        fault = writing_load(w, &now);
    }
    if (fault != FAULT_NONE) {
        return fault;
    }
    if (now.found && !w->source->is_json && !span_eq(span_of(now.value->data, now.value_len), w->members[0].bytes)) {
        fault = writing_refuse(w, "column %s would make \"%.*s\" of this value", w->source->config->value_column,
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
    enum fault fault = writing_run_text(w, "START TRANSACTION");
    fault = fault == FAULT_NONE ? writing_lock(w) : fault;
    if (fault == FAULT_NO_ROW && writing_may_create(w->write)) {
        return writing_refuse(w, "the key columns have no place for such a key");
    }
    bool is_new = !w->is_there;
    if (fault == FAULT_NONE || fault == FAULT_NO_ROW) {
        fault = decide(w);
    }
    fault = fault == FAULT_NONE ? change(w) : fault;
    fault = fault == FAULT_NONE ? verify(w, is_new) : fault;
    /* All of the row's locks are ours by now. A process that was stopped until after the deadline must not go on: others may have counted on that. */
    if (fault == FAULT_NONE && clock_mono_us() >= w->write->deadline_us) {
        w->code = 0;
        writing_fail(w, ERR_TIMEOUT, "the deadline had passed before the row could be written");
        fault = FAULT_FAILED;
    }
    if (fault == FAULT_NONE) {
        fault = writing_run_text(w, "COMMIT");
        fault = fault == FAULT_NONE || fault == FAULT_AGAIN ? fault : writing_judge_commit(w, FAULT_CLOSED);
    }
    return fault == FAULT_NONE ? writing_end(w, WRITE_APPLIED) : fault;
}

/* The database's clock, a little less than it is. */
static enum fault read_clock(struct writing *w, int64_t *out)
{
    struct store_connection *c = w->c;
    enum fault fault = writing_run_text(w, "SELECT UNIX_TIMESTAMP(SYSDATE(6))*1000000");
    MYSQL_RES *result = fault == FAULT_NONE ? mysql_store_result(c->mysql) : NULL;
    MYSQL_ROW row = result != NULL ? mysql_fetch_row(result) : NULL;
    if (row != NULL && row[0] != NULL) {
        *out = strtoll(row[0], NULL, 10);
    } else if (fault == FAULT_NONE) {
        fault = writing_judge(w, mysql_errno(c->mysql), mysql_error(c->mysql));
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
    fault = fault == FAULT_NONE ? writing_run(w, statement, true) : fault;
    if (fault != FAULT_NONE) {
        return fault;
    }
    if (mysql_stmt_affected_rows(w->at->statements[statement]) > 0) {
        return writing_end(w, WRITE_APPLIED);
    }
    /* Nothing was done: the fence, or there is no row to delete. */
    w->c->has_clock = false;
    fault = is_delete ? read_clock(w, &now) : FAULT_NONE;
    if (fault == FAULT_NONE && is_delete && now < w->fence_us) {
        return writing_end(w, WRITE_NOT_FOUND);
    }
    w->code = 0;
    writing_fail(w, ERR_TIMEOUT, "the deadline had passed before the row could be written");
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
        return writing_may_create(write) ? writing_refuse(w, "no row has such a key") : writing_end(w, wants_row ? WRITE_NOT_STORED : WRITE_NOT_FOUND);
    }
    if (write->has_cas && config->version_column == NULL) {
        return writing_refuse(w, "cas needs a version, and the source has no version_column");
    }
    bool is_computed = write->op == WRITE_APPEND || write->op == WRITE_PREPEND || write->op == WRITE_INCR || write->op == WRITE_DECR;
    if (is_computed && w->source->is_json) {
        return writing_refuse(w, "append, prepend, incr and decr need a single value_column");
    }
    if (is_computed && source_value_key(w->source, 0) >= 0) {
        return writing_refuse(w, "column %s is part of the key", config->value_column);
    }
    w->has_expiry = source_exptime(write->exptime, &w->expiry_s, &w->is_expiry_relative);
    return write->op == WRITE_SET || write->op == WRITE_ADD || write->op == WRITE_REPLACE ? writing_take_value(w) : FAULT_NONE;
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
    enum fault fault = writing_inspect(w);
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
            writing_forget(w.at); /* as the table is now, the next one may do */
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
        writing_forget(&c->writes[i]);
    }
    free(c->writes);
    c->writes = NULL;
}
