/* What:    a YAML document into a struct, by the tables of config.def; remembers on which line each field was given.
 * Owns:    its marks.
 * Threads: one at a time.
 * Fails:   never at once: every problem is added to `problems`, and the field gets its default, so that reading goes on.
 */
#ifndef COMMON_CONFIG_READ_H
#define COMMON_CONFIG_READ_H

#include <yaml.h>

#include "common/config_option.h"
#include "common/config_problems.h"

struct config_mark {
    const void *field; /* for key NULL a list's element */
    const char *key;   /* the option's, from the table: a struct and its first field have one address */
    uint32_t line;
    uint32_t order;
    bool is_bad; /* there is a problem with it already */
};

struct config_read {
    struct config_problems *problems;
    yaml_document_t *document;
    struct config_mark *marks; /* sorted by config_read_section() */
    uint32_t count;
    uint32_t cap;
};

void config_read_init(struct config_read *read, struct config_problems *problems, yaml_document_t *document);
void config_read_deinit(struct config_read *read);

/* Reads the document's root into the zeroed struct at `base`. */
void config_read_root(struct config_read *read, const struct config_section *section, void *base);

#define CONFIG_READ_SPARE 1 /* elements behind every list, zeroed and not counted */

/* What is known of a field given under this key, or with key NULL of an element of a list; NULL: it was not given. */
const struct config_mark *config_read_mark(const struct config_read *read, const void *field, const char *key);

#endif
