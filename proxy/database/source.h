/* What:    a namespace's table: the SQL that loads one row of it, which row a key means, and how a row becomes a value.
 * Owns:    struct source owns its texts; the configuration is borrowed.
 * Threads: immutable once made; any thread. A struct row belongs to one thread.
 * Fails:   ERR_TOO_LARGE for a value over max_value_size, ERR_NOMEM, ERR_DATABASE for a row that can not be mapped.
 *
 * Row key: the key without the namespace's prefix (of the built-in table: the whole key). Its fields, one for each key column, are
 *          found by the template; a key that does not match it has no row. Databases find more than they are asked for ("12abc"
 *          finds 12, "007" finds 7, "Bash" finds "bash", "x" finds "x "), so the key columns are selected too, and only a row
 *          whose key texts equal the fields byte for byte is that row: a row has exactly one key. With anything else, an
 *          invalidation by key would not reach what was loaded.
 * Value:   value_column: its bytes, as the database writes them in utf8mb4; a NULL is an absent row.
 *          value_columns: one JSON object, members in the configured order:
 *              integers, decimals, floats and YEAR    numbers, in the database's own digits (leading zeros of ZEROFILL left out)
 *              BIT                                    an unsigned number
 *              text, dates, times, enums, JSON        a string
 *              binary columns                         a string if the bytes are UTF-8, otherwise {"base64": "…"}
 *              NULL                                   null
 * Flags:   flags_column as an unsigned 32-bit number; NULL is 0.
 * Version: version_column as an unsigned 64-bit number; NULL, or no such column, is 0.
 * Expiry:  by the database's clock; NULL (or a zero date) is none. A row past it is absent, one that has less than a second left
 *          has 1 second.
 */
#ifndef PROXY_DATABASE_SOURCE_H
#define PROXY_DATABASE_SOURCE_H

#include "common/buffer.h"
#include "common/config.h"
#include "common/key_template.h"

/* Room behind every value: whoever stores it can end it with "\r\n" in place. */
#define ROW_VALUE_SLACK 2

/* More than one row may equal a key in the database's eyes; this many for each key are looked at. */
#define SOURCE_ROWS_MAX 16U

struct source {
    const struct config_namespace *namespace; /* NULL: this namespace has no source */
    const struct config_source *config;
    struct key_template key;
    size_t prefix_len;      /* of a key, that is not part of the row key */
    size_t template_skip;   /* of the template, likewise */
    uint32_t value_count;   /* value columns: 1, or those of the JSON object */
    bool is_json;
    struct span *labels;    /* of the JSON object's members: "name": with quotes and colon */
    uint64_t max_value_size;
};

/* What the SELECT returns, in this order; behind the values the key columns beside the first, and the version where it is mapped. SOURCE_SIZE is the length of all guarded values together, SOURCE_WITNESS what the witness said. */
enum source_column { SOURCE_KEY, SOURCE_FLAGS, SOURCE_EXPIRES, SOURCE_SIZE, SOURCE_WITNESS, SOURCE_VALUES };

static inline uint32_t source_key_at(const struct source *source, uint32_t i)
{
    return i == 0 ? SOURCE_KEY : SOURCE_VALUES + source->value_count + i - 1;
}

static inline uint32_t source_version_at(const struct source *source) /* when mapped */
{
    return SOURCE_VALUES + source->value_count + source->key.count - 1;
}

static inline uint32_t source_column_count(const struct source *source)
{
    return source_version_at(source) + (source->config->version_column != NULL);
}

enum column_kind { COLUMN_TEXT, COLUMN_NUMBER, COLUMN_BITS };

struct column {
    enum column_kind kind;
    bool is_null;
    struct span bytes;
};

struct row {
    bool found;
    uint32_t flags;
    uint64_t version;     /* of version_column; 0: none */
    int64_t expires_in_s; /* -1: no expiry of its own */
    struct chunk *value;  /* when found; chunk_get(NULL, …), with ROW_VALUE_SLACK bytes to spare */
    size_t value_len;
};

void source_init(struct source *source, const struct config_namespace *namespace, uint64_t max_value_size);
void source_deinit(struct source *source);

/* The part of a key that names the row; the key has the namespace's prefix. */
struct span source_row_key(const struct source *source, struct span key);

/* The fields of a row key, in the order of source->key.columns; false: the key has no row. */
bool source_split(const struct source *source, struct span row_key, struct span fields[KEY_FIELDS_MAX]);

/* Columns of text and numbers have no value that is not UTF-8. */
bool source_is_utf8(struct span text);

/* What a SELECT is like, beside its source. */
struct source_select {
    uint32_t key_count; /* row keys, of which some may be the same; the parameters are the fields of each, one key after the other */
    /* By value column, or NULL: a guarded one comes as NULL when it is longer than a value may be, so that it does not travel at all. */
    const bool *is_guarded;
    /* Or NULL: a SELECT of one row with one column named outrigger_witness. It says something about the server as of this very
     * statement: the rows come joined to it, and when there are none, one row of NULLs does. */
    const char *witness;
    bool is_locking; /* waits for whoever has the rows locked, and sees what they have committed: LOCK IN SHARE MODE, which MySQL and MariaDB both have */
};

/* The SELECT; to be freed. */
char *source_sql(const struct source *source, const struct source_select *select);

/* Names in SQL. */
void source_put_column(FILE *out, const char *name);
void source_put_table(FILE *out, const char *name);

/* The text of flags_column, or of version_column; empty text is NULL's. */
enum err source_flags(struct span text, uint32_t *out);
enum err source_version(struct span text, uint64_t *out);

/* The microseconds that a row has left; false when its time is over. */
bool source_expiry(int64_t left_us, int64_t *expires_in_s);

/* Makes the value columns into the row's value: a JSON object. */
enum err source_json(const struct source *source, const struct column *columns, struct row *row);

#endif
