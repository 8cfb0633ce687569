#include "proxy/database/source_write.h"

#include <jansson.h>

/* --- SQL --- */

/* With `now` as the database's clock when the statement began. */
#define EXPIRY "FROM_UNIXTIME(?+?*UNIX_TIMESTAMP(NOW(6)))"

/* By the clock as it is when a row has been locked: NOW() would be the statement's beginning. */
#define FENCE "UNIX_TIMESTAMP(SYSDATE(6))*1000000<?"

int source_value_key(const struct source *source, uint32_t value)
{
    const char *name = source->is_json ? source->config->value_columns[value] : source->config->value_column;
    for (uint32_t i = 0; i < source->key.count; i++) {
        if (strcmp(source->key.columns[i], name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* The next of a list: "`name`text". */
static void put_next(FILE *out, uint32_t *count, const char *name, const char *text)
{
    fputs((*count)++ > 0 ? "," : "", out);
    source_put_column(out, name);
    fputs(text, out);
}

/* The columns that are written, beside the keys and the expiry, each with `text` behind it. */
static void put_written(FILE *out, const struct source *source, uint32_t *count, const char *text)
{
    const struct config_source *config = source->config;
    for (uint32_t i = 0; i < source->value_count; i++) {
        if (source_value_key(source, i) < 0) {
            put_next(out, count, source->is_json ? config->value_columns[i] : config->value_column, text);
        }
    }
    if (config->flags_column != NULL) {
        put_next(out, count, config->flags_column, text);
    }
    if (config->version_column != NULL) {
        put_next(out, count, config->version_column, text);
    }
}

static void put_where(FILE *out, const struct source *source)
{
    for (uint32_t i = 0; i < source->key.count; i++) {
        fputs(i > 0 ? " AND " : " WHERE ", out);
        source_put_column(out, source->key.columns[i]);
        fputs("=?", out);
    }
}

static void put_is_live(FILE *out, const struct source *source)
{
    const struct config_source *config = source->config;
    fputs("(", out);
    if (config->expires_column != NULL) {
        fputs("COALESCE(TIMESTAMPDIFF(MICROSECOND,NOW(6),", out); /* as loads have it: a zero date is none, too */
        source_put_column(out, config->expires_column);
        fputs(")>0,1)", out);
    }
    fputs(config->expires_column != NULL && !source->is_json ? " AND " : "", out);
    if (!source->is_json) {
        source_put_column(out, config->value_column);
        fputs(" IS NOT NULL", out);
    }
    fputs(config->expires_column == NULL && source->is_json ? "1)" : ")", out);
}

static void put_lock(FILE *out, const struct source *source)
{
    fputs("SELECT ", out);
    for (uint32_t i = 0; i < source->key.count; i++) {
        source_put_column(out, source->key.columns[i]);
        fputs(",", out);
    }
    if (source->config->version_column != NULL) {
        source_put_column(out, source->config->version_column);
    } else {
        fputs("NULL", out);
    }
    fputs(",", out);
    put_is_live(out, source);
    fputs(" FROM ", out);
    source_put_table(out, source->config->table);
    put_where(out, source);
    fputs(" LIMIT 2 FOR UPDATE", out);
}

static void put_insert(FILE *out, const struct source *source, bool is_at_once)
{
    const char *expires = source->config->expires_column;
    uint32_t count = 0;
    fputs("INSERT INTO ", out);
    source_put_table(out, source->config->table);
    fputs(" (", out);
    for (uint32_t i = 0; i < source->key.count; i++) {
        put_next(out, &count, source->key.columns[i], "");
    }
    put_written(out, source, &count, "");
    fputs(expires != NULL ? "," : "", out);
    if (expires != NULL) {
        source_put_column(out, expires);
    }
    fputs(is_at_once ? ") SELECT " : ") VALUES (", out);
    for (uint32_t i = 0; i < count; i++) {
        fputs(i > 0 ? ",?" : "?", out);
    }
    fputs(expires != NULL ? "," EXPIRY : "", out);
    fputs(is_at_once ? " FROM DUAL WHERE " FENCE : ")", out);
}

/* The version goes first: it is this write's own, so what follows can see by it whether the fence let it pass. Asking the clock
 * again for every column could write half a row. */
static void put_set_at_once(FILE *out, const struct source *source)
{
    const struct config_source *config = source->config;
    const char *const columns[] = {config->value_column, config->flags_column, config->expires_column};
    put_insert(out, source, true);
    fprintf(out, " ON DUPLICATE KEY UPDATE `%s`=IF(" FENCE ",VALUES(`%s`),`%s`)", config->version_column, config->version_column,
            config->version_column);
    for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
        fprintf(out, ",`%s`=IF(`%s`=VALUES(`%s`),VALUES(`%s`),`%s`)", columns[i], config->version_column, config->version_column,
                columns[i], columns[i]);
    }
}

static void put_update(FILE *out, const struct source *source)
{
    const char *expires = source->config->expires_column;
    uint32_t count = 0;
    fputs("UPDATE ", out);
    source_put_table(out, source->config->table);
    fputs(" SET ", out);
    put_written(out, source, &count, "=?");
    if (expires != NULL) {
        put_next(out, &count, expires, "=IF(?,");
        source_put_column(out, expires);
        fputs("," EXPIRY ")", out);
    }
    if (count == 0) { /* all that could be written are keys */
        put_next(out, &count, source->key.columns[0], "=");
        source_put_column(out, source->key.columns[0]);
    }
    put_where(out, source);
}

static void put_touch(FILE *out, const struct source *source)
{
    fputs("UPDATE ", out);
    source_put_table(out, source->config->table);
    fputs(" SET ", out);
    source_put_column(out, source->config->expires_column);
    fputs("=" EXPIRY, out);
    put_where(out, source);
}

static void put_delete(FILE *out, const struct source *source, bool is_at_once)
{
    fputs("DELETE FROM ", out);
    source_put_table(out, source->config->table);
    put_where(out, source);
    if (is_at_once) {
        fputs(" AND ", out);
        put_is_live(out, source);
        fputs(" AND " FENCE, out);
    }
}

char *source_write_sql(const struct source *source, enum write_statement statement)
{
    char *sql = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&sql, &len);
    if (out == NULL) {
        return NULL;
    }
    switch (statement) {
    case STATEMENT_LOCK: put_lock(out, source); break;
    case STATEMENT_INSERT: put_insert(out, source, false); break;
    case STATEMENT_UPDATE: put_update(out, source); break;
    case STATEMENT_TOUCH: put_touch(out, source); break;
    case STATEMENT_DELETE:
    case STATEMENT_DELETE_AT_ONCE: put_delete(out, source, statement == STATEMENT_DELETE_AT_ONCE); break;
    case STATEMENT_SET_AT_ONCE: put_set_at_once(out, source); break;
    case WRITE_STATEMENTS: abort();
    }
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(sql);
        return NULL;
    }
    return sql;
}

/* --- JSON --- */

static size_t skip_space(struct span text, size_t at)
{
    while (at < text.len && strchr(" \t\r\n", text.data[at]) != NULL) {
        at++;
    }
    return at;
}

/* Behind the string, object, array, number or word at `at`, in text that is known to be JSON. */
static size_t skip_value(struct span text, size_t at)
{
    unsigned depth = 0;
    bool is_string = false;
    for (; at < text.len; at++) {
        char c = text.data[at];
        if (is_string) {
            at += c == '\\';
            is_string = c != '"';
        } else if (c == '"') {
            is_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (depth == 0 && strchr(",}]: \t\r\n", c) != NULL) {
            return at;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return at;
}

/* The text of the next member's value: a parser would make a double of a number that is none. *at moves to the next one. */
static struct span next_value(struct span text, size_t *at)
{
    size_t begin = skip_space(text, skip_value(text, skip_space(text, *at)));
    begin = skip_space(text, begin + 1); /* the colon */
    size_t end = MIN(skip_value(text, begin), text.len);
    *at = skip_space(text, end) + 1; /* the comma */
    return span_of(text.data + MIN(begin, end), end - MIN(begin, end));
}

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

static bool take_base64(struct span text, struct member *member)
{
    size_t padding = 0;
    while (padding < 2 && padding < text.len && text.data[text.len - 1 - padding] == '=') {
        padding++;
    }
    if (text.len % 4 != 0) {
        return false;
    }
    char *out = malloc(text.len / 4 * 3 + 1);
    size_t len = 0;
    uint32_t bits = 0;
    member->own = out;
    if (out == NULL) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        int digit = i < text.len - padding ? base64_digit(text.data[i]) : 0;
        if (digit < 0) {
            return false;
        }
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 == 3) {
            out[len++] = (char)(bits >> 16);
            out[len++] = (char)(bits >> 8);
            out[len++] = (char)bits;
        }
    }
    member->kind = MEMBER_BYTES;
    member->bytes = span_of(out, len - padding);
    return true;
}

static bool take_member(const json_t *json, struct span raw, struct member *member)
{
    switch (json_typeof(json)) {
    case JSON_NULL: *member = (struct member){.kind = MEMBER_NULL}; return true;
    case JSON_TRUE: *member = (struct member){.kind = MEMBER_NUMBER, .bytes = SPAN_LIT("1")}; return true;
    case JSON_FALSE: *member = (struct member){.kind = MEMBER_NUMBER, .bytes = SPAN_LIT("0")}; return true;
    case JSON_INTEGER:
    case JSON_REAL: *member = (struct member){.kind = MEMBER_NUMBER, .bytes = raw}; return true;
    case JSON_STRING: {
        size_t len = json_string_length(json);
        char *own = malloc(len + 1);
        if (own == NULL) {
            return false;
        }
        memcpy(own, json_string_value(json), len);
        *member = (struct member){.kind = MEMBER_TEXT, .bytes = span_of(own, len), .own = own};
        return true;
    }
    case JSON_OBJECT: {
        const json_t *base64 = json_object_get(json, "base64");
        return json_object_size(json) == 1 && json_is_string(base64) &&
               take_base64(span_of(json_string_value(base64), json_string_length(base64)), member);
    }
    default: return false;
    }
}

static enum err fail_member(struct reason *why, const char *name, const char *text)
{
    char quoted[CONFIG_QUOTED_SIZE];
    config_problems_reason(why, "the JSON object's member %s %s", config_problems_quote(span_str(name), quoted), text);
    return ERR_UNSUPPORTED;
}

static int find_value(const struct source *source, const char *name)
{
    for (uint32_t i = 0; i < source->value_count; i++) {
        if (strcmp(source->config->value_columns[i], name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static enum err take_object(const struct source *source, json_t *object, struct span text, const struct span *fields,
                            struct member *members, struct reason *why)
{
    bool is_given[SOURCE_VALUES_MAX] = {false};
    size_t at = skip_space(text, 0) + 1; /* behind the brace */
    const char *name;
    json_t *json;
    json_object_foreach(object, name, json) { /* in the order of the text */
        struct span raw = next_value(text, &at);
        int i = find_value(source, name);
        if (i < 0) {
            return fail_member(why, name, "is none of value_columns");
        }
        if (!take_member(json, raw, &members[i])) {
            return fail_member(why, name, "is neither a string, a number, null, nor {\"base64\": \"…\"}");
        }
        int key = source_value_key(source, (uint32_t)i);
        if (key >= 0 && (members[i].kind == MEMBER_NULL || !span_eq(members[i].bytes, fields[key]))) {
            return fail_member(why, name, "is part of the key, and the key has something else there");
        }
        is_given[i] = true;
    }
    for (uint32_t i = 0; i < source->value_count; i++) {
        if (!is_given[i]) {
            return fail_member(why, source->config->value_columns[i], "is missing");
        }
    }
    return OK;
}

enum err source_members(const struct source *source, struct span value, const struct span fields[KEY_FIELDS_MAX],
                        struct member members[SOURCE_VALUES_MAX], struct reason *why)
{
    json_error_t error;
    memset(members, 0, sizeof *members * source->value_count);
    json_t *object = json_loadb(value.data, value.len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &error);
    enum err err = OK;
    if (object == NULL) {
        config_problems_reason(why, "the value is not a JSON object: %s", error.text);
        err = ERR_UNSUPPORTED;
    } else if (!json_is_object(object)) {
        config_problems_reason(why, "the value is not a JSON object");
        err = ERR_UNSUPPORTED;
    } else {
        err = take_object(source, object, value, fields, members, why);
    }
    json_decref(object);
    return err;
}

void source_members_free(const struct source *source, struct member members[SOURCE_VALUES_MAX])
{
    for (uint32_t i = 0; i < source->value_count; i++) {
        free(members[i].own);
        members[i].own = NULL;
    }
}

/* --- numbers and times --- */

bool source_number(struct span value, uint64_t *out)
{
    while (value.len > 0 && value.data[value.len - 1] == ' ') { /* memcached pads what has become shorter */
        value.len--;
    }
    return value.len > 0 && value.len <= 20 && source_version(value, out) == OK;
}

uint64_t source_add(uint64_t number, uint64_t delta, bool is_decr)
{
    if (is_decr) {
        return number > delta ? number - delta : 0;
    }
    return number + delta;
}

bool source_exptime(int64_t exptime, int64_t *seconds, bool *is_relative)
{
    *is_relative = exptime > 0 && exptime <= 30 * 86400;
    /* What is over is put where it is over in every time zone and for every type; a TIMESTAMP ends in 2038. */
    *seconds = exptime < 0 ? 2 * 86400 : *is_relative ? exptime : MIN(exptime, INT64_C(2147483647) - 2 * 86400);
    return exptime != 0;
}
