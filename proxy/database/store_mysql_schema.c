#include "proxy/database/store_mysql.h"

#define TABLE_MAX 4096 /* columns that a table can have */

/* Runs a query and hands out its rows; *result is to be freed. */
static enum err ask(struct store_connection *c, const char *sql, MYSQL_RES **result, char *error, size_t size)
{
    *result = mysql_real_query(c->mysql, sql, (unsigned long)strlen(sql)) == 0 ? mysql_store_result(c->mysql) : NULL;
    if (*result != NULL) {
        return OK;
    }
    unsigned code = mysql_errno(c->mysql);
    snprintf(error, size, "%s (%u)", code != 0 ? mysql_error(c->mysql) : "no result", code);
    enum err err = store_mysql_classify(code);
    return err == OK ? ERR_DATABASE : err;
}

enum err store_mysql_run(struct store_connection *c, const char *sql, char *error, size_t size)
{
    if (mysql_real_query(c->mysql, sql, (unsigned long)strlen(sql)) == 0) {
        return OK;
    }
    unsigned code = mysql_errno(c->mysql);
    snprintf(error, size, "%s (%u)", mysql_error(c->mysql), code);
    enum err err = store_mysql_classify(code);
    return err == OK ? ERR_DATABASE : err;
}

/* "WHERE …" for one table; the names are identifiers that the configuration has let through, so nothing in them ends a string. */
static void put_where(char *out, size_t size, const char *alias, const char *table)
{
    const char *dot = strchr(table, '.');
    if (dot != NULL) {
        snprintf(out, size, "WHERE %s.table_schema='%.*s' AND %s.table_name='%s'", alias, (int)(dot - table), table, alias, dot + 1);
    } else {
        snprintf(out, size, "WHERE %s.table_schema=DATABASE() AND %s.table_name='%s'", alias, alias, table);
    }
}

static void copy_text(char out[MAPPING_NAME_SIZE], const char *text)
{
    snprintf(out, MAPPING_NAME_SIZE, "%s", text != NULL ? text : "");
}

static bool is_yes(const char *text)
{
    return text != NULL && strcmp(text, "1") == 0;
}

static enum err describe_table(struct store_connection *c, const char *where, struct mapping_table *table, char *error, size_t size)
{
    char sql[512];
    MYSQL_RES *result;
    snprintf(sql, sizeof sql,
             "SELECT t.table_type LIKE '%%VIEW%%', t.engine, e.transactions='YES' FROM information_schema.tables t LEFT JOIN "
             "information_schema.engines e ON e.engine=t.engine %s",
             where);
    enum err err = ask(c, sql, &result, error, size);
    if (err == OK) {
        MYSQL_ROW row = mysql_fetch_row(result);
        table->is_there = row != NULL;
        if (row != NULL) {
            table->is_view = is_yes(row[0]);
            copy_text(table->engine, row[1]);
            table->is_transactional = is_yes(row[2]);
        }
        mysql_free_result(result);
    }
    return err;
}

static enum err describe_columns(struct store_connection *c, const char *where, struct mapping_table *table, char *error, size_t size)
{
    char sql[512];
    MYSQL_RES *result;
    snprintf(sql, sizeof sql,
             "SELECT t.column_name, LOWER(t.column_type), t.is_nullable='YES', t.column_default IS NOT NULL OR t.extra LIKE '%%auto_increment%%', "
             "COALESCE(t.generation_expression,'')<>'' FROM information_schema.columns t %s ORDER BY t.ordinal_position",
             where);
    enum err err = ask(c, sql, &result, error, size);
    if (err != OK) {
        return err;
    }
    table->columns = xcalloc(MIN(mysql_num_rows(result), TABLE_MAX) + 1, sizeof *table->columns);
    for (MYSQL_ROW row; table->column_count < TABLE_MAX && (row = mysql_fetch_row(result)) != NULL;) {
        struct mapping_column *column = &table->columns[table->column_count++];
        copy_text(column->name, row[0]);
        copy_text(column->type, row[1]);
        column->is_nullable = is_yes(row[2]);
        column->has_default = is_yes(row[3]);
        column->is_generated = is_yes(row[4]);
    }
    mysql_free_result(result);
    return OK;
}

static enum err describe_unique(struct store_connection *c, const char *where, struct mapping_table *table, char *error, size_t size)
{
    char sql[512];
    MYSQL_RES *result;
    /* An index on the beginning of a column is no index of the column. */
    snprintf(sql, sizeof sql,
             "SELECT t.index_name, IF(t.sub_part IS NULL, t.column_name, '') FROM information_schema.statistics t %s AND t.non_unique=0 "
             "ORDER BY t.index_name, t.seq_in_index",
             where);
    enum err err = ask(c, sql, &result, error, size);
    if (err != OK) {
        return err;
    }
    table->unique = xcalloc(MIN(mysql_num_rows(result), TABLE_MAX) + 1, sizeof *table->unique);
    for (MYSQL_ROW row; table->unique_count < TABLE_MAX && (row = mysql_fetch_row(result)) != NULL;) {
        struct mapping_unique *unique = &table->unique[table->unique_count++];
        copy_text(unique->index, row[0]);
        copy_text(unique->column, row[1]);
    }
    mysql_free_result(result);
    return OK;
}

enum err store_mysql_describe(struct store_connection *c, uint32_t source, struct mapping_table *table, char *error, size_t size)
{
    char where[256];
    *table = (struct mapping_table){0};
    put_where(where, sizeof where, "t", c->options.sources[source].config->table);
    enum err err = describe_table(c, where, table, error, size);
    err = err == OK ? describe_columns(c, where, table, error, size) : err;
    err = err == OK ? describe_unique(c, where, table, error, size) : err;
    if (err != OK) {
        mapping_table_deinit(table);
    }
    return err;
}
