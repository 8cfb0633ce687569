/* What:    JSON for people: objects as lines "name: value", arrays of objects as tables.
 * Owns:    nothing.
 * Threads: any.
 */
#ifndef CTL_PRINT_H
#define CTL_PRINT_H

#include <jansson.h>

#include "common/base.h"

/* What can not be shown in a terminal is escaped. */
void print_text(FILE *out, struct span text);

/* Every member of the object, inner objects as outer.inner; `skip` is left out, or NULL. */
void print_object(FILE *out, const json_t *object, const char *skip);

/* A row for each object of the array, a column for each of `columns` (NULL at the end), or, when that is NULL, for each member of the first. */
void print_table(FILE *out, const json_t *array, const char *const *columns);

#endif
