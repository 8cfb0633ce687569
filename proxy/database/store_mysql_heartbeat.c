#include "proxy/database/store_mysql.h"

#include <inttypes.h>

/* `schema`.`table`, as the configuration has checked it. */
static void put_table(char *out, size_t size, const char *name)
{
    const char *dot = strchr(name, '.');
    if (dot != NULL) {
        snprintf(out, size, "`%.*s`.`%s`", (int)(dot - name), name, dot + 1);
    } else {
        snprintf(out, size, "`%s`", name);
    }
}

char *store_mysql_witness(const struct store_options *options)
{
    char table[160];
    char *sql = NULL;
    if (options->role == STORE_PRIMARY_OF_SEVERAL) {
        return xstrdup("SELECT @@global.read_only AS outrigger_witness");
    }
    if (options->role == STORE_REPLICA) {
        put_table(table, sizeof table, options->config->heartbeat_table);
        if (asprintf(&sql, "SELECT version AS outrigger_witness FROM %s WHERE id = 1", table) < 0) {
            return NULL;
        }
    }
    return sql;
}

static enum err fail_beat(struct store_connection *c, char *error, size_t size)
{
    unsigned code = mysql_errno(c->mysql);
    snprintf(error, size, "heartbeat_table %s: %s (%u)", c->options.config->heartbeat_table, mysql_error(c->mysql), code);
    enum err err = store_mysql_classify(code);
    return err == OK || err == ERR_CONFLICT ? ERR_DATABASE : err;
}

enum err store_mysql_beat(struct store_connection *c, uint64_t version, uint64_t owner, uint64_t lease_us, bool *is_owner, char *error,
                          size_t size)
{
    char table[160];
    char sql[640];
    put_table(table, sizeof table, c->options.config->heartbeat_table);
    int len = snprintf(sql, sizeof sql,
                       "UPDATE %s SET version = GREATEST(version, %" PRIu64 "), owner = %" PRIu64 ", beat_at = NOW(6) WHERE id = 1 AND "
                       "(owner = %" PRIu64 " OR beat_at < NOW(6) - INTERVAL %" PRIu64 " MICROSECOND OR beat_at > NOW(6))",
                       table, version, owner, owner, lease_us);
    if (mysql_real_query(c->mysql, sql, (unsigned long)len) != 0) {
        return fail_beat(c, error, size);
    }
    *is_owner = mysql_affected_rows(c->mysql) > 0;
    return OK;
}
