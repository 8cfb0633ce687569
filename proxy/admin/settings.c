#include "proxy/admin/settings.h"

#include <jansson.h>

#include "common/config_option.h"
#include "common/config_value.h"

#define HIDDEN "(hidden)"

static json_t *section_json(const struct config_section *section, const void *base);

/* A URL without the name and password in it. */
static json_t *text_json(const char *text)
{
    if (text == NULL) {
        return json_null();
    }
    const char *scheme = strstr(text, "://");
    const char *at = scheme != NULL ? strrchr(scheme, '@') : NULL;
    json_t *json = at != NULL ? json_sprintf("%.*s" HIDDEN "%s", (int)(scheme + 3 - text), text, at) : json_string(text);
    return json != NULL ? json : json_string("(not UTF-8)");
}

static json_t *address_json(const struct address *address)
{
    return text_json(address->text);
}

static json_t *number_json(const struct config_option *option, const void *field)
{
    char text[CONFIG_QUANTITY_SIZE];
    uint64_t large = 0;
    uint32_t small = 0;
    bool is_large = option->type == OPTION_SIZE || option->type == OPTION_SECONDS64;
    memcpy(is_large ? (void *)&large : (void *)&small, field, is_large ? sizeof large : sizeof small);
    uint64_t value = is_large ? large : small;
    switch (option->type) {
    case OPTION_OCTAL: return json_sprintf("%04o", small);
    case OPTION_SIZE: return json_string(config_value_size_text(value, text));
    case OPTION_MS: return json_string(config_value_duration_text(value * 1000, text));
    case OPTION_SECONDS:
    case OPTION_SECONDS64: return json_string(config_value_duration_text(value * 1000000, text));
    default: return json_integer((int32_t)small); /* sidecar_id: -1 is at random */
    }
}

static json_t *list_json(const struct config_option *option, const void *base)
{
    const char *items = *(const char *const *)(const void *)((const char *)base + option->offset);
    uint32_t count;
    memcpy(&count, (const char *)base + option->count_offset, sizeof count);
    json_t *array = json_array();
    for (uint32_t i = 0; i < count; i++) {
        json_t *item;
        if (option->type == OPTION_ADDRESSES) {
            item = address_json((const struct address *)(const void *)items + i);
        } else if (option->type == OPTION_TEXTS) {
            item = text_json(((const char *const *)(const void *)items)[i]);
        } else {
            item = section_json(option->section, items + i * option->section->size);
        }
        json_array_append_new(array, item);
    }
    return array;
}

static json_t *option_json(const struct config_option *option, const void *base)
{
    const void *field = (const char *)base + option->offset;
    uint32_t index;
    const void *inner;
    switch (option->type) {
    case OPTION_TEXT: return text_json(*(char *const *)field);
    case OPTION_SECRET: return *(char *const *)field != NULL ? json_string(HIDDEN) : json_null();
    case OPTION_SECRET_FILE: return NULL; /* the field is the secret's */
    case OPTION_BOOL: return json_boolean(*(const bool *)field);
    case OPTION_ENUM: memcpy(&index, field, sizeof index); return json_string(option->names[index]);
    case OPTION_ADDRESS: return address_json(field);
    case OPTION_ADDRESSES:
    case OPTION_TEXTS:
    case OPTION_SECTIONS: return list_json(option, base);
    case OPTION_SECTION: return section_json(option->section, field);
    case OPTION_SECTION_IF: inner = *(const void *const *)field; return inner != NULL ? section_json(option->section, inner) : json_null();
    default: return number_json(option, field);
    }
}

static json_t *section_json(const struct config_section *section, const void *base)
{
    json_t *object = json_object();
    for (uint32_t i = 0; i < section->count; i++) {
        json_t *value = option_json(&section->options[i], base);
        if (value != NULL) {
            json_object_set_new(object, section->options[i].key, value);
        }
    }
    return object;
}

void settings_get(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    if (routes->view == NULL) {
        http_response_error(response, 503, "unavailable", "there is no configuration to look at");
        return;
    }
    json_t *json = section_json(config_option_root, routes->view->config);
    response->content_type = "application/json";
    json_dumpf(json, response->body, JSON_INDENT(2));
    fputc('\n', response->body);
    json_decref(json);
}
