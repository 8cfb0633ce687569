#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include "common/base.h"
#include "common/clock.h"

#define SITES 512         /* more than there are call sites; beyond that, some share a limit */
#define MESSAGE_MAX 960   /* bytes of a formatted message; the rest is cut off */
#define STAMP_MAX 64      /* time and level */
#define TAIL_MAX 48       /* "(+N like this left out)" */
#define LINE_MAX_LEN 4096 /* PIPE_BUF: a pipe takes such a line whole */
#define WINDOW_US 1000000

static const char *const level_names[] = {
    [LOG_DEBUG] = "debug",
    [LOG_INFO] = "info",
    [LOG_WARN] = "warn",
    [LOG_ERROR] = "error",
};

struct site {
    const char *file; /* NULL: free */
    int line;
    uint32_t written;    /* in the window */
    uint64_t started_us; /* of the window */
    uint64_t left_out;   /* since the last line that got through */
};

struct log {
    int fd;
    enum log_level level;
    pthread_mutex_t lock; /* covers sites, and is held during write() so that lines and poll() answers keep their order */
    struct site sites[SITES];
};

struct log *log_create(int fd, enum log_level level)
{
    struct log *log = xcalloc(1, sizeof *log);
    log->fd = fd;
    log->level = level;
    pthread_mutex_init(&log->lock, NULL);
    return log;
}

void log_destroy(struct log **log)
{
    if (*log != NULL) {
        pthread_mutex_destroy(&(*log)->lock);
        free(*log);
        *log = NULL;
    }
}

enum err log_level_parse(const char *name, enum log_level *out)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return OK;
        }
    }
    return ERR_INVALID;
}

int log_is_on(const struct log *log, enum log_level level)
{
    return log != NULL && level >= log->level;
}

/* Call sites are told apart by the address of their file's name: no two files share one. */
static struct site *site_find_locked(struct log *log, const char *file, int line)
{
    uint64_t hash = ((uintptr_t)file ^ (uint64_t)line << 40) * 0x9e3779b97f4a7c15ULL;
    uint32_t home = (uint32_t)(hash >> 32) % SITES;
    for (uint32_t i = 0; i < SITES; i++) {
        struct site *site = &log->sites[(home + i) % SITES];
        if (site->file == NULL) {
            site->file = file;
            site->line = line;
            site->started_us = clock_mono_us();
            return site;
        }
        if (site->file == file && site->line == line) {
            return site;
        }
    }
    return &log->sites[home];
}

static bool site_take_locked(struct site *site)
{
    uint64_t now_us = clock_mono_us();
    if (now_us - site->started_us >= WINDOW_US) {
        site->started_us = now_us;
        site->written = 0;
    }
    if (site->written >= LOG_BURST) {
        return false;
    }
    site->written++;
    return true;
}

static size_t stamp(char *line, size_t size, enum log_level level)
{
    uint64_t ms = clock_wall_ms();
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t len = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &tm);
    return len + (size_t)snprintf(line + len, size - len, ".%03uZ %-5s ", (unsigned)(ms % 1000), level_names[level]);
}

/* Bytes that could start a line of their own or talk to a terminal: C0, DEL, and both bytes of a C1 control in UTF-8. */
static bool is_control(const char *text, size_t i, size_t len)
{
    unsigned char c = (unsigned char)text[i];
    if (c == 0xc2 && i + 1 < len) {
        unsigned char next = (unsigned char)text[i + 1];
        return next >= 0x80 && next < 0xa0;
    }
    return c < 0x20 || c == 0x7f || (c >= 0x80 && c < 0xa0 && i > 0 && (unsigned char)text[i - 1] == 0xc2);
}

static size_t escape(char *to, const char *text, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    char *p = to;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (!is_control(text, i, len)) {
            *p++ = (char)c;
            continue;
        }
        *p++ = '\\';
        if (c == '\n' || c == '\r' || c == '\t') {
            *p++ = c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
        } else {
            *p++ = 'x';
            *p++ = hex[c >> 4];
            *p++ = hex[c & 15];
        }
    }
    return (size_t)(p - to);
}

/* One write, never waited for: a reader of our pipe that has stopped must not stop us. */
static bool line_write_locked(const struct log *log, const char *line, size_t len)
{
    struct pollfd poll_fd = {.fd = log->fd, .events = POLLOUT};
    if (poll(&poll_fd, 1, 0) != 1) {
        return false;
    }
    ssize_t n;
    do {
        n = write(log->fd, line, len);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)len;
}

void log_write(struct log *log, enum log_level level, const char *file, int line, const char *fmt, ...)
{
    if (!log_is_on(log, level)) {
        return;
    }
    int saved_errno = errno;
    pthread_mutex_lock(&log->lock);
    struct site *site = site_find_locked(log, file, line);
    if (!site_take_locked(site)) {
        site->left_out++;
        goto out;
    }
    char message[MESSAGE_MAX];
    va_list args;
    va_start(args, fmt);
    int formatted = vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    if (formatted < 0) {
        goto out;
    }
    char text[LINE_MAX_LEN];
    static_assert(STAMP_MAX + (MESSAGE_MAX + 3) * 4 + TAIL_MAX < LINE_MAX_LEN, "a line of escapes must fit");
    size_t len = stamp(text, sizeof text, level);
    len += escape(text + len, message, MIN((size_t)formatted, sizeof message - 1));
    if ((size_t)formatted >= sizeof message) {
        len += (size_t)snprintf(text + len, sizeof text - len, "...");
    }
    if (site->left_out > 0) {
        len += (size_t)snprintf(text + len, sizeof text - len, " (+%llu like this left out)", (unsigned long long)site->left_out);
    }
    text[len++] = '\n';
    site->left_out = line_write_locked(log, text, len) ? 0 : site->left_out + 1;
out:
    pthread_mutex_unlock(&log->lock);
    errno = saved_errno;
}
