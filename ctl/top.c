#include "ctl/top.h"

#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include "common/clock.h"
#include "ctl/samples.h"

#define LABELS_MAX 64
#define INTERVAL_MS 2000U
#define ANY ((struct span){NULL, 0})
#define CLEAR "\033[H\033[2J"

/* --- one screen --- */

static double rate(const char *before, const char *after, double seconds, const char *name, const char *label, struct span value)
{
    double grown = samples_total(after, name, label, value) - samples_total(before, name, label, value);
    return grown > 0 ? grown / seconds : 0; /* less than before: the sidecar has been started again */
}

static const char *latency(double seconds, char out[24])
{
    if (seconds < 0) {
        snprintf(out, 24, "-");
    } else if (seconds > 1e6) { /* +Inf */
        snprintf(out, 24, "long");
    } else if (seconds < 0.001) {
        snprintf(out, 24, "%.0fus", seconds * 1e6);
    } else if (seconds < 1) {
        snprintf(out, 24, "%.3gms", seconds * 1e3);
    } else {
        snprintf(out, 24, "%.3gs", seconds);
    }
    return out;
}

static const char *percent(double part, double whole, char out[24])
{
    snprintf(out, 24, whole > 0 ? "%.1f%%" : "-", whole > 0 ? 100 * part / whole : 0);
    return out;
}

/* The different values of a label in the series of a metric, in their order. */
static uint32_t labels_of(const char *text, const char *name, const char *label, struct span out[LABELS_MAX])
{
    uint32_t count = 0;
    struct sample sample;
    struct span value;
    while (samples_next(&text, &sample) && count < LABELS_MAX) {
        if (!span_eq(sample.name, span_str(name)) || !samples_label(&sample, label, &value)) {
            continue;
        }
        bool is_known = false;
        for (uint32_t i = 0; i < count && !is_known; i++) {
            is_known = span_eq(out[i], value);
        }
        if (!is_known) {
            out[count++] = value;
        }
    }
    return count;
}

static void draw_rows(FILE *out, const char *before, const char *after, double seconds, const char *counter, const char *histogram, const char *label,
                      const char *title, bool skips_idle)
{
    struct span values[LABELS_MAX];
    uint32_t count = labels_of(after, counter, label, values);
    fprintf(out, "\n%-32s %12s %10s %10s\n", title, "per second", "p50", "p99");
    for (uint32_t i = 0; i < count; i++) {
        char middle[24];
        char high[24];
        double per_second = rate(before, after, seconds, counter, label, values[i]);
        if (skips_idle && per_second <= 0) {
            continue;
        }
        fprintf(out, "%-32.*s %12.1f %10s %10s\n", SPAN_FMT(values[i]), per_second,
                latency(samples_quantile(before, after, histogram, label, values[i], 0.5), middle),
                latency(samples_quantile(before, after, histogram, label, values[i], 0.99), high));
    }
}

static void draw_head(FILE *out, const char *before, const char *after, double seconds, const char *address)
{
    char hit_rate[24];
    double hits = rate(before, after, seconds, "outrigger_hits_total", NULL, ANY);
    double misses = rate(before, after, seconds, "outrigger_misses_total", NULL, ANY);
    double negative = rate(before, after, seconds, "outrigger_negative_hits_total", NULL, ANY);
    double started_s = samples_total(after, "process_start_time_seconds", NULL, ANY);
    double up_s = (double)clock_wall_ms() / 1000 - started_s;
    fprintf(out, "outrigger %s   up %.0f s   %.0f clients   %.1f MiB resident\n", address, started_s > 0 ? up_s : 0,
            samples_total(after, "outrigger_client_connections", NULL, ANY), samples_total(after, "process_resident_memory_bytes", NULL, ANY) / 1048576);
    fprintf(out, "requests %.1f/s   hit rate %s   hits %.1f/s   misses %.1f/s   loads %.1f/s   errors %.1f/s\n",
            rate(before, after, seconds, "outrigger_requests_total", NULL, ANY), percent(hits + negative, hits + negative + misses, hit_rate),
            hits + negative, misses, rate(before, after, seconds, "outrigger_loads_total", NULL, ANY),
            rate(before, after, seconds, "outrigger_errors_total", NULL, ANY));
    fprintf(out, "read %.1f KiB/s   written %.1f KiB/s   invalidations published %.1f/s   applied %.1f/s\n",
            rate(before, after, seconds, "outrigger_client_read_bytes_total", NULL, ANY) / 1024,
            rate(before, after, seconds, "outrigger_client_written_bytes_total", NULL, ANY) / 1024,
            rate(before, after, seconds, "outrigger_bus_published_total", NULL, ANY), rate(before, after, seconds, "outrigger_bus_applied_total", NULL, ANY));
}

void top_draw(FILE *out, const char *before, const char *after, double seconds, const char *address)
{
    draw_head(out, before, after, seconds, address);
    draw_rows(out, before, after, seconds, "outrigger_requests_total", "outrigger_client_duration_seconds", "command", "COMMAND", true);
    draw_rows(out, before, after, seconds, "outrigger_node_requests_total", "outrigger_node_duration_seconds", "node", "NODE", false);
    draw_rows(out, before, after, seconds, "outrigger_loads_total", "outrigger_database_duration_seconds", "namespace", "LOADS OF NAMESPACE", true);
    draw_rows(out, before, after, seconds, "outrigger_bus_applied_total", "outrigger_bus_lag_seconds", "peer", "PEER (lag)", false);
}

/* --- again and again --- */

/* True when q was typed, or there is no more input. */
static bool is_over(unsigned interval_ms, bool is_terminal)
{
    struct pollfd poll_fd = {.fd = is_terminal ? STDIN_FILENO : -1, .events = POLLIN};
    char c = 0;
    if (poll(&poll_fd, 1, (int)interval_ms) <= 0) {
        return false;
    }
    return read(STDIN_FILENO, &c, 1) <= 0 || c == 'q' || c == 'Q' || c == 3; /* ^C does not come as a signal */
}

enum exit_status top_run(const struct arguments *arguments)
{
    struct termios before_mode;
    bool is_terminal = !arguments->is_once && isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before_mode) == 0;
    if (is_terminal) {
        struct termios mode = before_mode;
        mode.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
        tcsetattr(STDIN_FILENO, TCSANOW, &mode);
    }
    char *before = NULL;
    char *after = NULL;
    uint64_t before_us = clock_mono_us();
    enum exit_status status = command_fetch_metrics(arguments, &before);
    bool is_last = false;
    while (status == EXIT_DONE && !is_last && !is_over(arguments->interval_ms != 0 ? arguments->interval_ms : INTERVAL_MS, is_terminal)) {
        status = command_fetch_metrics(arguments, &after);
        uint64_t after_us = clock_mono_us();
        if (status != EXIT_DONE) {
            break;
        }
        fputs(arguments->is_once ? "" : CLEAR, stdout);
        top_draw(stdout, before, after, (double)(after_us - before_us + 1) / 1e6, arguments->address);
        fflush(stdout);
        free(before);
        before = after;
        before_us = after_us;
        is_last = arguments->is_once;
    }
    free(before);
    if (is_terminal) {
        tcsetattr(STDIN_FILENO, TCSANOW, &before_mode);
    }
    return status;
}
