/* What:    writes to a source, without the database: their SQL, and what values become in columns.
 * Owns:    texts and members that are returned are the caller's.
 * Threads: any.
 * Fails:   ERR_UNSUPPORTED with the reason: the mapping has no place for this; ERR_NOMEM.
 *
 * The parameters of each statement, in this order (those in brackets where there is such a column):
 *
 *   LOCK          keys                                                    the row's keys as texts, version and liveness, locked
 *   INSERT        keys, values, [flags], [version], [expiry]
 *   UPDATE        values, [flags], [version], [keep, expiry], keys        keep: 1 leaves the expiry as it is
 *   TOUCH         expiry, keys
 *   DELETE        keys
 *   SET_AT_ONCE   keys, values, flags, version, expiry, fence, fence      of the built-in table: no transaction needed
 *   DELETE_AT_ONCE  keys, fence
 *
 * Values are the value columns that are not key columns. An expiry is two parameters, a number of seconds or NULL, and 1 if they count
 * from now, else 0. A fence is the database's Unix time, in microseconds, until which the statement may do something: it is looked at after the row's
 * lock was had, so a statement that waited for too long does nothing.
 */
#ifndef PROXY_DATABASE_SOURCE_WRITE_H
#define PROXY_DATABASE_SOURCE_WRITE_H

#include "common/config_problems.h"
#include "proxy/database/source.h"

enum write_statement {
    STATEMENT_LOCK,
    STATEMENT_INSERT,
    STATEMENT_UPDATE,
    STATEMENT_TOUCH,
    STATEMENT_DELETE,
    STATEMENT_SET_AT_ONCE,
    STATEMENT_DELETE_AT_ONCE,
    WRITE_STATEMENTS,
};

/* What LOCK returns behind the keys, of at most two rows. Live: not past its expiry, and its value is not NULL. */
enum lock_column { LOCK_VERSION, LOCK_IS_LIVE, LOCK_COLUMNS };

#define SOURCE_VALUES_MAX 64 /* as in config.def */

char *source_write_sql(const struct source *source, enum write_statement statement);

/* The key column that a value column is, or -1. */
int source_value_key(const struct source *source, uint32_t value);

/* What is to be stored in a column. */
struct member {
    enum member_kind { MEMBER_NULL, MEMBER_TEXT, MEMBER_NUMBER, MEMBER_BYTES } kind;
    struct span bytes; /* of a number: its digits, as they were written */
    char *own;         /* to be freed: where the bytes are, unless they are part of the value */
};

/* Takes a JSON object apart into the value columns, the inverse of source_json(): one member for each, no other, and those that are
 * key columns must say what the key says. Members are to be freed whatever is returned. */
enum err source_members(const struct source *source, struct span value, const struct span fields[KEY_FIELDS_MAX],
                        struct member members[SOURCE_VALUES_MAX], struct reason *why);
void source_members_free(const struct source *source, struct member members[SOURCE_VALUES_MAX]);

/* memcached's arithmetic on a value: digits, and spaces behind them. False: it is no number. */
bool source_number(struct span value, uint64_t *out);
uint64_t source_add(uint64_t number, uint64_t delta, bool is_decr);

/* memcached's exptime as an expiry: false means none (NULL). */
bool source_exptime(int64_t exptime, int64_t *seconds, bool *is_relative);

#endif
