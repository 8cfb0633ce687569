/* What:    everything that is wrong with a configuration, collected first and then printed in the order of its lines.
 * Owns:    the texts. Values from the file appear in them quoted, cut and with unprintable bytes escaped.
 * Threads: one at a time.
 * Fails:   never; beyond CONFIG_PROBLEMS_MAX problems are only counted.
 */
#ifndef COMMON_CONFIG_PROBLEMS_H
#define COMMON_CONFIG_PROBLEMS_H

#include "common/base.h"
#include "common/err.h"

#define CONFIG_PROBLEMS_MAX 1000

struct config_problem {
    uint32_t line; /* 0: none in particular */
    uint32_t order;
    char *text;
};

struct config_problems {
    const char *file; /* borrowed */
    struct config_problem *list;
    uint32_t count;
    uint32_t cap;
    uint32_t left_out;
};

void config_problems_init(struct config_problems *problems, const char *file);
void config_problems_deinit(struct config_problems *problems);

void config_problems_add(struct config_problems *problems, uint32_t line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* "file:line: text", or "file: text" where there is no line; sorted by line. */
void config_problems_print(struct config_problems *problems, FILE *out);

/* Why one value is no good: ready to stand behind "option: ". */
struct reason {
    char text[512];
};

enum err config_problems_reason(struct reason *why, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* ERR_INVALID */

#define CONFIG_QUOTED_SIZE 288

/* `raw` in double quotes, fit for one line of a message. */
const char *config_problems_quote(struct span raw, char out[CONFIG_QUOTED_SIZE]);

#endif
