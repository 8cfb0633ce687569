/* What:    the tables of config.def as data, and what can be done to any struct with them: set one option from text, free it all,
 *          describe it all.
 * Owns:    nothing; the tables are constants.
 * Threads: any.
 * Fails:   setting with ERR_INVALID and the reason; the field then keeps what it had.
 */
#ifndef COMMON_CONFIG_OPTION_H
#define COMMON_CONFIG_OPTION_H

#include "common/config_problems.h"

enum config_option_type {
    OPTION_TEXT,        /* char * */
    OPTION_SECRET,      /* char * */
    OPTION_SECRET_FILE, /* char *, shared with an OPTION_SECRET */
    OPTION_BOOL,        /* bool */
    OPTION_NUMBER,      /* uint32_t, or int32_t */
    OPTION_OCTAL,       /* uint32_t */
    OPTION_SIZE,        /* uint64_t */
    OPTION_MS,          /* uint32_t */
    OPTION_SECONDS,     /* uint32_t */
    OPTION_SECONDS64,   /* uint64_t */
    OPTION_ENUM,        /* an enum */
    OPTION_ADDRESS,     /* struct address; `min` is the default port */
    OPTION_ADDRESSES,   /* struct address *, and a count */
    OPTION_TEXTS,       /* char **, and a count */
    OPTION_SECTION,     /* a struct, or some fields of the struct around it */
    OPTION_SECTION_IF,  /* pointer to a struct */
    OPTION_SECTIONS,    /* array of structs, and a count */
};

struct config_option {
    const char *key;
    enum config_option_type type;
    size_t offset;
    size_t count_offset;  /* lists */
    const char *fallback; /* text of the default, NULL, or config_option_required */
    uint64_t min;         /* of the value, or of the length of text */
    uint64_t max;
    uint32_t items_min; /* lists */
    uint32_t items_max;
    uint16_t port;            /* addresses: the default */
    const char *const *names; /* enums; NULL at the end */
    enum err (*check)(const char *text, struct reason *why);
    const struct config_section *section;
    const char *help;
};

#define CONFIG_OPTIONS_MAX 24 /* of one section */

struct config_section {
    const struct config_option *options;
    uint32_t count;
    size_t size;    /* of the struct */
    bool shorthand; /* its first option alone may stand for it */
};

extern const char config_option_required[];
extern const struct config_section *const config_option_root;      /* of struct config */
extern const struct config_section *const config_option_namespace; /* of struct config_namespace */
extern const struct config_section *const config_option_strong;    /* of struct config_strong */

bool config_option_is_scalar(const struct config_option *option); /* set from one piece of text */

/* Sets a scalar in the struct at `base`, or one element of a list of scalars (`index` < its count). */
enum err config_option_set(const struct config_option *option, const char *text, void *base, struct reason *why);
enum err config_option_set_item(const struct config_option *option, const char *text, void *base, uint32_t index, struct reason *why);

/* Room for `count` zeroed elements of a list, and `spare` more behind them that are not counted. */
void config_option_make_list(const struct config_option *option, void *base, uint32_t count, uint32_t spare);

/* Address of an element of a list. */
void *config_option_item(const struct config_option *option, void *base, uint32_t index);

/* Gives every option its default where there is one, those of inner sections that are always there included. `given` (or NULL) says
 * which are not to be touched. */
void config_option_default(const struct config_section *section, void *base, const bool *given);

void config_option_free(const struct config_section *section, void *base); /* what the struct owns, not the struct */

void config_option_describe(FILE *out);

/* Address of a field. */
static inline void *config_option_field(const struct config_option *option, void *base)
{
    return (char *)base + option->offset;
}

#endif
