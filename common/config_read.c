#include "common/config_read.h"

#include <stdarg.h>

#include "common/config_value.h"
#include "common/config_yaml.h"

/* Where the reader is: namespaces[1].source.table, innermost last. */
struct place {
    const struct place *up;
    const char *key; /* NULL: an element, at `index` */
    uint32_t index;
};

#define PLACE_SIZE 256

/* ---- problems ---- */

static size_t print_place(const struct place *place, char out[PLACE_SIZE])
{
    size_t len = place->up == NULL ? 0 : print_place(place->up, out);
    int n;
    if (place->key != NULL) {
        n = snprintf(out + len, PLACE_SIZE - len, "%s%s", len > 0 ? "." : "", place->key);
    } else {
        n = snprintf(out + len, PLACE_SIZE - len, "[%u]", place->index);
    }
    return MIN(len + (size_t)n, (size_t)PLACE_SIZE - 1);
}

static bool complain(struct config_read *read, uint32_t line, const struct place *place, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Always false, for callers that return it. */
static bool complain(struct config_read *read, uint32_t line, const struct place *place, const char *fmt, ...)
{
    char where[PLACE_SIZE];
    char text[768];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (place == NULL) {
        config_problems_add(read->problems, line, "%s", text);
    } else {
        print_place(place, where);
        config_problems_add(read->problems, line, "%s: %s", where, text);
    }
    return false;
}

/* ---- marks ---- */

void config_read_init(struct config_read *read, struct config_problems *problems, yaml_document_t *document)
{
    *read = (struct config_read){.problems = problems, .document = document};
}

void config_read_deinit(struct config_read *read)
{
    free(read->marks);
    read->marks = NULL;
}

static void add_mark(struct config_read *read, const void *field, const char *key, uint32_t line, bool is_bad)
{
    if (read->count == read->cap) {
        uint32_t cap = MAX(64U, read->cap * 2);
        struct config_mark *marks = xcalloc(cap, sizeof *marks);
        if (read->count > 0) {
            memcpy(marks, read->marks, read->count * sizeof *marks);
        }
        free(read->marks);
        read->marks = marks;
        read->cap = cap;
    }
    read->marks[read->count] = (struct config_mark){field, key, line, read->count, is_bad};
    read->count++;
}

static int compare_marks(const void *a, const void *b)
{
    const struct config_mark *x = a;
    const struct config_mark *y = b;
    if (x->field != y->field) {
        return (uintptr_t)x->field < (uintptr_t)y->field ? -1 : 1;
    }
    return x->order < y->order ? -1 : 1;
}

const struct config_mark *config_read_mark(const struct config_read *read, const void *field, const char *key)
{
    uint32_t low = 0;
    uint32_t high = read->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uintptr_t)read->marks[middle].field < (uintptr_t)field) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < read->count && read->marks[low].field == field; low++) {
        const struct config_mark *mark = &read->marks[low];
        if (mark->key == key || (mark->key != NULL && key != NULL && strcmp(mark->key, key) == 0)) {
            return mark;
        }
    }
    return NULL;
}

/* ---- scalars ---- */

static bool expect(struct config_read *read, const struct place *place, uint32_t line, const yaml_node_t *node, yaml_node_type_t type,
                   const char *expected)
{
    if (type == YAML_SCALAR_NODE && config_yaml_is_null(node)) {
        return complain(read, line, place, "has no value (an empty text is written \"\")");
    }
    if (node->type != type) {
        return complain(read, line, place, "expected %s, found %s", expected, config_yaml_kind(node));
    }
    return true;
}

/* The text of a scalar with the environment in it, to be freed; NULL after a complaint. */
static char *read_text(struct config_read *read, const struct place *place, const yaml_node_t *node)
{
    uint32_t line = config_yaml_line(node);
    struct reason why;
    char *text;
    if (!expect(read, place, line, node, YAML_SCALAR_NODE, "a single value")) {
        return NULL;
    }
    if (config_value_expand(config_yaml_scalar(node), &text, &why) != OK) {
        complain(read, line, place, "%s", why.text);
        return NULL;
    }
    return text;
}

static void free_text(char *text)
{
    explicit_bzero(text, strlen(text)); /* it may be a password */
    free(text);
}

