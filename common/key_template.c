#include "common/key_template.h"

#include "common/config_value.h"

/* The literal at the front, its doubled braces made single, up to a field or the end; NULL after a failure. *at moves behind it. */
static char *take_literal(const char **at, struct reason *why)
{
    const char *p = *at;
    char *out = xmalloc(strlen(p) + 1);
    size_t len = 0;
    while (*p != '\0' && (*p != '{' || p[1] == '{')) {
        bool is_brace = *p == '{' || *p == '}';
        if (is_brace && p[1] != *p) {
            config_problems_reason(why, "has a '}' without '{' (write \"}}\" for the brace itself)");
            free(out);
            return NULL;
        }
        out[len++] = *p;
        p += is_brace ? 2 : 1;
    }
    out[len] = '\0';
    *at = p;
    return out;
}

/* The column of the field whose '{' is at the front; NULL after a failure. *at moves behind the '}'. */
static char *take_column(const char **at, struct reason *why)
{
    const char *end = strchr(*at, '}');
    if (end == NULL) {
        config_problems_reason(why, "has a '{' without '}' (write \"{{\" for the brace itself)");
        return NULL;
    }
    char *column = xstrndup(*at + 1, (size_t)(end - *at) - 1);
    if (config_value_check_identifier(column, why) != OK) {
        free(column);
        return NULL;
    }
    *at = end + 1;
    return column;
}

static enum err add_field(struct key_template *key, const char **at, struct reason *why)
{
    char quoted[CONFIG_QUOTED_SIZE];
    if (key->count == KEY_FIELDS_MAX) {
        return config_problems_reason(why, "has more than %u fields", KEY_FIELDS_MAX);
    }
    if (key->count > 0 && key->literals[key->count][0] == '\0') {
        return config_problems_reason(why, "has two fields without text between them: nobody could say where the first one ends");
    }
    char *column = take_column(at, why);
    if (column == NULL) {
        return ERR_INVALID;
    }
    for (uint32_t i = 0; i < key->count; i++) {
        if (strcmp(key->columns[i], column) == 0) {
            config_problems_reason(why, "has the column %s twice", config_problems_quote(span_str(column), quoted));
            free(column);
            return ERR_INVALID;
        }
    }
    key->columns[key->count++] = column;
    key->literals[key->count] = take_literal(at, why);
    return key->literals[key->count] == NULL ? ERR_INVALID : OK;
}

enum err key_template_parse(const char *text, struct key_template *out, struct reason *why)
{
    const char *at = text;
    *out = (struct key_template){0};
    enum err err = config_value_check_prefix(text, why); /* what no key has, no template has */
    if (err == OK) {
        out->literals[0] = take_literal(&at, why);
        err = out->literals[0] == NULL ? ERR_INVALID : OK;
    }
    while (err == OK && *at != '\0') {
        err = add_field(out, &at, why);
    }
    if (err == OK && out->count == 0) {
        err = config_problems_reason(why, "has no {column} in it");
    }
    if (err != OK) {
        key_template_deinit(out);
    }
    return err;
}

void key_template_of_column(const char *column, struct key_template *out)
{
    *out = (struct key_template){.count = 1, .columns = {xstrdup(column)}, .literals = {xstrdup(""), xstrdup("")}};
}

void key_template_deinit(struct key_template *key)
{
    for (uint32_t i = 0; i < KEY_FIELDS_MAX; i++) {
        free(key->columns[i]);
        free(key->literals[i]);
    }
    free(key->literals[KEY_FIELDS_MAX]);
    *key = (struct key_template){0};
}

/* Takes `literal` off the front. */
static bool skip_literal(struct span *text, const char *literal)
{
    struct span wanted = span_str(literal);
    if (!span_has_prefix(*text, wanted)) {
        return false;
    }
    *text = span_of(text->data + wanted.len, text->len - wanted.len);
    return true;
}

bool key_template_split(const struct key_template *key, size_t skip, struct span text, struct span fields[KEY_FIELDS_MAX])
{
    if (!skip_literal(&text, key->literals[0] + MIN(skip, strlen(key->literals[0])))) {
        return false;
    }
    for (uint32_t i = 0; i < key->count; i++) {
        const char *behind = key->literals[i + 1];
        size_t len = text.len;
        if (behind[0] != '\0') {
            const char *end = text.len > 0 ? memchr(text.data, behind[0], text.len) : NULL;
            if (end == NULL) {
                return false;
            }
            len = (size_t)(end - text.data);
        }
        fields[i] = span_of(text.data, len);
        text = span_of(text.data + len, text.len - len);
        if (!skip_literal(&text, behind)) {
            return false;
        }
    }
    return text.len == 0;
}
