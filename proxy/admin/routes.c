#include "proxy/admin/routes.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/uri.h"
#include "proxy/admin/entry.h"
#include "proxy/admin/invalidate.h"
#include "proxy/admin/report.h"
#include "proxy/admin/settings.h"
#include "proxy/admin/wait.h"

#define PROBE_TEXT_MAX 4096

/* --- responses and queries --- */

void http_response_init(struct http_response *response, FILE *body)
{
    *response = (struct http_response){.status = 200, .content_type = "text/plain; charset=utf-8", .body = body};
}

void http_response_error(struct http_response *response, unsigned status, const char *code, const char *message)
{
    response->status = status;
    response->content_type = "application/json";
    json_t *text = json_string(message); /* NULL: a node's words that are not UTF-8 */
    json_t *error = json_pack("{s:{s:s,s:o}}", "error", "code", code, "message", text != NULL ? text : json_string("(not UTF-8)"));
    json_dumpf(error, response->body, JSON_COMPACT);
    json_decref(error);
    fputc('\n', response->body);
}

void http_response_header(struct http_response *response, const char *name, const char *fmt, ...)
{
    char value[512];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(value, sizeof value, fmt, args);
    va_end(args);
    for (const char *p = value; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) {
            return;
        }
    }
    size_t used = strlen(response->headers);
    if (len < 0 || (size_t)len >= sizeof value || used + strlen(name) + (size_t)len + sizeof ": \n" > sizeof response->headers) {
        return;
    }
    snprintf(response->headers + used, sizeof response->headers - used, "%s: %s\n", name, value);
}

bool http_query_flag(const struct http_request *request, const char *name)
{
    struct span raw;
    return uri_parameter(request->query, name, &raw) && raw.len > 0 && !span_eq(raw, SPAN_LIT("0")) && !span_eq(raw, SPAN_LIT("false"));
}

bool http_query_number(const struct http_request *request, const char *name, uint64_t max, uint64_t *out)
{
    struct span raw;
    uint64_t value = 0;
    if (!uri_parameter(request->query, name, &raw)) {
        return true;
    }
    for (size_t i = 0; i < raw.len; i++) {
        if (raw.data[i] < '0' || raw.data[i] > '9' || value > max / 10) {
            return false;
        }
        value = value * 10 + (uint64_t)(raw.data[i] - '0');
    }
    *out = value;
    return raw.len > 0 && value <= max;
}

/* --- health, readiness and metrics --- */

static void get_healthz(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    fputs("ok\n", response->body);
}

/* Every line of what a probe says, with the component's name before it. */
static void write_probe(FILE *out, const char *name, bool is_ready, const char *text)
{
    if (*text == '\0') {
        text = is_ready ? "ok" : "not ready";
    }
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        fprintf(out, "%s: %.*s\n", name, (int)len, text);
        text += len + (text[len] == '\n');
    }
}

static void get_readyz(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    for (uint32_t i = 0; i < routes->probe_count; i++) {
        const struct admin_probe *probe = &routes->probes[i];
        char text[PROBE_TEXT_MAX] = "";
        bool is_ready = probe->is_ready(probe->ctx, text, sizeof text);
        write_probe(response->body, probe->name, is_ready, request->is_trusted ? text : ""); /* addresses are not for everybody */
        if (!is_ready) {
            response->status = 503;
        }
    }
    if (routes->probe_count == 0) {
        fputs("ok\n", response->body);
    }
}

/* One number of /proc/self/FILE: the one after `skip` others behind the last `after`, if that is not 0. */
static bool read_proc(const char *path, char after, int skip, uint64_t *out)
{
    char text[1024];
    FILE *in = fopen(path, "re");
    if (in == NULL) {
        return false;
    }
    size_t len = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    text[len] = '\0';
    char *p = after != '\0' ? strrchr(text, after) : text;
    p = p != NULL && after != '\0' ? strchr(p, ' ') : p;
    for (int i = 0; i < skip && p != NULL; i++) {
        p = strchr(p + 1, ' ');
    }
    char *end;
    if (p == NULL) {
        return false;
    }
    *out = strtoull(p, &end, 10);
    return end != p;
}

/* Wall-clock time of the process's start; taken once, so that it does not wander when the wall clock is set. */
static double process_started_s(void)
{
    uint64_t now_ms = clock_wall_ms();
    struct timespec boot;
    uint64_t ticks; /* from boot to start: field 22, the 20th after the command's name in brackets */
    if (clock_gettime(CLOCK_BOOTTIME, &boot) != 0 || !read_proc("/proc/self/stat", ')', 19, &ticks)) {
        return (double)now_ms / 1000;
    }
    double up_s = (double)boot.tv_sec + (double)boot.tv_nsec / 1e9 - (double)ticks / (double)sysconf(_SC_CLK_TCK);
    return (double)now_ms / 1000 - up_s;
}

static bool count_fds(uint64_t *out)
{
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        return false;
    }
    uint64_t count = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        count += entry->d_name[0] != '.';
    }
    closedir(dir);
    *out = count - 1; /* without the one that counted */
    return true;
}

