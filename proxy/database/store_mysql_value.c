#include "proxy/database/store_mysql_writing.h"

#include <inttypes.h>

static void set_value(struct writing *w, struct span value)
{
    w->members[0] = (struct member){.kind = MEMBER_TEXT, .bytes = value};
}

enum fault writing_take_value(struct writing *w)
{
    struct reason why;
    const struct source *source = w->source;
    if (w->write->value.len > source->max_value_size) {
        return writing_end(w, WRITE_TOO_LARGE);
    }
    w->flags = w->write->flags;
    if (w->flags != 0 && source->config->flags_column == NULL) {
        return writing_refuse(w, "flags %" PRIu32 " have no place: the source has no flags_column", w->flags);
    }
    if (!source->is_json) {
        set_value(w, w->write->value);
    } else if (source_members(source, w->write->value, w->fields, w->members, &why) != OK) {
        return writing_refuse(w, "%s", why.text);
    }
    for (uint32_t i = 0; i < source->value_count; i++) {
        const struct member *m = &w->members[i];
        const char *name = source->is_json ? source->config->value_columns[i] : source->config->value_column;
        int key = source_value_key(source, i);
        if (key >= 0 && !source->is_json && !span_eq(m->bytes, w->fields[key])) {
            return writing_refuse(w, "column %s is part of the key, and the key has something else there", name);
        }
        if (key < 0 && m->kind != MEMBER_NULL && !w->at->is_value_binary[i] && !w->at->is_value_bits[i] && !source_is_utf8(m->bytes)) {
            return writing_refuse(w, "column %s is for text, and the value is not UTF-8", name);
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
        return writing_end(w, WRITE_TOO_LARGE);
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
        return writing_refuse(w, "column %s is for text, and the value is not UTF-8", w->source->config->value_column);
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
            return writing_end(w, WRITE_NON_NUMERIC);
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

enum fault writing_compute(struct writing *w)
{
    enum write_op op = w->write->op;
    bool is_number = op == WRITE_INCR || op == WRITE_DECR;
    if (w->is_live) {
        enum fault fault = writing_load(w, &w->old);
        if (fault != FAULT_NONE) {
            return fault;
        }
        if (!w->old.found) { /* it has expired since it was locked */
            w->is_live = false;
            return is_number && w->write->has_initial ? take_number(w) : writing_end(w, is_number ? WRITE_NOT_FOUND : WRITE_NOT_STORED);
        }
        w->flags = w->old.flags;
        w->keeps_expiry = true;
    }
    return is_number ? take_number(w) : take_joined(w);
}
