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
        const struct address *a = &c->listen[i].address;
        promise((a->path != NULL) == (a->host == NULL) && (a->path != NULL || a->port > 0));
        promise(c->listen[i].mode <= 0777 && (!c->listen[i].tls || c->tls != NULL));
    }
    promise(c->credentials_file == NULL || c->credentials_file[0] != '\0');
    promise(c->tls == NULL || (c->tls->certificate && c->tls->key && c->tls->handshake_timeout_ms > 0));
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
    const struct config_database *d = c->database;
    promise(d == NULL || (d->primary_count >= 1 && d->schema && d->user && d->password && d->heartbeat_table && d->heartbeat_interval_ms > 0));
    for (uint32_t i = 0; d != NULL && i < d->primary_count; i++) {
        promise(d->primary[i].text != NULL);
    }
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