static bool read_scalar(struct config_read *read, const struct place *place, const struct config_option *option, const yaml_node_t *node,
                        void *base)
{
    struct reason why;
    char *text = read_text(read, place, node);
    if (text == NULL) {
        return false;
    }
    bool ok = config_option_set(option, text, base, &why) == OK || complain(read, config_yaml_line(node), place, "%s", why.text);
    free_text(text);
    return ok;
}

/* ---- sections and lists ---- */

static void read_section(struct config_read *read, const struct place *place, const struct config_section *section,
                         const yaml_node_t *node, uint32_t line, void *base);

static const yaml_node_t *node_at(const struct config_read *read, int index)
{
    return yaml_document_get_node(read->document, index);
}

static bool read_item(struct config_read *read, const struct place *place, const struct config_option *option, const yaml_node_t *node,
                      void *base, uint32_t index)
{
    void *item = config_option_item(option, base, index);
    if (option->type == OPTION_SECTIONS) {
        add_mark(read, item, NULL, config_yaml_line(node), false);
        read_section(read, place, option->section, node, config_yaml_line(node), item);
        return true;
    }
    char *text = read_text(read, place, node);
    bool ok = text != NULL;
    if (ok) {
        struct reason why;
        ok = config_option_set_item(option, text, base, index, &why) == OK || complain(read, config_yaml_line(node), place, "%s", why.text);
        free_text(text);
    }
    add_mark(read, item, NULL, config_yaml_line(node), !ok);
    return ok;
}

static bool read_list(struct config_read *read, const struct place *place, const struct config_option *option, const yaml_node_t *node,
                      uint32_t line, void *base)
{
    if (option->type == OPTION_ADDRESSES && node->type == YAML_SCALAR_NODE) { /* one alone needs no list */
        config_option_make_list(option, base, 1, CONFIG_READ_SPARE);
        return read_item(read, place, option, node, base, 0);
    }
    if (!expect(read, place, line, node, YAML_SEQUENCE_NODE, "a list (- item)")) {
        return false;
    }
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (count < option->items_min || count > option->items_max) {
        return complain(read, line, place, "has %zu elements, expected %u to %u", count, option->items_min, option->items_max);
    }
    config_option_make_list(option, base, (uint32_t)count, CONFIG_READ_SPARE);
    bool ok = true;
    for (uint32_t i = 0; i < count; i++) {
        struct place inner = {place, NULL, i};
        ok = read_item(read, &inner, option, node_at(read, node->data.sequence.items.start[i]), base, i) && ok;
    }
    return ok;
}

static bool read_inner(struct config_read *read, const struct place *place, const struct config_option *option, const yaml_node_t *node,
                       uint32_t line, void *base)
{
    void *field = config_option_field(option, base);
    bool is_brief = option->section->shorthand && node->type == YAML_SCALAR_NODE && !config_yaml_is_null(node);
    bool has_kind = is_brief || expect(read, place, line, node, YAML_MAPPING_NODE, "a mapping (key: value)");
    if (option->type == OPTION_SECTION_IF) {
        if (!has_kind) {
            return false;
        }
        *(void **)field = xcalloc(1, option->section->size);
        field = *(void **)field;
    }
    if (has_kind) {
        read_section(read, place, option->section, node, line, field);
    }
    return has_kind;
}

static bool read_option(struct config_read *read, const struct place *place, const struct config_option *option, const yaml_node_t *node,
                        uint32_t line, void *base)
{
    switch (option->type) {
    case OPTION_ADDRESSES:
    case OPTION_TEXTS:
    case OPTION_SECTIONS: return read_list(read, place, option, node, line, base);
    case OPTION_SECTION:
    case OPTION_SECTION_IF: return read_inner(read, place, option, node, line, base);
    default: return read_scalar(read, place, option, node, base);
    }
}

/* ---- keys ---- */

/* How many letters must be put in, taken out, changed or swapped to make one of the other. */
static unsigned distance(struct span a, struct span b)
{
    unsigned rows[3][64];
    if (a.len >= 64 || b.len >= 64) {
        return UINT32_MAX;
    }
    for (size_t j = 0; j <= b.len; j++) {
        rows[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= a.len; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *last = rows[(i + 2) % 3];
        const unsigned *before = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b.len; j++) {
            unsigned best = MIN(MIN(last[j], row[j - 1]) + 1, last[j - 1] + (a.data[i - 1] != b.data[j - 1]));
            if (i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2] && a.data[i - 2] == b.data[j - 1]) {
                best = MIN(best, before[j - 2] + 1);
            }
            row[j] = best;
        }
    }
    return rows[a.len % 3][b.len];
}

