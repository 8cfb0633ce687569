#include "proxy/database/source.h"

#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>

/* --- texts --- */

static struct span json_label(const char *name)
{
    json_t *text = json_string(name);
    char *quoted = text != NULL ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
    json_decref(text);
    if (quoted == NULL) {
        return span_of(xstrdup("\"\":"), 3); /* no identifier that the configuration lets through */
    }
    size_t len = strlen(quoted);
    char *label = xmalloc(len + 2);
    memcpy(label, quoted, len);
    memcpy(label + len, ":", 2);
    free(quoted);
    return span_of(label, len + 1);
}

void source_init(struct source *source, const struct config_namespace *namespace, uint64_t max_value_size)
{
    const struct config_source *config = namespace->source;
    *source = (struct source){
        .namespace = namespace,
        .config = config,
        .prefix_len = config->kind == SOURCE_ENTRIES ? 0 : strlen(namespace->prefix),
        .is_json = config->value_column == NULL,
        .value_count = config->value_column == NULL ? config->value_column_count : 1,
        .max_value_size = max_value_size,
    };
    struct reason why;
    if (config->key == NULL) {
        key_template_of_column(config->key_column, &source->key);
    } else if (key_template_parse(config->key, &source->key, &why) == OK) {
        source->template_skip = source->prefix_len;
    } else {
        fprintf(stderr, "key %s: %s\n", config->key, why.text); /* the configuration lets none through */
        abort();
    }
    source->labels = xcalloc(source->value_count, sizeof *source->labels);
    for (uint32_t i = 0; source->is_json && i < source->value_count; i++) {
        source->labels[i] = json_label(config->value_columns[i]);
    }
}

void source_deinit(struct source *source)
{
    for (uint32_t i = 0; i < source->value_count; i++) {
        free((char *)(uintptr_t)source->labels[i].data);
    }
    free(source->labels);
    key_template_deinit(&source->key);
    *source = (struct source){0};
}

struct span source_row_key(const struct source *source, struct span key)
{
    size_t skip = MIN(source->prefix_len, key.len);
    return span_of(key.data + skip, key.len - skip);
}

bool source_split(const struct source *source, struct span row_key, struct span fields[KEY_FIELDS_MAX])
{
    return key_template_split(&source->key, source->template_skip, row_key, fields);
}

/* The length of the UTF-8 sequence at the beginning, or 0. */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
    if (s[0] < 0x80) {
        return 1;
    }
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n > len) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool is_overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool is_beyond = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f); /* surrogates; the end of Unicode */
    return is_overlong || is_beyond ? 0 : n;
}

bool source_is_utf8(struct span text)
{
    size_t at = 0;
    while (at < text.len) {
        size_t n = utf8_sequence((const unsigned char *)text.data + at, text.len - at);
        if (n == 0) {
            return false;
        }
        at += n;
    }
    return true;
}

/* --- SQL --- */

static void put_identifier(FILE *out, const char *name, size_t len)
{
    fputc('`', out);
    for (size_t i = 0; i < len; i++) {
        if (name[i] == '`') {
            fputc('`', out);
        }
        fputc(name[i], out);
    }
    fputc('`', out);
}

void source_put_column(FILE *out, const char *name)
{
    put_identifier(out, name, strlen(name));
}

void source_put_table(FILE *out, const char *name)
{
    const char *dot = strchr(name, '.');
    if (dot != NULL) {
        put_identifier(out, name, (size_t)(dot - name));
        fputc('.', out);
        name = dot + 1;
    }
    source_put_column(out, name);
}

static const char *value_name(const struct source *source, uint32_t i)
{
    return source->is_json ? source->config->value_columns[i] : source->config->value_column;
}

/* The SOURCE_SIZE column. OCTET_LENGTH is the one that counts bytes in every sql_mode. */
static void put_size(FILE *out, const struct source *source, const bool *is_guarded)
{
    fputs("0", out);
    for (uint32_t i = 0; is_guarded != NULL && i < source->value_count; i++) {
        if (is_guarded[i]) {
            fputs("+COALESCE(OCTET_LENGTH(", out);
            source_put_column(out, value_name(source, i));
            fputs("),0)", out);
        }
    }
}

static void put_values(FILE *out, const struct source *source, const bool *is_guarded)
{
    for (uint32_t i = 0; i < source->value_count; i++) {
        fputs(", ", out);
        if (is_guarded != NULL && is_guarded[i]) {
            fputs("IF(OCTET_LENGTH(", out);
            source_put_column(out, value_name(source, i));
            fprintf(out, ")<=%" PRIu64 ",", source->max_value_size);
            source_put_column(out, value_name(source, i));
            fputs(",NULL)", out);
        } else {
            source_put_column(out, value_name(source, i));
        }
    }
}

