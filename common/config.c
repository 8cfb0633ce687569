#include "common/config.h"

#include <ctype.h>
#include <errno.h>
#include <unistd.h>

#include "common/config_address.h"
#include "common/config_check.h"
#include "common/config_option.h"
#include "common/config_read.h"
#include "common/config_yaml.h"

#define THREADS_MAX 256 /* as in config.def */
#define NODES_MAX 1024
#define LISTEN_MAX 16

/*  config_load ─▶ config_parse ─▶ config_yaml   text to nodes
 *                      │────────▶ config_read   nodes to fields, by the tables (config.def, config_option, config_value)
 *                      │────────▶ complete()    what depends on other options
 *                      └────────▶ config_check  what must go together
 */

/* ---- what a file need not say ---- */

static uint32_t processors(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : (uint32_t)n;
}

/* "package:" is called "package". */
static char *name_of(const char *prefix)
{
    size_t len = strlen(prefix);
    while (len > 0 && ispunct((unsigned char)prefix[len - 1])) {
        len--;
    }
    if (prefix[0] == '\0') {
        return xstrdup("default");
    }
    return len > 0 ? xstrndup(prefix, len) : xstrdup(prefix);
}

/* There is room for one more behind those that the file lists. */
static void complete_namespaces(struct config *config)
{
    bool has_default = false;
    if (config->namespaces == NULL) {
        config->namespaces = xcalloc(1, sizeof *config->namespaces);
    }
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        has_default = has_default || (config->namespaces[i].prefix != NULL && config->namespaces[i].prefix[0] == '\0');
    }
    if (!has_default) {
        struct config_namespace *added = &config->namespaces[config->namespace_count++];
        config_option_default(config_option_namespace, added, NULL);
        added->prefix = xstrdup("");
    }
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        struct config_namespace *ns = &config->namespaces[i];
        if (ns->name == NULL && ns->prefix != NULL) {
            ns->name = name_of(ns->prefix);
        }
    }
}

/* The built-in table has its columns; only its name may be another. */
static void complete_entries(struct config_source *source)
{
    static const char *const defaults[] = {"outrigger_entries", "cache_key", "value", "flags", "version", "expires_at"};
    char **fields[] = {&source->table,        &source->key_column,     &source->value_column,
                       &source->flags_column, &source->version_column, &source->expires_column};
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (*fields[i] == NULL) {
            *fields[i] = xstrdup(defaults[i]);
        }
    }
}

static void complete(struct config *config)
{
    if (config->threads == 0) {
        config->threads = processors();
    }
    for (uint32_t i = 0; i < config->listen_count; i++) {
        config->listen[i].mode = config->listen[i].mode == 0 ? config->unix_mode : config->listen[i].mode;
    }
    complete_namespaces(config);
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        struct config_source *source = config->namespaces[i].source;
        if (source != NULL && source->kind == SOURCE_ENTRIES) {
            complete_entries(source);
        }
    }
    for (uint32_t i = 0; i < config->namespace_count && config->pool.versions == VERSIONS_AUTO; i++) {
        if (config->namespaces[i].read == READ_THROUGH) {
            config->pool.versions = VERSIONS_ON;
        }
    }
}

static bool has_strong(const struct config *config)
{
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        if (config->namespaces[i].consistency == CONSISTENCY_STRONG) {
            return true;
        }
    }
    return false;
}

/* Where a namespace is strong there is the section, and nobody empties nodes: their locks would go with what they have. */
static void complete_strong(struct config *config, const struct config_read *read)
{
    if (!has_strong(config)) {
        return;
    }
    if (config->strong == NULL && config_read_mark(read, &config->strong, "strong") == NULL) {
        config->strong = xcalloc(1, sizeof *config->strong);
        config_option_default(config_option_strong, config->strong, NULL);
    }
    if (config_read_mark(read, &config->flush_all, "flush_all") == NULL) {
        config->flush_all = FLUSH_RULE;
    }
}

static struct config *create(void)
{
    struct config *config = xcalloc(1, sizeof *config);
    config->sidecar_id = -1;
    return config;
}

/* Prints what was found wrong, if anything; takes both over. */
static enum err finish(struct config *config, struct config_problems *found, FILE *problems, struct config **out)
{
    enum err err = found->count > 0 ? ERR_CONFIG : OK;
    config_problems_print(found, problems);
    config_problems_deinit(found);
    if (err != OK) {
        config_destroy(&config);
    }
    *out = config;
    return err;
}