static void write_header(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_process_gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
    write_header(out, name, "gauge", help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

/* The metrics that Prometheus' own client libraries export for every process, by the same names. */
static void write_process(const struct routes *routes, FILE *out)
{
    write_header(out, "process_start_time_seconds", "gauge", "Start of the process, in seconds since 1970.");
    fprintf(out, "process_start_time_seconds %.2f\n", routes->started_s);
    struct timespec cpu;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0) {
        write_header(out, "process_cpu_seconds_total", "counter", "User and system CPU time spent.");
        fprintf(out, "process_cpu_seconds_total %.6f\n", (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
    }
    uint64_t value;
    if (read_proc("/proc/self/statm", '\0', 1, &value)) {
        write_process_gauge(out, "process_resident_memory_bytes", "Resident memory.", value * (uint64_t)sysconf(_SC_PAGESIZE));
    }
    if (count_fds(&value)) {
        write_process_gauge(out, "process_open_fds", "Open file descriptors.", value);
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        write_process_gauge(out, "process_max_fds", "Most file descriptors that may be open.", limit.rlim_cur);
    }
    write_header(out, "outrigger_build_info", "gauge", "1, labelled by what was built.");
    fputs("outrigger_build_info{version=\"" OUTRIGGER_VERSION "\"} 1\n", out);
}

static void get_metrics(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_write_prometheus(routes->metrics, response->body);
    write_process(routes, response->body);
}

static void get_index(const struct routes *routes, const struct http_request *request, struct http_response *response);

static const struct route {
    const char *method;
    const char *path;
    void (*handle)(const struct routes *routes, const struct http_request *request, struct http_response *response);
    const char *help;
} table[] = {
    {"GET", "/", get_index, "this page"},
    {"GET", "/healthz", get_healthz, "200 while the process runs"},
    {"GET", "/readyz", get_readyz, "200 while every component can do its work, else 503; a line for each"},
    {"GET", "/metrics", get_metrics, "metrics in the Prometheus text format"},
    {"GET", "/cache/{key}", entry_get, "the value, loaded if need be; ?peek=1: as it is in the cache; Accept: application/json: with all about it"},
    {"SET", "/cache/{key}", entry_set, "stores the body; ?ttl=SECONDS&flags=NUMBER"},
    {"PUT", "/cache/{key}", entry_set, "the same"},
    {"DEL", "/cache/{key}", entry_delete, "deletes, and tells the other regions; ?wait=regions&timeout=10s: until all of them have applied it"},
    {"DELETE", "/cache/{key}", entry_delete, "the same"},
    {"INVALIDATE", "/cache/{key}", invalidate_pattern, "hides what matches, *?[...]\\, in every region; ?wait=regions, too"},
    {"POST", "/invalidate", invalidate_many, "{\"keys\":[...],\"patterns\":[...]}: deletes those, hides what matches these, in every region; ?wait=regions, too"},
    {"GET", "/applied", wait_applied, "?position=POSITION&timeout=10s: waits until every region has applied what was published up to there"},
    {"GET", "/rules", invalidate_rules, "invalidations by pattern that are in force"},
    {"GET", "/route", report_route, "?key=KEY: its namespace, node and place on the ring"},
    {"GET", "/regions", report_regions, "this region and its peers: connected, lag, backlog"},
    {"GET", "/config", settings_get, "the configuration in force, secrets hidden"},
};

static void get_index(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    fputs("outrigger " OUTRIGGER_VERSION "\n\n", response->body);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        fprintf(response->body, "%-10s %-14s %s\n", table[i].method, table[i].path, table[i].help);
    }
}

void routes_init(struct routes *routes, const struct admin_probe *probes, uint32_t probe_count, struct metrics *metrics)
{
    *routes = (struct routes){.probes = probes, .probe_count = probe_count, .metrics = metrics, .started_s = process_started_s()};
}

void routes_finish(const struct routes *routes, const struct ask *ask, struct http_response *response)
{
    if (ask->kind == ASK_INVALIDATE) {
        job_write(ask->job, ask->wait, response);
    } else if (ask->kind == ASK_APPLIED) {
        wait_finish(ask->wait, response);
    } else {
        entry_finish(routes->view, ask, response);
    }
}

static void append_allow(char *allow, size_t size, const char *method)
{
    size_t len = strlen(allow);
    snprintf(allow + len, size - len, "%s%s%s", len > 0 ? ", " : "", method, strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

/* A path that ends with {…} takes the rest of what begins like it. */
static bool matches(const char *path, struct http_request *request)
{
    const char *open = strchr(path, '{');
    if (open == NULL) {
        return strlen(path) == request->path_len && strcmp(path, request->path) == 0;
    }
    size_t len = (size_t)(open - path);
    if (strncmp(path, request->path, len) != 0) {
        return false;
    }
    request->rest = span_of(request->path + len, request->path_len - len);
    return true;
}

void routes_dispatch(const struct routes *routes, struct http_request *request, struct http_response *response)
{
    const char *method = strcmp(request->method, "HEAD") == 0 ? "GET" : request->method;
    char allow[sizeof response->allow] = "";
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (!matches(table[i].path, request)) {
            continue;
        }
        if (strcmp(table[i].method, method) == 0) {
            table[i].handle(routes, request, response);
            return;
        }
        append_allow(allow, sizeof allow, table[i].method);
    }
    if (allow[0] == '\0') {
        http_response_error(response, 404, "not_found", "there is nothing at this path; GET / lists what there is");
        return;
    }
    memcpy(response->allow, allow, sizeof allow);
    http_response_error(response, 405, "method_not_allowed", "this path does not take this method; see the Allow header");
}