/* Which rows: those that equal a key in the database's eyes. */
static void put_match(FILE *out, const struct source *source, uint32_t key_count)
{
    const struct key_template *key = &source->key;
    if (key_count == 1) {
        for (uint32_t i = 0; i < key->count; i++) {
            fputs(i > 0 ? " AND " : "", out);
            source_put_column(out, key->columns[i]);
            fputs(" = ?", out);
        }
        return;
    }
    for (uint32_t i = 0; i < key->count; i++) {
        fputs(i > 0 ? "," : key->count > 1 ? "(" : "", out);
        source_put_column(out, key->columns[i]);
    }
    fputs(key->count > 1 ? ") IN (" : " IN (", out);
    for (uint32_t k = 0; k < key_count; k++) {
        fputs(k > 0 ? "," : "", out);
        for (uint32_t i = 0; i < key->count; i++) {
            fputs(i > 0 ? ",?" : key->count > 1 ? "(?" : "?", out);
        }
        fputs(key->count > 1 ? ")" : "", out);
    }
    fputs(")", out);
}

/* What stands behind the values. */
static void put_rest(FILE *out, const struct source *source)
{
    for (uint32_t i = 1; i < source->key.count; i++) {
        fputs(", ", out);
        source_put_column(out, source->key.columns[i]);
    }
    if (source->config->version_column != NULL) {
        fputs(", ", out);
        source_put_column(out, source->config->version_column);
    }
}

char *source_sql(const struct source *source, const struct source_select *select)
{
    const struct config_source *config = source->config;
    char *sql = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&sql, &len);
    if (out == NULL) {
        return NULL;
    }
    fputs("SELECT ", out);
    source_put_column(out, source->key.columns[0]);
    fputs(", ", out);
    if (config->flags_column != NULL) {
        source_put_column(out, config->flags_column);
    } else {
        fputs("NULL", out);
    }
    fputs(", ", out);
    if (config->expires_column != NULL) {
        fputs("TIMESTAMPDIFF(MICROSECOND, NOW(6), ", out);
        source_put_column(out, config->expires_column);
        fputs(")", out);
    } else {
        fputs("NULL", out);
    }
    fputs(", ", out);
    put_size(out, source, select->is_guarded);
    fputs(select->witness != NULL ? ", outrigger_witness" : ", NULL", out);
    put_values(out, source, select->is_guarded);
    put_rest(out, source);
    fputs(" FROM ", out);
    if (select->witness != NULL) {
        fprintf(out, "(%s) AS outrigger_w LEFT JOIN ", select->witness);
    }
    source_put_table(out, config->table);
    fputs(select->witness != NULL ? " ON " : " WHERE ", out);
    put_match(out, source, select->key_count);
    fprintf(out, " LIMIT %u", SOURCE_ROWS_MAX * select->key_count);
    fputs(select->is_locking ? " LOCK IN SHARE MODE" : "", out);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(sql);
        return NULL;
    }
    return sql;
}

/* --- flags and expiry --- */

enum err source_version(struct span text, uint64_t *out)
{
    uint64_t version = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint64_t digit = (uint64_t)(text.data[i] - '0');
        if (text.data[i] < '0' || text.data[i] > '9' || __builtin_mul_overflow(version, 10, &version) ||
            __builtin_add_overflow(version, digit, &version)) {
            return ERR_DATABASE;
        }
    }
    *out = version;
    return OK;
}

enum err source_flags(struct span text, uint32_t *out)
{
    uint64_t flags;
    if (source_version(text, &flags) != OK || flags > UINT32_MAX) {
        return ERR_DATABASE;
    }
    *out = (uint32_t)flags;
    return OK;
}

bool source_expiry(int64_t left_us, int64_t *expires_in_s)
{
    *expires_in_s = MAX(left_us / 1000000, 1);
    return left_us > 0;
}

/* --- JSON --- */

/* A value under construction, in a chunk that grows up to the limit. The first failure stays. */
struct writer {
    struct chunk *chunk;
    size_t len;
    size_t limit;
    enum err err;
};

/* Room for `len` more bytes (slack not counted), or NULL. */
static char *reserve(struct writer *w, size_t len)
{
    if (w->err != OK) {
        return NULL;
    }
    if (len > w->limit - w->len) {
        w->err = ERR_TOO_LARGE;
        return NULL;
    }
    size_t cap = w->chunk == NULL ? 0 : w->chunk->cap;
    if (w->chunk == NULL || cap - w->len < len + ROW_VALUE_SLACK) {
        size_t size = MIN(MAX(cap * 2, w->len + len), w->limit) + ROW_VALUE_SLACK;
        struct chunk *grown = chunk_get(NULL, size);
        if (grown == NULL) {
            w->err = ERR_NOMEM;
            return NULL;
        }
        if (w->chunk != NULL) {
            memcpy(grown->data, w->chunk->data, w->len);
            chunk_unref(&w->chunk);
        }
        w->chunk = grown;
    }
    return w->chunk->data + w->len;
}

