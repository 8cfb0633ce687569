/* What:    the process's log: levelled lines on a descriptor, rate-limited for each call site.
 * Owns:    struct log owns its table of call sites, not the descriptor.
 * Threads: log_write() from any thread; a line is one write(2).
 * Fails:   never; a line that can not be written is dropped.
 *
 * Line:    2026-11-23T20:15:00.123Z info  pool: node 127.0.0.1:11311 is up
 * A call site may write `LOG_BURST` lines in a second; what is beyond is counted, and the next line that gets through says how many
 * were left out.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include "common/err.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

#define LOG_BURST 10

struct log;

struct log *log_create(int fd, enum log_level level);
void log_destroy(struct log **log);

enum err log_level_parse(const char *name, enum log_level *out);

/* `site` tells call sites apart (the macros pass file and line). */
void log_write(struct log *log, enum log_level level, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* Whether a line of this level would be written: for arguments that cost something. */
int log_is_on(const struct log *log, enum log_level level);

#define log_debug(log, ...) log_write(log, LOG_DEBUG, __FILE__, __LINE__, __VA_ARGS__)
#define log_info(log, ...) log_write(log, LOG_INFO, __FILE__, __LINE__, __VA_ARGS__)
#define log_warn(log, ...) log_write(log, LOG_WARN, __FILE__, __LINE__, __VA_ARGS__)
#define log_error(log, ...) log_write(log, LOG_ERROR, __FILE__, __LINE__, __VA_ARGS__)

#endif
