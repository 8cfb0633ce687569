#include "proxy/front/stats.h"

#include <inttypes.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/credentials.h"

const uint8_t stats_reply_results[REPLY_STATUS_COUNT] = {
    [REPLY_VALUE] = RESULT_HIT,
    [REPLY_MISS] = RESULT_MISS,
    [REPLY_STORED] = RESULT_STORED,
    [REPLY_NOT_STORED] = RESULT_NOT_STORED,
    [REPLY_EXISTS] = RESULT_EXISTS,
    [REPLY_NOT_FOUND] = RESULT_NOT_FOUND,
    [REPLY_DELETED] = RESULT_DELETED,
    [REPLY_TOUCHED] = RESULT_TOUCHED,
    [REPLY_NUMBER] = RESULT_NUMBER,
    [REPLY_OK] = RESULT_OK,
    [REPLY_VERSION] = RESULT_OK,
    [REPLY_STATS] = RESULT_OK,
    [REPLY_NOOP] = RESULT_OK,
    [REPLY_DEBUG] = RESULT_OK,
    [REPLY_AUTH] = RESULT_OK,
    [REPLY_AUTH_FAILED] = RESULT_REFUSED,
    [REPLY_UNAUTHENTICATED] = RESULT_REFUSED,
    [REPLY_UNKNOWN] = RESULT_REFUSED,
    [REPLY_TOO_LARGE] = RESULT_TOO_LARGE,
    [REPLY_BAD_CHUNK] = RESULT_REFUSED,
    [REPLY_NO_MEMORY] = RESULT_NO_MEMORY,
    [REPLY_NON_NUMERIC] = RESULT_REFUSED,
    [REPLY_ERROR] = RESULT_ERROR,
    [REPLY_NONE] = RESULT_OK,
};

int stats_line(FILE *out, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = fprintf(out, "STAT ");
    len += vfprintf(out, fmt, args);
    len += fprintf(out, "\r\n");
    va_end(args);
    return len;
}

static void line_u64(FILE *out, const char *name, uint64_t value)
{
    stats_line(out, "%s %" PRIu64, name, value);
}

static uint64_t since(struct front *front, enum metric metric, uint32_t index)
{
    return metrics_since(front->baseline, metric, index);
}

static uint64_t since_all(struct front *front, enum metric metric, uint32_t count)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        total += since(front, metric, i);
    }
    return total;
}

/* ---- stats ---- */

struct commands {
    uint8_t count;
    uint8_t list[8]; /* enum command */
};

#define COMMANDS(...) {sizeof((uint8_t[]){__VA_ARGS__}), {__VA_ARGS__}}

/* The requests of some commands, with any result. */
static const struct {
    const char *name;
    struct commands commands;
} request_lines[] = {
    {"cmd_get", COMMANDS(COMMAND_GET, COMMAND_GETS, COMMAND_GAT, COMMAND_GATS, COMMAND_MG)},
    {"cmd_set", COMMANDS(COMMAND_SET, COMMAND_ADD, COMMAND_REPLACE, COMMAND_APPEND, COMMAND_PREPEND, COMMAND_CAS, COMMAND_MS)},
    {"cmd_delete", COMMANDS(COMMAND_DELETE, COMMAND_MD)},
    {"cmd_flush", COMMANDS(COMMAND_FLUSH_ALL)},
    {"cmd_touch", COMMANDS(COMMAND_TOUCH, COMMAND_GAT, COMMAND_GATS)},
    {"cmd_meta", COMMANDS(COMMAND_MG, COMMAND_MS, COMMAND_MD, COMMAND_MA, COMMAND_MN, COMMAND_ME)},
};