/* ---- files ---- */

enum err config_parse(const char *name, struct span text, FILE *problems, struct config **out)
{
    struct config *config = create();
    struct config_problems found;
    yaml_document_t document;
    config_problems_init(&found, name);
    if (config_yaml_load(text, &found, &document) == OK) {
        struct config_read read;
        config_read_init(&read, &found, &document);
        config_read_root(&read, config_option_root, config);
        config->has_admin = config_read_mark(&read, config, "admin") != NULL;
        complete(config);
        complete_strong(config, &read);
        config_check(config, &read);
        config_read_deinit(&read);
        yaml_document_delete(&document);
    }
    return finish(config, &found, problems, out);
}

enum err config_load(const char *path, FILE *problems, struct config **out)
{
    char *text = NULL;
    size_t len = 0;
    enum err err = OK;
    *out = NULL;
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        text = xmalloc(CONFIG_TEXT_MAX + 1);
        len = fread(text, 1, CONFIG_TEXT_MAX + 1, file);
    }
    if (file == NULL || ferror(file)) {
        fprintf(problems, "%s: can not be read: %s\n", path, strerror(errno));
        err = ERR_CONFIG;
    }
    if (file != NULL) {
        fclose(file);
    }
    if (err == OK) {
        err = config_parse(path, span_of(text, len), problems, out);
    }
    if (text != NULL) {
        explicit_bzero(text, len); /* there may be a password in it */
        free(text);
    }
    return err;
}

/* ---- the command line alone ---- */

/* Calls take() with each part of a comma separated list. */
static void split(const char *list, const char *option, uint32_t max, struct config_problems *found, struct config *config,
                  void (*take)(struct config *config, const struct address *address))
{
    uint32_t count = 0;
    for (const char *at = list; at != NULL; count++) {
        const char *comma = strchr(at, ',');
        char *part = comma == NULL ? xstrdup(at) : xstrndup(at, (size_t)(comma - at));
        struct address address;
        struct reason why;
        if (count == max) {
            config_problems_add(found, 0, "%s: has more than %u addresses", option, max);
            comma = NULL;
        } else if (config_address_parse(part, 11211, &address, &why) == OK) {
            take(config, &address);
        } else {
            config_problems_add(found, 0, "%s: %s", option, why.text);
        }
        free(part);
        at = comma == NULL ? NULL : comma + 1;
    }
}

static void take_node(struct config *config, const struct address *address)
{
    config->pool.nodes[config->pool.node_count++] = (struct config_node){.address = *address, .weight = 1};
}

static void take_listen(struct config *config, const struct address *address)
{
    config->listen[config->listen_count++] = (struct config_listen){.address = *address};
}

enum err config_plain(const char *pool, const char *listen, FILE *problems, struct config **out)
{
    struct config *config = create();
    struct config_problems found;
    struct config_read nothing;
    config_problems_init(&found, "command line");
    config_read_init(&nothing, &found, NULL);
    config_option_default(config_option_root, config, NULL);
    config->pool.nodes = xcalloc(NODES_MAX, sizeof *config->pool.nodes);
    split(pool, "--pool", NODES_MAX, &found, config, take_node);
    if (listen != NULL) {
        config_address_free(&config->listen[0].address);
        free(config->listen);
        config->listen = xcalloc(LISTEN_MAX, sizeof *config->listen);
        config->listen_count = 0;
        split(listen, "--listen", LISTEN_MAX, &found, config, take_listen);
    }
    complete(config);
    config_check(config, &nothing);
    return finish(config, &found, problems, out);
}

void config_warn(const struct config *config, const char *name, FILE *out)
{
    if (config->strong != NULL && config_voters(config) == 2) {
        fprintf(out, "%s: warning: strong: two votes: when either NATS is away no strong namespace can be written, nor read from the cache; "
                     "name a witness (strong.witnesses)\n",
                name);
    }
}

void config_destroy(struct config **config)
{
    if (*config != NULL) {
        config_option_free(config_option_root, *config);
        free(*config);
        *config = NULL;
    }
}

void config_describe(FILE *out)
{
    config_option_describe(out);
}
