/* What:    a write on its way through one connection: what the parts of store_mysql_write.c share.
 * Owns:    struct writing is store_mysql_write()'s, on its stack; struct write_source, with its prepared statements, the connection's.
 * Threads: the connection's.
 * Fails:   every step with a fault: FAULT_NONE, or how the write ends; the write then has its outcome and text.
 *
 *   store_mysql_statement.c  what the server's errors mean, and the prepared statements with their parameters
 *   store_mysql_row.c        the row as it is: LOCK, and its value
 *   store_mysql_value.c      the row as it is to be
 */
#ifndef PROXY_DATABASE_STORE_MYSQL_WRITING_H
#define PROXY_DATABASE_STORE_MYSQL_WRITING_H

#include "proxy/database/source_write.h"
#include "proxy/database/store_mysql.h"

#define WRITING_NUMBER_SIZE 24

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

    char digits[WRITING_NUMBER_SIZE];
    unsigned code; /* the last error */
};

/* --- store_mysql_statement.c --- */

enum fault writing_end(struct writing *w, enum write_outcome outcome);
/* The table can not express it. */
enum fault writing_refuse(struct writing *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void writing_fail(struct writing *w, enum err err, const char *text);
/* What an error means, while nothing that commits has been sent. The write has its text, whatever becomes of it. */
enum fault writing_judge(struct writing *w, unsigned code, const char *text);
enum fault writing_judge_stmt(struct writing *w, MYSQL_STMT *stmt);
/* What an error means that came back for what commits: the server's word counts only where it can not have begun to commit. */
enum fault writing_judge_commit(struct writing *w, enum fault fault);

enum fault writing_run_text(struct writing *w, const char *sql);
/* Prepares it, too, when it is first needed on this connection. `commits`: in doubt once it is sent. */
enum fault writing_run(struct writing *w, enum write_statement statement, bool commits);
/* Learns how the parameters are to be sent. */
enum fault writing_inspect(struct writing *w);
/* Closes the statements, and forgets the columns. */
void writing_forget(struct write_source *at);

/* --- store_mysql_row.c --- */

/* Whether it may make a row where there is none. */
bool writing_may_create(const struct write *write);
/* Locks the row until the transaction ends, and says whether it is there; FAULT_NO_ROW: none can have this key. */
enum fault writing_lock(struct writing *w);
/* The row as loads see it, in this transaction. Its value is the caller's. */
enum fault writing_load(struct writing *w, struct row *out);

/* --- store_mysql_value.c --- */

/* The client's value, as members. */
enum fault writing_take_value(struct writing *w);
/* append, prepend, incr, decr of a row that is there: from its value. */
enum fault writing_compute(struct writing *w);

#endif