/* The replies with some result to some commands. `ma` counts as incr, whichever way it goes. */
static const struct {
    const char *name;
    struct commands commands;
    enum reply_result result;
} reply_lines[] = {
    {"delete_misses", COMMANDS(COMMAND_DELETE, COMMAND_MD), RESULT_NOT_FOUND},
    {"delete_hits", COMMANDS(COMMAND_DELETE, COMMAND_MD), RESULT_DELETED},
    {"incr_misses", COMMANDS(COMMAND_INCR, COMMAND_MA), RESULT_NOT_FOUND},
    {"incr_hits", COMMANDS(COMMAND_INCR, COMMAND_MA), RESULT_NUMBER},
    {"decr_misses", COMMANDS(COMMAND_DECR), RESULT_NOT_FOUND},
    {"decr_hits", COMMANDS(COMMAND_DECR), RESULT_NUMBER},
    {"cas_misses", COMMANDS(COMMAND_CAS), RESULT_NOT_FOUND},
    {"cas_hits", COMMANDS(COMMAND_CAS), RESULT_STORED},
    {"cas_badval", COMMANDS(COMMAND_CAS), RESULT_EXISTS},
    {"store_too_large", COMMANDS(COMMAND_SET, COMMAND_ADD, COMMAND_REPLACE, COMMAND_APPEND, COMMAND_PREPEND, COMMAND_CAS, COMMAND_MS), RESULT_TOO_LARGE},
    {"store_no_memory", COMMANDS(COMMAND_SET, COMMAND_ADD, COMMAND_REPLACE, COMMAND_APPEND, COMMAND_PREPEND, COMMAND_CAS, COMMAND_MS), RESULT_NO_MEMORY},
};

static uint64_t requests_of(struct front *front, enum command command)
{
    uint32_t namespaces = front->config->namespace_count;
    uint64_t total = 0;
    for (uint32_t i = 0; i < namespaces; i++) {
        total += since(front, METRIC_REQUESTS, metric_index2(command, namespaces, i));
    }
    return total;
}

static uint64_t replies_of(struct front *front, const struct commands *commands, enum reply_result result)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < commands->count; i++) {
        total += since(front, METRIC_REPLIES, metric_index2(commands->list[i], REPLY_RESULTS, result));
    }
    return total;
}

static void commands(struct front *front, FILE *out)
{
    static const struct commands touch = COMMANDS(COMMAND_TOUCH);
    static const struct commands gat = COMMANDS(COMMAND_GAT, COMMAND_GATS);
    uint32_t namespaces = front->config->namespace_count;
    for (size_t i = 0; i < ARRAY_LEN(request_lines); i++) {
        uint64_t total = 0;
        for (uint32_t k = 0; k < request_lines[i].commands.count; k++) {
            total += requests_of(front, request_lines[i].commands.list[k]);
        }
        line_u64(out, request_lines[i].name, total);
    }
    line_u64(out, "get_hits", since_all(front, METRIC_HITS, namespaces));
    line_u64(out, "get_misses", since_all(front, METRIC_MISSES, namespaces) + since_all(front, METRIC_NEGATIVE_HITS, namespaces));
    for (size_t i = 0; i < ARRAY_LEN(reply_lines); i++) {
        line_u64(out, reply_lines[i].name, replies_of(front, &reply_lines[i].commands, reply_lines[i].result));
    }
    line_u64(out, "touch_hits", replies_of(front, &touch, RESULT_TOUCHED) + replies_of(front, &gat, RESULT_HIT));
    line_u64(out, "touch_misses", replies_of(front, &touch, RESULT_NOT_FOUND) + replies_of(front, &gat, RESULT_MISS));
}

