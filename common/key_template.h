/* What:    how a key names a row: literal text and {column} fields, as "order:{customer}:{id}".
 * Owns:    its texts.
 * Threads: immutable once parsed; any thread.
 * Fails:   ERR_INVALID with the reason, fit to stand behind the option's name.
 *
 * A field ends where the first byte of the literal behind it stands for the first time; the last field takes the rest. So a key
 * has one meaning, and a row whose columns hold such a byte has no key. {{ and }} stand for the braces themselves.
 */
#ifndef COMMON_KEY_TEMPLATE_H
#define COMMON_KEY_TEMPLATE_H

#include "common/base.h"
#include "common/config_problems.h"

#define KEY_FIELDS_MAX 8U

struct key_template {
    uint32_t count;                     /* of fields */
    char *columns[KEY_FIELDS_MAX];      /* what they are called */
    char *literals[KEY_FIELDS_MAX + 1]; /* what stands before each, and behind the last; may be empty at either end */
};

enum err key_template_parse(const char *text, struct key_template *out, struct reason *why);

/* The template whose key is nothing but this column. */
void key_template_of_column(const char *column, struct key_template *out);

void key_template_deinit(struct key_template *key);

/* Takes a key apart, all of it or what is left of it behind `skip` bytes of the first literal. False: it is none of this template's. */
bool key_template_split(const struct key_template *key, size_t skip, struct span text, struct span fields[KEY_FIELDS_MAX]);

#endif
