#include "proxy/database/mapping.h"

#include <stdarg.h>
#include <strings.h>

struct check {
    const struct source *source;
    const struct mapping_table *table;
    mapping_report report;
    void *ctx;
    uint32_t errors;
};

void mapping_table_deinit(struct mapping_table *table)
{
    free(table->columns);
    free(table->unique);
    *table = (struct mapping_table){0};
}

static void say(struct check *check, bool is_error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(struct check *check, bool is_error, const char *fmt, ...)
{
    char text[512];
    va_list args;
    int n = snprintf(text, sizeof text, "namespace %s, table %s: ", check->source->namespace->name, check->source->config->table);
    size_t at = MIN((size_t)n, sizeof text - 1);
    va_start(args, fmt);
    vsnprintf(text + at, sizeof text - at, fmt, args);
    va_end(args);
    check->errors += is_error;
    check->report(check->ctx, is_error, text);
}

/* Column names are the same in any case, as the server has it. */
static bool is_same_name(const char *a, const char *b)
{
    return strcasecmp(a, b) == 0;
}

static const struct mapping_column *find(const struct mapping_table *table, const char *name)
{
    for (uint32_t i = 0; i < table->column_count; i++) {
        if (is_same_name(table->columns[i].name, name)) {
            return &table->columns[i];
        }
    }
    return NULL;
}

static bool has_word(const char *type, const char *const *words)
{
    size_t len = strspn(type, "abcdefghijklmnopqrstuvwxyz");
    for (; *words != NULL; words++) {
        if (strlen(*words) == len && strncmp(type, *words, len) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_writable(const struct check *check)
{
    return check->source->namespace->write == WRITE_THROUGH;
}

/* A column that the mapping names: it is there, and of one of these types; NULL for any. */
static void check_column(struct check *check, const char *option, const char *name, const char *const *types, bool must_be_unsigned,
                         const char *wanted)
{
    if (name == NULL) {
        return;
    }
    const struct mapping_column *column = find(check->table, name);
    if (column == NULL) {
        say(check, true, "%s: there is no column %s", option, name);
        return;
    }
    bool is_fit = types == NULL || (has_word(column->type, types) && (!must_be_unsigned || strstr(column->type, "unsigned") != NULL));
    if (!is_fit) {
        say(check, true, "%s: column %s is %s, and must be %s", option, name, column->type, wanted);
    }
    if (column->is_generated && is_writable(check)) {
        say(check, true, "%s: column %s is generated, and write: through has to write it", option, name);
    }
}

static void check_columns(struct check *check)
{
    static const char *const integers[] = {"tinyint", "smallint", "mediumint", "int", "bigint", NULL};
    static const char *const bigint[] = {"bigint", NULL};
    static const char *const times[] = {"datetime", "timestamp", NULL};
    const struct config_source *config = check->source->config;
    for (uint32_t i = 0; i < check->source->key.count; i++) {
        check_column(check, config->key != NULL ? "key" : "key_column", check->source->key.columns[i], NULL, false, "");
    }
    check_column(check, "value_column", config->value_column, NULL, false, "");
    for (uint32_t i = 0; check->source->is_json && i < check->source->value_count; i++) {
        check_column(check, "value_columns", config->value_columns[i], NULL, false, "");
    }
    check_column(check, "flags_column", config->flags_column, integers, false, "an integer");
    check_column(check, "version_column", config->version_column, bigint, true, "BIGINT UNSIGNED");
    check_column(check, "expires_column", config->expires_column, times, false, "DATETIME or TIMESTAMP");
    const struct mapping_column *flags = config->flags_column != NULL ? find(check->table, config->flags_column) : NULL;
    bool is_small = flags != NULL && has_word(flags->type, integers) && strncmp(flags->type, "bigint", 6) != 0 &&
                    (strncmp(flags->type, "int", 3) != 0 || strstr(flags->type, "unsigned") == NULL);
    if (is_small && is_writable(check)) {
        say(check, false, "flags_column: column %s is %s: larger flags will be refused; INT UNSIGNED has room for all", flags->name, flags->type);
    }
    const struct mapping_column *expires = config->expires_column != NULL ? find(check->table, config->expires_column) : NULL;
    if (expires != NULL && is_writable(check) && !expires->is_nullable) {
        say(check, true, "expires_column: column %s is NOT NULL, and an entry without expiry is written as NULL", expires->name);
    }
}

static bool is_key(const struct source *source, const char *column)
{
    for (uint32_t i = 0; i < source->key.count; i++) {
        if (is_same_name(source->key.columns[i], column)) {
            return true;
        }
    }
    return false;
}

/* How well a unique index serves the key: its first columns are the key columns, in any order; exactly: and there are no more. */
static void check_unique(struct check *check)
{
    const struct mapping_table *table = check->table;
    const struct source *source = check->source;
    bool is_prefix = false;
    bool is_exact = false;
    for (uint32_t begin = 0, end; begin < table->unique_count; begin = end) {
        uint32_t matched = 0;
        for (end = begin; end < table->unique_count && strcmp(table->unique[end].index, table->unique[begin].index) == 0; end++) {
            matched += end - begin == matched && is_key(source, table->unique[end].column);
        }
        is_prefix = is_prefix || matched == source->key.count;
        is_exact = is_exact || (matched == source->key.count && end - begin == matched);
    }
    if (!is_prefix) {
        say(check, false, "no unique index begins with the key column%s %s%s: every load may have to read the whole table",
            source->key.count > 1 ? "s" : "", source->key.columns[0], source->key.count > 1 ? ", …" : "");
    } else if (!is_exact && is_writable(check)) {
        say(check, false, "the unique index has more columns than the key (%s%s): a key of which there are several rows can not be written",
            source->key.columns[0], source->key.count > 1 ? ", …" : "");
    }
}

static bool is_written(const struct source *source, const char *column)
{
    const struct config_source *config = source->config;
    const char *const others[] = {config->value_column, config->flags_column, config->version_column, config->expires_column};
    bool is_found = is_key(source, column);
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        is_found = is_found || (others[i] != NULL && is_same_name(others[i], column));
    }
    for (uint32_t i = 0; source->is_json && i < source->value_count; i++) {
        is_found = is_found || is_same_name(config->value_columns[i], column);
    }
    return is_found;
}

static void check_writes(struct check *check)
{
    const struct mapping_table *table = check->table;
    if (!table->is_view && !table->is_transactional) {
        say(check, true, "its engine, %s, has no transactions: a write that fails could be half done", table->engine);
    }
    for (uint32_t i = 0; i < table->column_count; i++) {
        const struct mapping_column *column = &table->columns[i];
        bool is_needed = !column->is_nullable && !column->has_default && !column->is_generated;
        if (is_needed && !is_written(check->source, column->name)) {
            say(check, true, "column %s is NOT NULL, has no default and is not mapped: no row can be inserted", column->name);
        }
    }
    if (check->source->config->version_column == NULL) {
        say(check, false, "without version_column, cas commands are refused");
    }
}

uint32_t mapping_check(const struct source *source, const struct mapping_table *table, mapping_report report, void *ctx)
{
    struct check check = {.source = source, .table = table, .report = report, .ctx = ctx};
    if (!table->is_there) {
        say(&check, true, "there is no such table%s",
            source->config->kind == SOURCE_ENTRIES ? "; outrigger --init-database --config FILE creates it" : ", or the account may not see it");
        return check.errors;
    }
    check_columns(&check);
    if (!table->is_view) {
        check_unique(&check);
    }
    if (is_writable(&check)) {
        check_writes(&check);
    }
    return check.errors;
}