static void general(struct front *front, FILE *out)
{
    uint64_t now_ms = clock_wall_ms();
    uint64_t connections = metrics_sum(front->metrics, METRIC_CONNECTIONS, 0);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    line_u64(out, "pid", (uint64_t)getpid());
    line_u64(out, "uptime", (now_ms - front->started_ms) / 1000);
    line_u64(out, "time", now_ms / 1000);
    stats_line(out, "version 1.6.38-outrigger-%s", OUTRIGGER_VERSION);
    stats_line(out, "libevent %s", event_get_version());
    line_u64(out, "pointer_size", 8 * sizeof(void *));
    stats_line(out, "rusage_user %ld.%06ld", (long)usage.ru_utime.tv_sec, (long)usage.ru_utime.tv_usec);
    stats_line(out, "rusage_system %ld.%06ld", (long)usage.ru_stime.tv_sec, (long)usage.ru_stime.tv_usec);
    line_u64(out, "max_connections", front->config->max_connections);
    line_u64(out, "curr_connections", connections);
    line_u64(out, "total_connections", since(front, METRIC_CONNECTIONS_TOTAL, 0));
    line_u64(out, "rejected_connections", since(front, METRIC_CONNECTIONS_REFUSED, 0));
    line_u64(out, "connection_structures", connections);
    commands(front, out);
    uint64_t denied = since(front, METRIC_AUTHENTICATIONS, AUTH_DENIED);
    line_u64(out, "auth_cmds", since(front, METRIC_AUTHENTICATIONS, AUTH_GRANTED) + denied);
    line_u64(out, "auth_errors", denied);
    if (front->config->idle_timeout_ms > 0) {
        line_u64(out, "idle_kicks", since(front, METRIC_ERRORS, metric_index2(SOURCE_CLIENT, ERR_COUNT, ERR_TIMEOUT)));
    }
    line_u64(out, "bytes_read", since(front, METRIC_BYTES_READ, 0));
    line_u64(out, "bytes_written", since(front, METRIC_BYTES_WRITTEN, 0));
    line_u64(out, "accepting_conns", front->is_draining ? 0 : 1);
    line_u64(out, "threads", front->config->threads);
    stats_line(out, "region %s", front->config->region);
}

/* ---- the others ---- */

/* memcached has one port and one socket, and we may have several: those that come first, and all TCP addresses as its -l has them. */
static void listeners(const struct config *config, FILE *out)
{
    const char *path = "NULL";
    uint16_t port = 0;
    bool is_tls = false;
    for (uint32_t i = config->listen_count; i-- > 0;) {
        const struct config_listen *listen = &config->listen[i];
        is_tls = is_tls || listen->tls;
        if (listen->address.path != NULL) {
            path = listen->address.path;
        } else {
            port = listen->address.port;
        }
    }
    line_u64(out, "tcpport", port);
    line_u64(out, "udpport", 0);
    fprintf(out, "STAT inter ");
    bool is_first = true;
    for (uint32_t i = 0; i < config->listen_count; i++) {
        if (config->listen[i].address.path == NULL) {
            fprintf(out, "%s%s", is_first ? "" : ",", config->listen[i].address.text);
            is_first = false;
        }
    }
    fprintf(out, "%s\r\n", is_first ? "NULL" : "");
    stats_line(out, "domain_socket %s", path);
    stats_line(out, "ssl_enabled %s", is_tls ? "yes" : "no");
}

static void settings(struct front *front, FILE *out)
{
    const struct config *config = front->config;
    line_u64(out, "maxconns", config->max_connections);
    listeners(config, out);
    stats_line(out, "umask %o", config->unix_mode);
    stats_line(out, "shutdown_command no");
    line_u64(out, "num_threads", config->threads);
    stats_line(out, "detail_enabled yes");
    stats_line(out, "cas_enabled yes");
    stats_line(out, "binding_protocol auto-negotiate");
    stats_line(out, "auth_enabled_sasl %s", config->credentials_file != NULL ? "yes" : "no");
    stats_line(out, "auth_enabled_ascii %s", config->credentials_file != NULL ? config->credentials_file : "no");
    line_u64(out, "item_size_max", config->max_value_size);
    stats_line(out, "maxconns_fast yes");
    stats_line(out, "flush_enabled yes");
    stats_line(out, "dump_enabled no");
    line_u64(out, "idle_timeout", config->idle_timeout_ms / 1000);
    line_u64(out, "max_client_buffer", config->max_client_buffer);
    stats_line(out, "region %s", config->region);
    line_u64(out, "pool_nodes", config->pool.node_count);
    line_u64(out, "pool_connections", config->pool.connections);
    line_u64(out, "namespaces", config->namespace_count);
}

