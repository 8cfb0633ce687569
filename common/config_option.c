#include "common/config_option.h"

#include "common/config.h"
#include "common/config_address.h"
#include "common/config_value.h"

const char config_option_required[] = "required";

static const char *const read_names[] = {"aside", "through", NULL};
static const char *const write_names[] = {"aside", "through", NULL};
static const char *const kind_names[] = {"table", "entries", NULL};
static const char *const consistency_names[] = {"eventual", "strong", NULL};
static const char *const on_set_names[] = {"local", "invalidate", NULL};
static const char *const flush_names[] = {"nodes", "rule", "refuse", NULL};
static const char *const heartbeat_names[] = {"auto", "off", NULL};
static const char *const versions_names[] = {"auto", "on", "off", NULL};
#ifdef OUTRIGGER_TEST_HOOKS
static const char *const guard_names[] = {"none", "fill_cas", "tombstone_version", "as_of", "skew", "post_write_tombstone",
                                          "strong_lease_wait", "strong_from_sending", "strong_blank_vote", "strong_create", "strong_comeback_wait",
                                          "strong_proof_age", "strong_share", "strong_lock", "strong_locking_read", NULL};
#endif
static const char *const tls_version_names[] = {"1.2", "1.3", NULL};
static const char *const log_names[] = {"debug", "info", "warn", "error", NULL};

/* ---- the tables ---- */

#define REQUIRED config_option_required
#define SHORTHAND true
#define NO_SHORTHAND false
#define FIELD(tag, field) .offset = offsetof(struct tag, field)
#define COUNTED(tag, field, counter) FIELD(tag, field), .count_offset = offsetof(struct tag, counter)