static void put(struct writer *w, const char *data, size_t len)
{
    char *to = reserve(w, len);
    if (to != NULL) {
        memcpy(to, data, len);
        w->len += len;
    }
}

static int put_dumped(const char *data, size_t len, void *ctx)
{
    struct writer *w = ctx;
    put(w, data, len);
    return w->err == OK ? 0 : -1;
}

static void put_base64(struct writer *w, struct span bytes)
{
    static const char head[] = "{\"base64\":\"";
    put(w, head, sizeof head - 1);
    size_t len = (bytes.len + 2) / 3 * 4;
    char *to = reserve(w, len + 1); /* EVP_EncodeBlock ends it with a zero byte */
    if (to != NULL) {
        EVP_EncodeBlock((unsigned char *)to, (const unsigned char *)bytes.data, (int)bytes.len);
        w->len += len;
    }
    put(w, "\"}", 2);
}

static void put_text(struct writer *w, struct span bytes)
{
    if (bytes.len > w->limit - MIN(w->len, w->limit)) {
        w->err = w->err != OK ? w->err : ERR_TOO_LARGE; /* before jansson copies it */
        return;
    }
    json_t *text = json_stringn(bytes.data, bytes.len); /* NULL also for what is not UTF-8 */
    if (text == NULL) {
        put_base64(w, bytes);
        return;
    }
    if (json_dump_callback(text, put_dumped, w, JSON_ENCODE_ANY) != 0 && w->err == OK) {
        w->err = ERR_NOMEM;
    }
    json_decref(text);
}

static void put_bits(struct writer *w, struct span bytes)
{
    uint64_t number = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        number = number << 8 | (unsigned char)bytes.data[i];
    }
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRIu64, number);
    put(w, text, (size_t)len);
}

static size_t digits_at(struct span s, size_t at)
{
    size_t n = 0;
    while (at + n < s.len && s.data[at + n] >= '0' && s.data[at + n] <= '9') {
        n++;
    }
    return n;
}

/* Whether s is a JSON number. */
static bool is_number(struct span s)
{
    size_t at = s.len > 0 && s.data[0] == '-';
    size_t n = digits_at(s, at);
    if (n == 0 || (n > 1 && s.data[at] == '0')) {
        return false;
    }
    at += n;
    if (at < s.len && s.data[at] == '.') {
        n = digits_at(s, at + 1);
        if (n == 0) {
            return false;
        }
        at += 1 + n;
    }
    if (at < s.len && (s.data[at] == 'e' || s.data[at] == 'E')) {
        at++;
        at += at < s.len && (s.data[at] == '+' || s.data[at] == '-');
        n = digits_at(s, at);
        if (n == 0) {
            return false;
        }
        at += n;
    }
    return at == s.len;
}

/* The database's own digits: nothing goes through a double. ZEROFILL's zeros are decoration, and JSON has no place for them. */
static void put_number(struct writer *w, struct span text)
{
    bool is_negative = text.len > 0 && text.data[0] == '-';
    struct span digits = span_of(text.data + is_negative, text.len - is_negative);
    while (digits.len > 1 && digits.data[0] == '0' && digits.data[1] >= '0' && digits.data[1] <= '9') {
        digits.data++;
        digits.len--;
    }
    if (!is_number(digits)) {
        put_text(w, text);
        return;
    }
    put(w, "-", is_negative);
    put(w, digits.data, digits.len);
}

enum err source_json(const struct source *source, const struct column *columns, struct row *row)
{
    struct writer w = {.limit = source->max_value_size};
    size_t estimate = 2;
    for (uint32_t i = 0; i < source->value_count; i++) {
        estimate += source->labels[i].len + columns[i].bytes.len + columns[i].bytes.len / 8 + 8;
    }
    reserve(&w, MIN(estimate, w.limit));
    put(&w, "{", 1);
    for (uint32_t i = 0; i < source->value_count && w.err == OK; i++) {
        put(&w, ",", i > 0);
        put(&w, source->labels[i].data, source->labels[i].len);
        if (columns[i].is_null) {
            put(&w, "null", 4);
        } else if (columns[i].kind == COLUMN_NUMBER) {
            put_number(&w, columns[i].bytes);
        } else if (columns[i].kind == COLUMN_BITS) {
            put_bits(&w, columns[i].bytes);
        } else {
            put_text(&w, columns[i].bytes);
        }
    }
    put(&w, "}", 1);
    if (w.err != OK) {
        chunk_unref(&w.chunk);
        return w.err;
    }
    row->value = w.chunk;
    row->value_len = w.len;
    return OK;
}