/* memcached counts by prefix, and so do we: by namespace, always. In the binary protocol a line has to be a name and a value. */
static void detail(struct front *front, bool is_binary, FILE *out)
{
    static const struct commands gets = COMMANDS(COMMAND_GET, COMMAND_GETS, COMMAND_GAT, COMMAND_GATS, COMMAND_MG);
    static const struct commands sets =
        COMMANDS(COMMAND_SET, COMMAND_ADD, COMMAND_REPLACE, COMMAND_APPEND, COMMAND_PREPEND, COMMAND_CAS, COMMAND_MS);
    static const struct commands deletes = COMMANDS(COMMAND_DELETE, COMMAND_MD);
    static const struct commands *const columns[] = {&gets, &sets, &deletes};
    uint32_t namespaces = front->config->namespace_count;
    for (uint32_t i = 0; i < namespaces; i++) {
        uint64_t sums[ARRAY_LEN(columns)] = {0};
        for (size_t c = 0; c < ARRAY_LEN(columns); c++) {
            for (uint32_t k = 0; k < columns[c]->count; k++) {
                sums[c] += since(front, METRIC_REQUESTS, metric_index2(columns[c]->list[k], namespaces, i));
            }
        }
        fprintf(out, "%s %s get %" PRIu64 " hit %" PRIu64 " set %" PRIu64 " del %" PRIu64 "\r\n", is_binary ? "STAT" : "PREFIX",
                front->config->namespaces[i].name, sums[0], since(front, METRIC_HITS, i), sums[1], sums[2]);
    }
}

/* False for an argument that is not known. */
static bool write_lines(struct front *front, struct span argument, bool is_binary, FILE *out)
{
    if (argument.len == 0) {
        general(front, out);
    } else if (span_eq(argument, SPAN_LIT("settings"))) {
        settings(front, out);
    } else if (span_eq(argument, SPAN_LIT("outrigger"))) {
        stats_outrigger(front, out);
    } else if (span_eq(argument, SPAN_LIT("pool"))) {
        stats_pool(front, out);
    } else if (span_eq(argument, SPAN_LIT("detail dump"))) {
        detail(front, is_binary, out);
    } else {
        /* A sidecar holds no items of its own. */
        return span_eq(argument, SPAN_LIT("items")) || span_eq(argument, SPAN_LIT("slabs")) || span_eq(argument, SPAN_LIT("sizes"));
    }
    return true;
}

static void say(struct operation *op, struct span text)
{
    op->reply.text = text;
    operation_done(op, REPLY_ERROR); /* the status whose text is the whole line */
}

/* Those that memcached answers with a line of its own in the text protocol, and with no statistics in the binary one. */
static bool was_said(struct front *front, struct operation *op)
{
    static const struct {
        struct span argument;
        struct span line;
    } known[] = {
        {SPAN_LIT("reset"), SPAN_LIT("RESET")},
        {SPAN_LIT("detail on"), SPAN_LIT("OK")},
        {SPAN_LIT("detail off"), SPAN_LIT("OK")},
        {SPAN_LIT("detail"), SPAN_LIT("CLIENT_ERROR usage: stats detail on|off|dump")},
    };
    bool is_binary = op->request.protocol == PROTOCOL_BINARY;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        bool begins_so = is_binary && i == 0 && span_has_prefix(op->request.key, known[i].argument); /* as memcached compares it */
        if (!begins_so && !span_eq(op->request.key, known[i].argument)) {
            continue;
        }
        if (i == 0) {
            metrics_baseline_take(front->baseline);
        }
        if (!is_binary) {
            say(op, known[i].line);
        } else {
            op->reply.text = (struct span){NULL, 0};
            operation_done(op, i < ARRAY_LEN(known) - 1 ? REPLY_STATS : REPLY_NOT_FOUND);
        }
        return true;
    }
    return false;
}

void stats_start(struct front *front, struct operation *op)
{
    bool is_binary = op->request.protocol == PROTOCOL_BINARY;
    if (was_said(front, op)) {
        return;
    }
    if (span_eq(op->request.key, SPAN_LIT("conns"))) {
        stats_conns_start(front, op);
        return;
    }
    size_t len = 0;
    FILE *out = open_memstream(&op->text, &len);
    if (out == NULL) {
        say(op, SPAN_LIT("SERVER_ERROR out of memory writing stats"));
        return;
    }
    bool is_known = write_lines(front, op->request.key, is_binary, out);
    fclose(out);
    if (is_known) {
        op->reply.text = span_of(op->text, len);
        operation_done(op, REPLY_STATS);
    } else if (is_binary) {
        operation_done(op, REPLY_NOT_FOUND);
    } else {
        say(op, SPAN_LIT("ERROR"));
    }
}
