/* What:    whether a source's table is what its mapping says: the columns are there, their types fit, its rows can be written.
 * Owns:    struct mapping_table owns its lists.
 * Threads: one at a time.
 * Fails:   never; what is wrong is reported, one text for each problem, which names the namespace and the column.
 */
#ifndef PROXY_DATABASE_MAPPING_H
#define PROXY_DATABASE_MAPPING_H

#include "proxy/database/source.h"

#define MAPPING_NAME_SIZE 65 /* identifiers have 64 characters; ours are ASCII */

struct mapping_column {
    char name[MAPPING_NAME_SIZE];
    char type[MAPPING_NAME_SIZE]; /* as in "bigint(20) unsigned", cut */
    bool is_nullable;
    bool has_default; /* or is counted up, so that an INSERT need not name it */
    bool is_generated;
};

/* One column of a unique index; those of one index are together, in its order. */
struct mapping_unique {
    char index[MAPPING_NAME_SIZE];
    char column[MAPPING_NAME_SIZE];
};

struct mapping_table {
    bool is_there;
    bool is_view;
    bool is_transactional;
    char engine[MAPPING_NAME_SIZE];
    struct mapping_column *columns;
    uint32_t column_count;
    struct mapping_unique *unique;
    uint32_t unique_count;
};

void mapping_table_deinit(struct mapping_table *table);

/* Gets every problem. An error: what is asked of the namespace can not work; otherwise it can, but not well. */
typedef void (*mapping_report)(void *ctx, bool is_error, const char *text);

/* The number of errors. */
uint32_t mapping_check(const struct source *source, const struct mapping_table *table, mapping_report report, void *ctx);

#endif