#define BEGIN(name, tag) static const struct config_option name##_options[] = {
#define END(name, tag, brief)                                                                                                          \
    }                                                                                                                                  \
    ;                                                                                                                                  \
    _Static_assert(ARRAY_LEN(name##_options) <= CONFIG_OPTIONS_MAX, "too many options in " #name);                                     \
    static const struct config_section name##_section = {name##_options, ARRAY_LEN(name##_options), sizeof(struct tag), brief};
#define TEXT(tag, f, k, d, lo, hi, c, h)                                                                                               \
    {.key = k, .type = OPTION_TEXT, FIELD(tag, f), .fallback = d, .min = lo, .max = hi, .check = c, .help = h},
#define SECRET(tag, f, k, d, h) {.key = k, .type = OPTION_SECRET, FIELD(tag, f), .fallback = d, .max = CONFIG_SECRET_MAX, .help = h},
#define SECRET_FILE(tag, f, k, h) {.key = k, .type = OPTION_SECRET_FILE, FIELD(tag, f), .help = h},
#define RANGE(tag, t, f, k, d, lo, hi, h) {.key = k, .type = t, FIELD(tag, f), .fallback = d, .min = lo, .max = hi, .help = h},
#define NUMBER(tag, f, k, d, lo, hi, h) RANGE(tag, OPTION_NUMBER, f, k, d, lo, hi, h)
#define OCTAL(tag, f, k, d, lo, hi, h) RANGE(tag, OPTION_OCTAL, f, k, d, lo, hi, h)
#define SIZE(tag, f, k, d, lo, hi, h) RANGE(tag, OPTION_SIZE, f, k, d, lo, hi, h)
#define MS(tag, f, k, d, lo, hi, h) RANGE(tag, OPTION_MS, f, k, d, lo, hi, h)
#define SECONDS(tag, f, k, d, lo, hi, h) RANGE(tag, OPTION_SECONDS, f, k, d, lo, hi, h)
#define SECONDS64(tag, f, k, d, lo, hi, h) RANGE(tag, OPTION_SECONDS64, f, k, d, lo, hi, h)
#define BOOL(tag, f, k, d, h) {.key = k, .type = OPTION_BOOL, FIELD(tag, f), .fallback = d, .help = h},
#define ENUM(tag, f, k, d, n, h) {.key = k, .type = OPTION_ENUM, FIELD(tag, f), .fallback = d, .names = n, .help = h},
#define ADDRESS(tag, f, k, d, p, h) {.key = k, .type = OPTION_ADDRESS, FIELD(tag, f), .fallback = d, .port = p, .help = h},
#define ADDRESSES(tag, f, n, k, d, p, lo, hi, h)                                                                                       \
    {.key = k, .type = OPTION_ADDRESSES, COUNTED(tag, f, n), .fallback = d, .port = p, .items_min = lo, .items_max = hi, .help = h},
#define TEXTS(tag, f, n, k, lo, hi, c, h)                                                                                              \
    {.key = k, .type = OPTION_TEXTS, COUNTED(tag, f, n), .items_min = lo, .items_max = hi, .max = 64, .check = c, .help = h},
#define SECTION(tag, f, k, s, d, h) {.key = k, .type = OPTION_SECTION, FIELD(tag, f), .fallback = d, .section = &s##_section, .help = h},
#define SECTION_HERE(tag, k, s, h) {.key = k, .type = OPTION_SECTION, .section = &s##_section, .help = h},
#define SECTION_IF(tag, f, k, s, h) {.key = k, .type = OPTION_SECTION_IF, FIELD(tag, f), .section = &s##_section, .help = h},
#define SECTIONS(tag, f, n, k, s, d, lo, hi, h)                                                                                        \
    {.key = k, .type = OPTION_SECTIONS, COUNTED(tag, f, n), .fallback = d, .section = &s##_section, .items_min = lo, .items_max = hi,  \
     .help = h},
#include "common/config.def"

const struct config_section *const config_option_root = &root_section;
const struct config_section *const config_option_namespace = &namespace_section;
const struct config_section *const config_option_strong = &strong_section;

/* Once more, to see that every field has the type that its option writes. */
#undef BEGIN
#undef END
#undef TEXT
#undef SECRET
#undef SECRET_FILE
#undef NUMBER
#undef OCTAL
#undef SIZE
#undef MS
#undef SECONDS
#undef SECONDS64
#undef BOOL
#undef ENUM
#undef ADDRESS
#undef ADDRESSES
#undef TEXTS
#undef SECTION
#undef SECTION_HERE
#undef SECTION_IF
#undef SECTIONS
#define config_witness config_peer /* a section of its own for the same struct */
#define TYPE_OF(tag, f, type) _Static_assert(_Generic(((struct tag *)0)->f, type: 1, default: 0), #tag "." #f " is not a " #type);
#define BEGIN(name, tag)
#define END(name, tag, brief)
#define TEXT(tag, f, ...) TYPE_OF(tag, f, char *)
#define SECRET(tag, f, ...) TYPE_OF(tag, f, char *)
#define SECRET_FILE(tag, f, ...) TYPE_OF(tag, f, char *)
#define NUMBER(tag, f, ...)                                                                                                            \
    _Static_assert(_Generic(((struct tag *)0)->f, uint32_t: 1, int32_t: 1, default: 0), #tag "." #f " is not a 32-bit number");
#define OCTAL(tag, f, ...) TYPE_OF(tag, f, uint32_t)
#define SIZE(tag, f, ...) TYPE_OF(tag, f, uint64_t)
#define MS(tag, f, ...) TYPE_OF(tag, f, uint32_t)
#define SECONDS(tag, f, ...) TYPE_OF(tag, f, uint32_t)
#define SECONDS64(tag, f, ...) TYPE_OF(tag, f, uint64_t)
#define BOOL(tag, f, ...) TYPE_OF(tag, f, bool)
#define ENUM(tag, f, ...) _Static_assert(sizeof(((struct tag *)0)->f) == sizeof(uint32_t), #tag "." #f " is not a 32-bit enum");
#define ADDRESS(tag, f, ...) TYPE_OF(tag, f, struct address)
#define ADDRESSES(tag, f, n, ...) TYPE_OF(tag, f, struct address *) TYPE_OF(tag, n, uint32_t)
#define TEXTS(tag, f, n, ...) TYPE_OF(tag, f, char **) TYPE_OF(tag, n, uint32_t)
#define SECTION(tag, f, k, s, ...) TYPE_OF(tag, f, struct config_##s)
#define SECTION_HERE(tag, k, s, h)
#define SECTION_IF(tag, f, k, s, ...) TYPE_OF(tag, f, struct config_##s *)
#define SECTIONS(tag, f, n, k, s, ...) TYPE_OF(tag, f, struct config_##s *) TYPE_OF(tag, n, uint32_t)
#include "common/config.def"
#undef config_witness

/* ---- setting ---- */

bool config_option_is_scalar(const struct config_option *option)
{
    return option->type <= OPTION_ADDRESS;
}

static void free_secret(char **secret)
{
    if (*secret != NULL) {
        explicit_bzero(*secret, strlen(*secret));
        free(*secret);
        *secret = NULL;
    }
}

static enum err check_text(const struct config_option *option, const char *text, struct reason *why)
{
    size_t len = strlen(text);
    if (len < option->min) {
        return config_problems_reason(why, "is empty");
    }
    if (len > option->max) {
        return config_problems_reason(why, "is longer than %llu bytes", (unsigned long long)option->max);
    }
    return option->check == NULL ? OK : option->check(text, why);
}

static enum err set_enum(const struct config_option *option, const char *text, void *field, struct reason *why)
{
    for (uint32_t i = 0; option->names[i] != NULL; i++) {
        if (strcmp(option->names[i], text) == 0) {
            memcpy(field, &i, sizeof i);
            return OK;
        }
    }
    char quoted[CONFIG_QUOTED_SIZE];
    char names[128] = "";
    size_t len = 0;
    for (uint32_t i = 0; option->names[i] != NULL && len < sizeof names; i++) {
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%s", i > 0 ? ", " : "", option->names[i]);
    }
    return config_problems_reason(why, "%s is not one of: %s", config_problems_quote(span_str(text), quoted), names);
}

static enum err set_bool(const char *text, void *field, struct reason *why)
{
    char quoted[CONFIG_QUOTED_SIZE];
    bool value = strcmp(text, "true") == 0;
    if (!value && strcmp(text, "false") != 0) {
        return config_problems_reason(why, "%s is not one of: true, false", config_problems_quote(span_str(text), quoted));
    }
    memcpy(field, &value, sizeof value);
    return OK;
}

static enum err set_number(const struct config_option *o, const char *text, void *field, struct reason *why)
{
    uint64_t value = 0;
    enum err err = ERR_INVALID;
    switch (o->type) {
    case OPTION_NUMBER: err = config_value_number(text, o->min, o->max, &value, why); break;
    case OPTION_OCTAL: err = config_value_octal(text, o->min, o->max, &value, why); break;
    case OPTION_SIZE: err = config_value_size(text, o->min, o->max, &value, why); break;
    case OPTION_MS: err = config_value_duration(text, 1000, o->min, o->max, &value, why); break;
    case OPTION_SECONDS:
    case OPTION_SECONDS64: err = config_value_duration(text, 1000000, o->min, o->max, &value, why); break;
    default: abort();
    }
    if (err != OK) {
        return err;
    }
    if (o->type == OPTION_SIZE || o->type == OPTION_SECONDS64) {
        memcpy(field, &value, sizeof value);
    } else {
        uint32_t small = (uint32_t)value; /* the tables' ranges see to it */
        memcpy(field, &small, sizeof small);
    }
    return OK;
}

static enum err set_address(const struct config_option *option, const char *text, struct address *field, struct reason *why)
{
    struct address address;
    enum err err = config_address_parse(text, option->port, &address, why);
    if (err == OK) {
        config_address_free(field);
        *field = address;
    }
    return err;
}

enum err config_option_set(const struct config_option *option, const char *text, void *base, struct reason *why)
{
    void *field = config_option_field(option, base);
    char *value = NULL;
    enum err err;
    switch (option->type) {
    case OPTION_TEXT:
        err = check_text(option, text, why);
        if (err == OK) {
            free(*(char **)field);
            *(char **)field = xstrdup(text);
        }
        return err;
    case OPTION_SECRET:
    case OPTION_SECRET_FILE:
        if (option->type == OPTION_SECRET_FILE) {
            err = config_value_secret(text, &value, why);
        } else {
            err = check_text(option, text, why);
            value = err == OK ? xstrdup(text) : NULL;
        }
        if (err == OK) {
            free_secret(field);
            *(char **)field = value;
        }
        return err;
    case OPTION_BOOL: return set_bool(text, field, why);
    case OPTION_ENUM: return set_enum(option, text, field, why);
    case OPTION_ADDRESS: return set_address(option, text, field, why);
    default: return set_number(option, text, field, why);
    }
}

static uint32_t *count_of(const struct config_option *option, void *base)
{
    return (uint32_t *)(void *)((char *)base + option->count_offset);
}

static size_t item_size(const struct config_option *option)
{
    switch (option->type) {
    case OPTION_ADDRESSES: return sizeof(struct address);
    case OPTION_TEXTS: return sizeof(char *);
    default: return option->section->size;
    }
}

void *config_option_item(const struct config_option *option, void *base, uint32_t index)
{
    return *(char **)config_option_field(option, base) + index * item_size(option);
}

enum err config_option_set_item(const struct config_option *option, const char *text, void *base, uint32_t index, struct reason *why)
{
    void *field = config_option_item(option, base, index);
    if (option->type == OPTION_ADDRESSES) {
        return set_address(option, text, field, why);
    }
    enum err err = check_text(option, text, why);
    if (err == OK) {
        char **item = field;
        free(*item);
        *item = xstrdup(text);
    }
    return err;
}

void config_option_make_list(const struct config_option *option, void *base, uint32_t count, uint32_t spare)
{
    *(void **)config_option_field(option, base) = xcalloc((size_t)count + spare + 1, item_size(option));
    *count_of(option, base) = count;
}

static void set_default(const struct config_option *option, void *base)
{
    struct reason why;
    enum err err = OK;
    if (option->type == OPTION_SECTION) {
        config_option_default(option->section, config_option_field(option, base), NULL);
    } else if (option->fallback == NULL || option->fallback == config_option_required) {
        return;
    } else if (option->type == OPTION_ADDRESSES) {
        config_option_make_list(option, base, 1, 0);
        err = config_option_set_item(option, option->fallback, base, 0, &why);
    } else if (option->type == OPTION_SECTIONS) {
        config_option_make_list(option, base, 1, 0);
        config_option_default(option->section, config_option_item(option, base, 0), NULL);
        err = config_option_set(&option->section->options[0], option->fallback, config_option_item(option, base, 0), &why);
    } else {
        err = config_option_set(option, option->fallback, base, &why);
    }
    if (err != OK) {
        fprintf(stderr, "config.def: default of %s: %s\n", option->key, why.text);
        abort();
    }
}

void config_option_default(const struct config_section *section, void *base, const bool *given)
{
    for (uint32_t i = 0; i < section->count; i++) {
        const struct config_option *option = &section->options[i];
        bool is_shared = option->type == OPTION_SECRET && *(char **)config_option_field(option, base) != NULL;
        if ((given == NULL || !given[i]) && !is_shared) {
            set_default(option, base);
        }
    }
}

/* ---- freeing ---- */

static void free_list(const struct config_option *option, void *base)
{
    void **list = config_option_field(option, base);
    for (uint32_t i = 0; i < *count_of(option, base); i++) {
        void *item = config_option_item(option, base, i);
        switch (option->type) {
        case OPTION_ADDRESSES: config_address_free(item); break;
        case OPTION_TEXTS: free(*(char **)item); break;
        default: config_option_free(option->section, item);
        }
    }
    free(*list);
    *list = NULL;
    *count_of(option, base) = 0;
}

void config_option_free(const struct config_section *section, void *base)
{
    for (uint32_t i = 0; i < section->count; i++) {
        const struct config_option *option = &section->options[i];
        void *field = config_option_field(option, base);
        switch (option->type) {
        case OPTION_TEXT:
            free(*(char **)field);
            *(char **)field = NULL;
            break;
        case OPTION_SECRET:
        case OPTION_SECRET_FILE: free_secret(field); break;
        case OPTION_ADDRESS: config_address_free(field); break;
        case OPTION_ADDRESSES:
        case OPTION_TEXTS:
        case OPTION_SECTIONS: free_list(option, base); break;
        case OPTION_SECTION: config_option_free(option->section, field); break;
        case OPTION_SECTION_IF:
            if (*(void **)field != NULL) {
                config_option_free(option->section, *(void **)field);
                free(*(void **)field);
                *(void **)field = NULL;
            }
            break;
        default: break;
        }
    }
}

/* ---- describing ---- */

static void describe_type(const struct config_option *o, char *out, size_t size)
{
    char low[CONFIG_QUANTITY_SIZE];
    char high[CONFIG_QUANTITY_SIZE];
    uint64_t unit = o->type == OPTION_MS ? 1000 : 1000000;
    size_t len = 0;
    switch (o->type) {
    case OPTION_TEXT: snprintf(out, size, "text"); break;
    case OPTION_SECRET: snprintf(out, size, "secret"); break;
    case OPTION_SECRET_FILE: snprintf(out, size, "path"); break;
    case OPTION_BOOL: snprintf(out, size, "true or false"); break;
    case OPTION_NUMBER: snprintf(out, size, "%llu to %llu", (unsigned long long)o->min, (unsigned long long)o->max); break;
    case OPTION_OCTAL: snprintf(out, size, "%04llo to %04llo", (unsigned long long)o->min, (unsigned long long)o->max); break;
    case OPTION_SIZE: snprintf(out, size, "%s to %s", config_value_size_text(o->min, low), config_value_size_text(o->max, high)); break;
    case OPTION_MS:
    case OPTION_SECONDS:
    case OPTION_SECONDS64:
        snprintf(out, size, "%s to %s", config_value_duration_text(o->min * unit, low), config_value_duration_text(o->max * unit, high));
        break;
    case OPTION_ENUM:
        for (uint32_t i = 0; o->names[i] != NULL && len < size; i++) {
            len += (size_t)snprintf(out + len, size - len, "%s%s", i > 0 ? ", " : "", o->names[i]);
        }
        break;
    case OPTION_ADDRESS: snprintf(out, size, "address"); break;
    case OPTION_ADDRESSES: snprintf(out, size, "%u to %u addresses", o->items_min, o->items_max); break;
    case OPTION_TEXTS: snprintf(out, size, "%u to %u names", o->items_min, o->items_max); break;
    case OPTION_SECTIONS: snprintf(out, size, "list, at most %u", o->items_max); break;
    case OPTION_SECTION:
    case OPTION_SECTION_IF: snprintf(out, size, "section"); break;
    }
}

static void describe(FILE *out, const struct config_section *section, const char *path)
{
    for (uint32_t i = 0; i < section->count; i++) {
        const struct config_option *o = &section->options[i];
        char name[128];
        char type[64];
        const char *fallback = o->fallback == NULL ? "-" : o->fallback[0] == '\0' ? "\"\"" : o->fallback;
        describe_type(o, type, sizeof type);
        snprintf(name, sizeof name, "%s%s%s", path, path[0] != '\0' ? "." : "", o->key);
        fprintf(out, "%-38s %-26s %-16s %s\n", name, type, fallback, o->help);
        if (o->section != NULL) {
            char inner[160];
            snprintf(inner, sizeof inner, "%s%s", name, o->type == OPTION_SECTIONS ? "[]" : "");
            describe(out, o->section, inner);
        }
    }
}

void config_option_describe(FILE *out)
{
    fprintf(out, "%-38s %-26s %-16s %s\n", "OPTION", "VALUES", "DEFAULT", "MEANING");
    describe(out, config_option_root, "");
}
