/* What:    hostile configuration files. Any text is read or refused: no crash, no leak, no long run; what is read holds what
 *          config.h promises of it.
 * Threads: one.
 */
#include "common/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool kept)
{
    if (!kept) {
        abort();
    }
}

static void look_at(const struct config *c)
{
    uint32_t defaults = 0;
    promise(c->threads >= 1 && c->threads <= 256 && c->listen_count >= 1 && c->listen_count <= 16);
    promise(c->pool.node_count >= 1 && c->pool.node_count <= 1024 && c->region[0] != '\0');
    promise(c->admin.text != NULL && c->sidecar_id >= -1 && c->sidecar_id <= 1023);
    for (uint32_t i = 0; i < c->listen_count; i++) {
        promise((c->listen[i].path != NULL) == (c->listen[i].host == NULL) && (c->listen[i].path != NULL || c->listen[i].port > 0));
    }
    for (uint32_t i = 0; i < c->pool.node_count; i++) {
        promise(c->pool.nodes[i].address.text != NULL && c->pool.nodes[i].weight >= 1);
    }
    for (uint32_t i = 0; i < c->namespace_count; i++) {
        const struct config_namespace *n = &c->namespaces[i];
        promise(strlen(n->prefix) <= KEY_MAX && n->name[0] != '\0' && n->lease_ttl_s >= 1);
        promise((n->read == READ_THROUGH) == (n->source != NULL));
        promise(n->source == NULL || (c->database != NULL && c->pool.versions == VERSIONS_ON && n->source->table != NULL &&
                                      (n->source->value_column == NULL) == (n->source->value_column_count > 0)));
        defaults += n->prefix[0] == '\0';
    }
    promise(defaults == 1);
    promise(c->database == NULL || (c->database->primary && c->database->primary->text && c->database->schema && c->database->user && c->database->password));
    for (uint32_t i = 0; c->bus != NULL && i < c->bus->peer_count; i++) {
        promise(strcmp(c->bus->peers[i].region, c->region) != 0 && c->bus->peers[i].url != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *nowhere;
    if (nowhere == NULL) {
        nowhere = fopen("/dev/null", "w");
        promise(nowhere != NULL);
    }
    struct config *config;
    enum err err = config_parse("fuzz", span_of((const char *)data, size), nowhere, &config);
    promise(err == OK ? config != NULL : err == ERR_CONFIG && config == NULL);
    if (err == OK) {
        look_at(config);
    }
    config_destroy(&config);
    char *text = xstrndup((const char *)data, size);
    if (config_plain(text, size % 2 == 0 ? text : NULL, nowhere, &config) == OK) {
        look_at(config);
    }
    config_destroy(&config);
    free(text);
    return 0;
}
