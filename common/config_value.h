/* What:    single values of the configuration: text to numbers, durations and sizes; the environment, secret files, checks of text.
 * Owns:    nothing; strings it returns are the caller's.
 * Threads: any (reads the environment).
 * Fails:   ERR_INVALID with the reason in `why`.
 */
#ifndef COMMON_CONFIG_VALUE_H
#define COMMON_CONFIG_VALUE_H

#include "common/base.h"
#include "common/config_problems.h"
#include "common/err.h"

#define CONFIG_EXPANDED_MAX 65536 /* a value with the environment in it */
#define CONFIG_SECRET_MAX 65536   /* a file with a secret */

/* ${NAME}, ${NAME:-text} and $$ replaced. *out is the caller's; no zero byte in it but the last. */
enum err config_value_expand(struct span raw, char **out, struct reason *why);

/* All from `min` to `max`, both included. A duration counts in units of `unit_us` and must be a whole number of them. */
enum err config_value_number(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct reason *why);
enum err config_value_octal(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct reason *why);
enum err config_value_size(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct reason *why);
enum err config_value_duration(const char *text, uint64_t unit_us, uint64_t min, uint64_t max, uint64_t *out, struct reason *why);

/* The shortest way to write them: "1MiB", "250ms". */
#define CONFIG_QUANTITY_SIZE 24
const char *config_value_size_text(uint64_t bytes, char out[CONFIG_QUANTITY_SIZE]);
const char *config_value_duration_text(uint64_t us, char out[CONFIG_QUANTITY_SIZE]);

/* What a file holds, without the line end behind it. Only regular files: no pipe can hang the start. */
enum err config_value_secret(const char *path, char **out, struct reason *why);

/* Checks of text. */
enum err config_value_check_text(const char *text, struct reason *why);       /* no control characters */
enum err config_value_check_label(const char *text, struct reason *why);      /* letters, digits, '-' and '_' */
enum err config_value_check_prefix(const char *text, struct reason *why);     /* what may stand in a key */
enum err config_value_check_identifier(const char *text, struct reason *why); /* a column */
enum err config_value_check_table(const char *text, struct reason *why);      /* table or schema.table */
enum err config_value_check_key(const char *text, struct reason *why);        /* a key_template */
enum err config_value_check_directory(const char *text, struct reason *why);  /* one that can be written in, or made */
enum err config_value_check_file(const char *text, struct reason *why);       /* a file that can be read */

#endif