static void complain_unknown(struct config_read *read, const struct place *place, const struct config_section *section, uint32_t line,
                             struct span key)
{
    char quoted[CONFIG_QUOTED_SIZE];
    const char *nearest = NULL;
    unsigned best = (unsigned)MAX((size_t)1, key.len / 3) + 1;
    config_problems_quote(key, quoted);
    for (uint32_t i = 0; i < section->count; i++) {
        unsigned d = distance(key, span_str(section->options[i].key));
        if (d < best) {
            best = d;
            nearest = section->options[i].key;
        }
    }
    if (nearest != NULL) {
        complain(read, line, place, "unknown option %s (did you mean `%s`?)", quoted, nearest);
        return;
    }
    char known[384] = "";
    size_t len = 0;
    for (uint32_t i = 0; i < section->count && len < sizeof known; i++) {
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i > 0 ? ", " : "", section->options[i].key);
    }
    complain(read, line, place, "unknown option %s; expected one of: %s", quoted, known);
}

static uint32_t find_option(const struct config_section *section, struct span key)
{
    uint32_t i = 0;
    while (i < section->count && !span_eq(key, span_str(section->options[i].key))) {
        i++;
    }
    return i;
}

/* What a mapping has said of an option so far. */
struct seen {
    uint32_t line; /* 0: nothing */
    bool ok;
};

/* One "key: value" of a mapping. */
static void read_pair(struct config_read *read, const struct place *place, const struct config_section *section,
                      const yaml_node_pair_t *pair, void *base, struct seen *seen)
{
    const yaml_node_t *key = node_at(read, pair->key);
    const yaml_node_t *value = node_at(read, pair->value);
    uint32_t line = config_yaml_line(key);
    if (key->type != YAML_SCALAR_NODE) {
        complain(read, line, place, "expected an option's name, found %s", config_yaml_kind(key));
        return;
    }
    uint32_t i = find_option(section, config_yaml_scalar(key));
    if (i == section->count) {
        complain_unknown(read, place, section, line, config_yaml_scalar(key));
        return;
    }
    struct place inner = {place, section->options[i].key, 0};
    if (seen[i].line > 0) {
        complain(read, line, &inner, "given twice, first on line %u", seen[i].line);
        return;
    }
    const struct config_option *option = &section->options[i];
    seen[i] = (struct seen){line, read_option(read, &inner, option, value, line, base)};
    line = config_option_is_scalar(option) ? config_yaml_line(value) : line;
    add_mark(read, config_option_field(option, base), option->key, line, !seen[i].ok);
}

static void read_section(struct config_read *read, const struct place *place, const struct config_section *section,
                         const yaml_node_t *node, uint32_t line, void *base)
{
    struct seen seen[CONFIG_OPTIONS_MAX] = {0};
    bool is_mapping = true;
    if (section->shorthand && node->type == YAML_SCALAR_NODE) {
        const struct config_option *first = &section->options[0];
        seen[0] = (struct seen){line, read_scalar(read, place, first, node, base)};
        add_mark(read, config_option_field(first, base), first->key, line, !seen[0].ok);
    } else {
        is_mapping = expect(read, place, line, node, YAML_MAPPING_NODE, "a mapping (key: value)");
    }
    if (is_mapping && node->type == YAML_MAPPING_NODE) {
        for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
            read_pair(read, place, section, pair, base, seen);
        }
    }
    bool given[CONFIG_OPTIONS_MAX];
    for (uint32_t i = 0; i < section->count; i++) {
        const struct config_option *option = &section->options[i];
        bool may_be_half_read = !config_option_is_scalar(option) && option->type != OPTION_SECTION;
        given[i] = seen[i].line > 0 && (seen[i].ok || may_be_half_read);
        if (is_mapping && seen[i].line == 0 && option->fallback == config_option_required) {
            complain(read, line, place, "`%s` is missing", option->key);
        }
    }
    config_option_default(section, base, given);
}

void config_read_root(struct config_read *read, const struct config_section *section, void *base)
{
    const yaml_node_t *root = yaml_document_get_root_node(read->document);
    if (root == NULL || config_yaml_is_null(root)) {
        complain(read, 1, NULL, "has no options in it");
    } else {
        read_section(read, NULL, section, root, config_yaml_line(root), base);
    }
    if (read->count > 1) {
        qsort(read->marks, read->count, sizeof *read->marks, compare_marks);
    }
}
