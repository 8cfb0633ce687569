#include "common/config_check.h"

#include <inttypes.h>

#include "common/config_address.h"
#include "common/credentials.h"
#include "common/key_template.h"

/* The line of a field, or else that of the element or section it is missing from. */
static uint32_t line_of(const struct config_read *read, const void *field, const char *key, const void *around, const char *around_key)
{
    const struct config_mark *mark = config_read_mark(read, field, key);
    if (mark == NULL && around != NULL) {
        mark = config_read_mark(read, around, around_key);
    }
    return mark == NULL ? 0 : mark->line;
}

/* False where there was something wrong with what was given, so that its value here says nothing. */
static bool is_sound(const struct config_read *read, const void *field, const char *key)
{
    const struct config_mark *mark = config_read_mark(read, field, key);
    return mark == NULL || !mark->is_bad;
}

static bool is_given(const struct config_read *read, const void *field, const char *key)
{
    return config_read_mark(read, field, key) != NULL;
}

/* ---- the sidecar's own addresses ---- */

static void check_listen(const struct config *config, const struct config_read *read)
{
    for (uint32_t i = 0; i < config->listen_count; i++) {
        const struct config_listen *listen = &config->listen[i];
        for (uint32_t j = 0; j < i; j++) {
            if (config_address_is_same(&listen->address, &config->listen[j].address)) {
                config_problems_add(read->problems, line_of(read, &listen->address, "address", listen, NULL),
                                    "listen[%u]: is the same address as listen[%u]", i, j);
                break;
            }
        }
        if (listen->tls && config->tls == NULL && is_sound(read, &config->tls, "tls")) {
            config_problems_add(read->problems, line_of(read, &listen->tls, "tls", listen, NULL),
                                "listen[%u].tls: needs a tls section with certificate and key", i);
        }
        if (listen->address.host != NULL && is_given(read, &listen->mode, "mode")) {
            config_problems_add(read->problems, line_of(read, &listen->mode, "mode", listen, NULL),
                                "listen[%u].mode: is of unix sockets only; %s is not one", i, listen->address.text);
        }
    }
}

static void check_sizes(const struct config *config, const struct config_read *read)
{
    if (config->max_client_buffer < config->max_value_size && is_sound(read, &config->max_client_buffer, "max_client_buffer") &&
        is_sound(read, &config->max_value_size, "max_value_size")) {
        uint32_t line = line_of(read, &config->max_client_buffer, "max_client_buffer", &config->max_value_size, "max_value_size");
        config_problems_add(read->problems, line, "max_client_buffer: is less than max_value_size, so such a value could not be read");
    }
}

#define TOKEN_MIN 16
#define TOKEN_MAX 1024

/* What others can reach must ask who they are; a token that is short, or could not stand in a header, is none. */
static void check_token(const struct config *config, const struct config_read *read, uint32_t line)
{
    const char *token = config->admin_token;
    if (!is_sound(read, &config->admin_token, "token") || !is_sound(read, &config->admin_token, "token_file")) {
        return;
    }
    if (token == NULL) {
        if (config->admin_public && !config_address_is_loopback(&config->admin)) {
            config_problems_add(read->problems, line, "admin.public: what other hosts can reach needs token or token_file");
        }
        return;
    }
    if (is_given(read, &config->admin_token, "token") && is_given(read, &config->admin_token, "token_file")) {
        config_problems_add(read->problems, line_of(read, &config->admin_token, "token_file", NULL, NULL),
                            "admin.token_file: can not go with token; give one of them");
    }
    size_t len = strlen(token);
    bool is_clean = true;
    for (const char *p = token; *p != '\0'; p++) {
        is_clean = is_clean && (unsigned char)*p > ' ' && (unsigned char)*p < 0x7f;
    }
    if (!is_clean || len < TOKEN_MIN || len > TOKEN_MAX) {
        uint32_t own = line_of(read, &config->admin_token, is_given(read, &config->admin_token, "token") ? "token" : "token_file", config, "admin");
        config_problems_add(read->problems, own, "admin.token: must be %d to %d visible ASCII characters", TOKEN_MIN, TOKEN_MAX);
    }
}

static void check_admin(const struct config *config, const struct config_read *read)
{
    uint32_t line = line_of(read, &config->admin, "listen", config, "admin");
    if (!config->has_admin || config->admin.text == NULL || !is_sound(read, &config->admin, "listen")) {
        return;
    }
    if (!config->admin_public && is_sound(read, &config->admin_public, "public") && !config_address_is_loopback(&config->admin)) {
        char quoted[CONFIG_QUOTED_SIZE];
        config_problems_add(read->problems, line, "admin.listen: %s can be reached from other hosts; that needs public: true",
                            config_problems_quote(span_str(config->admin.text), quoted));
    }
    check_token(config, read, line);
    for (uint32_t i = 0; i < config->listen_count; i++) {
        if (config_address_is_same(&config->admin, &config->listen[i].address)) {
            config_problems_add(read->problems, line, "admin.listen: is the same address as listen[%u]", i);
        }
    }
}

/* The file is read as it will be at the start, so that --check tells what is wrong in it. */
static void check_credentials(const struct config *config, const struct config_read *read)
{
    struct credentials *credentials;
    struct reason why;
    if (config->credentials_file == NULL || !is_sound(read, &config->credentials_file, "credentials_file")) {
        return;
    }
    if (credentials_open(config->credentials_file, &credentials, &why) != OK) {
        config_problems_add(read->problems, line_of(read, &config->credentials_file, "credentials_file", NULL, NULL), "credentials_file: %s",
                            why.text);
    }
    credentials_close(&credentials);
}

/* ---- pool ---- */

static void check_pool(const struct config *config, const struct config_read *read)
{
    const struct config_pool *pool = &config->pool;
    for (uint32_t i = 0; i < pool->node_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (config_address_is_same(&pool->nodes[i].address, &pool->nodes[j].address)) {
                config_problems_add(read->problems, line_of(read, &pool->nodes[i].address, "address", NULL, NULL),
                                    "pool.nodes[%u]: is the same node as pool.nodes[%u]", i, j);
                break;
            }
        }
    }
    if (pool->retry_min_ms > pool->retry_max_ms && is_sound(read, &pool->retry_min_ms, "retry_min") &&
        is_sound(read, &pool->retry_max_ms, "retry_max")) {
        config_problems_add(read->problems, line_of(read, &pool->retry_min_ms, "retry_min", &pool->retry_max_ms, "retry_max"),
                            "pool.retry_min: is longer than retry_max");
    }
    for (uint32_t i = 0; i < config->namespace_count && pool->versions == VERSIONS_OFF; i++) {
        if (config->namespaces[i].read == READ_THROUGH) {
            config_problems_add(read->problems, line_of(read, &pool->versions, "versions", NULL, NULL),
                                "pool.versions: \"off\" can not go with namespaces[%u].read: through: without versions nothing would keep a "
                                "row that is already outdated from being stored (they need memcached >= 1.6.28)",
                                i);
            break;
        }
    }
}

/* ---- namespaces ---- */

static void check_unique(const struct config *config, const struct config_read *read, uint32_t i)
{
    const struct config_namespace *ns = &config->namespaces[i];
    char quoted[CONFIG_QUOTED_SIZE];
    for (uint32_t j = 0; j < i; j++) {
        const struct config_namespace *other = &config->namespaces[j];
        if (ns->prefix != NULL && other->prefix != NULL && strcmp(ns->prefix, other->prefix) == 0) {
            config_problems_add(read->problems, line_of(read, &ns->prefix, "prefix", ns, NULL),
                                "namespaces[%u].prefix: %s is already that of namespaces[%u]", i,
                                config_problems_quote(span_str(ns->prefix), quoted), j);
            return; /* their names are the same for the same reason */
        }
    }
    for (uint32_t j = 0; j < i; j++) {
        const struct config_namespace *other = &config->namespaces[j];
        if (ns->name == NULL || other->name == NULL || strcmp(ns->name, other->name) != 0) {
            continue;
        }
        config_problems_quote(span_str(ns->name), quoted);
        if (is_given(read, ns, NULL)) {
            config_problems_add(read->problems, line_of(read, &ns->name, "name", ns, NULL),
                                "namespaces[%u].name: %s is already that of namespaces[%u]", i, quoted, j);
        } else { /* the default namespace that was added because the file has none */
            config_problems_add(read->problems, line_of(read, &other->name, "name", other, NULL),
                                "namespaces[%u].name: %s is already that of the default namespace", j, quoted);
        }
        return;
    }
}

static void check_times(const struct config *config, const struct config_read *read, uint32_t i)
{
    const struct config_namespace *ns = &config->namespaces[i];
    bool has_ttl = is_sound(read, &ns->ttl_s, "ttl") && is_sound(read, &ns->ttl_jitter_s, "ttl_jitter");
    if (has_ttl && ns->ttl_jitter_s > 0 && ns->ttl_jitter_s >= ns->ttl_s) {
        config_problems_add(read->problems, line_of(read, &ns->ttl_jitter_s, "ttl_jitter", ns, NULL),
                            "namespaces[%u].ttl_jitter: must be shorter than the ttl, which is %us", i, ns->ttl_s);
    }
    bool has_refresh = is_sound(read, &ns->ttl_s, "ttl") && is_sound(read, &ns->refresh_ahead_s, "refresh_ahead");
    if (has_refresh && ns->ttl_s > 0 && ns->refresh_ahead_s >= ns->ttl_s) {
        config_problems_add(read->problems, line_of(read, &ns->refresh_ahead_s, "refresh_ahead", ns, NULL),
                            "namespaces[%u].refresh_ahead: must be shorter than the ttl, which is %us", i, ns->ttl_s);
    }
    if (ns->stale_while_revalidate_s > ns->tombstone_ttl_s && is_sound(read, &ns->stale_while_revalidate_s, "stale_while_revalidate") &&
        is_sound(read, &ns->tombstone_ttl_s, "tombstone_ttl")) {
        config_problems_add(read->problems, line_of(read, &ns->stale_while_revalidate_s, "stale_while_revalidate", ns, NULL),
                            "namespaces[%u].stale_while_revalidate: is longer than tombstone_ttl, which is %us: a stale value is not kept longer", i,
                            ns->tombstone_ttl_s);
    }
    bool has_lease = is_sound(read, &ns->lease_wait_ms, "lease_wait") && is_sound(read, &ns->lease_ttl_s, "lease_ttl");
    if (has_lease && ns->lease_wait_ms > ns->lease_ttl_s * 1000ULL) {
        config_problems_add(read->problems, line_of(read, &ns->lease_wait_ms, "lease_wait", ns, NULL),
                            "namespaces[%u].lease_wait: is longer than lease_ttl, which is %us", i, ns->lease_ttl_s);
    }
    const struct config_database *database = config->database;
    bool has_tombstone = database != NULL && is_sound(read, &ns->tombstone_ttl_s, "tombstone_ttl") &&
                         is_sound(read, &database->timeout_ms, "timeout");
    if (has_tombstone && ns->read == READ_THROUGH && ns->tombstone_ttl_s * 1000ULL <= database->timeout_ms) {
        config_problems_add(read->problems, line_of(read, &ns->tombstone_ttl_s, "tombstone_ttl", ns, NULL),
                            "namespaces[%u].tombstone_ttl: must be longer than database.timeout, which is %ums: a load may take that long", i,
                            database->timeout_ms);
    } else if (has_tombstone && ns->read == READ_THROUGH && database->replica.text != NULL &&
               is_sound(read, &database->max_replica_lag_ms, "max_replica_lag")) {
        /* Where there is no tombstone, nothing has been invalidated that a replica may not show yet: clocks differ both ways, and memcached
         * counts whole seconds. */
        uint64_t least_ms = 1000ULL + database->timeout_ms + database->max_replica_lag_ms + 2ULL * config->max_clock_skew_ms;
        if (ns->tombstone_ttl_s * 1000ULL <= least_ms) {
            config_problems_add(read->problems, line_of(read, &ns->tombstone_ttl_s, "tombstone_ttl", ns, NULL),
                                "namespaces[%u].tombstone_ttl: must be longer than database.timeout, max_replica_lag and twice max_clock_skew "
                                "together and a second, which are %" PRIu64 "ms: an older row of the replica may not find it gone",
                                i, least_ms);
        }
    }
}

/* The key's template begins with the namespace's prefix: another key never comes here. */
static void check_key(const struct config_namespace *ns, const struct config_read *read, uint32_t line, uint32_t i)
{
    const struct config_source *source = ns->source;
    bool has_column = is_given(read, &source->key_column, "key_column");
    bool has_key = is_given(read, &source->key, "key");
    struct key_template key;
    struct reason why;
    if (has_column == has_key) {
        config_problems_add(read->problems, line, "namespaces[%u].source: needs %s key_column or key%s", i, has_column ? "either" : "one of",
                            has_column ? ", not both" : "");
    }
    if (source->key == NULL || ns->prefix == NULL || key_template_parse(source->key, &key, &why) != OK) {
        return;
    }
    if (!span_has_prefix(span_str(key.literals[0]), span_str(ns->prefix))) {
        char quoted[CONFIG_QUOTED_SIZE];
        config_problems_add(read->problems, line_of(read, &source->key, "key", NULL, NULL),
                            "namespaces[%u].source.key: must begin with the namespace's prefix, %s, as text: it is the whole key", i,
                            config_problems_quote(span_str(ns->prefix), quoted));
    }
    key_template_deinit(&key);
}

/* The built-in table is what it is. */
static void check_entries(const struct config_source *source, const struct config_read *read, uint32_t i)
{
    const struct {
        const void *field;
        const char *key;
    } fixed[] = {
        {&source->key, "key"},
        {&source->key_column, "key_column"},
        {&source->value_column, "value_column"},
        {&source->value_columns, "value_columns"},
        {&source->flags_column, "flags_column"},
        {&source->version_column, "version_column"},
        {&source->expires_column, "expires_column"},
    };
    for (size_t k = 0; k < ARRAY_LEN(fixed); k++) {
        if (is_given(read, fixed[k].field, fixed[k].key)) {
            config_problems_add(read->problems, line_of(read, fixed[k].field, fixed[k].key, NULL, NULL),
                                "namespaces[%u].source.%s: can not go with kind: entries, whose columns are known", i, fixed[k].key);
        }
    }
}

static void check_columns(const struct config_source *source, const struct config_read *read, uint32_t line, uint32_t i)
{
    if (!is_given(read, &source->table, "table")) {
        config_problems_add(read->problems, line, "namespaces[%u].source: `table` is missing", i);
    }
    bool has_one = is_given(read, &source->value_column, "value_column");
    bool has_several = is_given(read, &source->value_columns, "value_columns");
    if (has_one == has_several) {
        config_problems_add(read->problems, line, "namespaces[%u].source: needs %s value_column or value_columns%s", i,
                            has_one ? "either" : "one of", has_one ? ", not both" : "");
    }
    for (uint32_t k = 0; k < source->value_column_count; k++) {
        for (uint32_t j = 0; j < k && source->value_columns[k] != NULL; j++) {
            if (source->value_columns[j] != NULL && strcmp(source->value_columns[k], source->value_columns[j]) == 0) {
                config_problems_add(read->problems, line_of(read, &source->value_columns[k], NULL, NULL, NULL),
                                    "namespaces[%u].source.value_columns[%u]: is already value_columns[%u]", i, k, j);
                break;
            }
        }
    }
}

static void check_source(const struct config *config, const struct config_read *read, uint32_t i)
{
    const struct config_namespace *ns = &config->namespaces[i];
    uint32_t line = line_of(read, &ns->source, "source", ns, NULL);
    if (ns->source != NULL && is_sound(read, &ns->source->kind, "kind")) {
        if (ns->source->kind == SOURCE_ENTRIES) {
            check_entries(ns->source, read, i);
        } else {
            check_key(ns, read, line, i);
            check_columns(ns->source, read, line, i);
        }
    }
    if (ns->write == WRITE_THROUGH && is_sound(read, &ns->write, "write") && ns->read != READ_THROUGH && is_sound(read, &ns->read, "read")) {
        config_problems_add(read->problems, line_of(read, &ns->write, "write", ns, NULL),
                            "namespaces[%u].write: \"through\" needs read: through and a source to write to", i);
    }
    if (!is_sound(read, &ns->read, "read")) {
        return;
    }
    if (ns->read == READ_ASIDE && ns->source != NULL) {
        config_problems_add(read->problems, line, "namespaces[%u].source: is used only with read: through", i);
    }
    if (ns->read == READ_THROUGH && ns->source == NULL && is_sound(read, &ns->source, "source")) {
        config_problems_add(read->problems, line_of(read, &ns->read, "read", ns, NULL), "namespaces[%u].read: \"through\" needs a source", i);
    }
    if (ns->read == READ_THROUGH && config->database == NULL && is_sound(read, &config->database, "database")) {
        config_problems_add(read->problems, line_of(read, &ns->read, "read", ns, NULL),
                            "namespaces[%u].read: \"through\" needs a database section", i);
    }
}

/* ---- bus ---- */

static void check_spool(const struct config_bus *bus, const struct config_read *read)
{
    const struct config_spool *spool = bus->spool;
    if (spool == NULL && bus->intent && is_given(read, &bus->intent, "intent") && is_sound(read, &bus->intent, "intent") &&
        is_sound(read, &bus->spool, "spool")) {
        config_problems_add(read->problems, line_of(read, &bus->intent, "intent", NULL, NULL), "bus.intent: needs a spool to be noted in");
    }
    if (spool != NULL && is_sound(read, &spool->max_bytes, "max_bytes") && is_sound(read, &spool->segment_bytes, "segment_bytes") &&
        spool->segment_bytes > spool->max_bytes / 4) {
        config_problems_add(read->problems, line_of(read, &spool->segment_bytes, "segment_bytes", &spool->max_bytes, "max_bytes"),
                            "bus.spool.segment_bytes: is more than a fourth of max_bytes: room is made a whole segment at a time");
    }
}

/* `path` is that of the section. */
static void check_access(const struct config_access *access, const struct config_read *read, const char *path)
{
    const struct {
        const void *field;
        const char *key;
        const void *other_field;
        const char *other_key;
    } pairs[] = {
        {&access->nkey, "nkey", &access->nkey_file, "nkey_file"},
        {&access->nkey_file, "nkey_file", &access->nkey, "nkey"},
        {&access->password, "password", &access->user, "user"},
        {&access->password, "password_file", &access->user, "user"},
    };
    const struct {
        const void *field;
        const char *key;
    } ways[] = {{&access->credentials_file, "credentials_file"}, {&access->nkey, "nkey"}, {&access->user, "user"}};
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        if (is_given(read, pairs[i].field, pairs[i].key) && !is_given(read, pairs[i].other_field, pairs[i].other_key)) {
            config_problems_add(read->problems, line_of(read, pairs[i].field, pairs[i].key, NULL, NULL), "%s.%s: needs %s", path, pairs[i].key,
                                pairs[i].other_key);
        }
    }
    bool has_password = is_given(read, &access->password, "password");
    bool has_password_file = is_given(read, &access->password, "password_file");
    if (has_password && has_password_file) {
        config_problems_add(read->problems, line_of(read, &access->password, "password_file", NULL, NULL),
                            "%s.password_file: can not go with password; give one of them", path);
    }
    if (is_given(read, &access->user, "user") && !has_password && !has_password_file) {
        config_problems_add(read->problems, line_of(read, &access->user, "user", NULL, NULL), "%s.user: needs password or password_file", path);
    }
    for (size_t i = 1; i < ARRAY_LEN(ways); i++) {
        for (size_t j = 0; j < i && is_given(read, ways[i].field, ways[i].key); j++) {
            if (is_given(read, ways[j].field, ways[j].key)) {
                config_problems_add(read->problems, line_of(read, ways[i].field, ways[i].key, NULL, NULL), "%s.%s: can not go with %s", path,
                                    ways[i].key, ways[j].key);
                break;
            }
        }
    }
    const struct config_bus_tls *tls = access->tls;
    if (tls != NULL && is_given(read, &tls->certificate, "certificate") != is_given(read, &tls->key, "key")) {
        bool has_key = is_given(read, &tls->key, "key");
        config_problems_add(read->problems, has_key ? line_of(read, &tls->key, "key", NULL, NULL) : line_of(read, &tls->certificate, "certificate", NULL, NULL),
                            "%s.tls.%s: needs %s", path, has_key ? "key" : "certificate", has_key ? "certificate" : "key");
    }
}

static void check_bus(const struct config *config, const struct config_read *read)
{
    const struct config_bus *bus = config->bus;
    if (!is_given(read, &config->region, "region")) {
        config_problems_add(read->problems, line_of(read, &config->bus, "bus", NULL, NULL),
                            "bus: needs `region`, the name under which this region publishes");
    }
    check_spool(bus, read);
    check_access(&bus->access, read, "bus");
    for (uint32_t i = 0; i < bus->peer_count; i++) {
        char path[32];
        snprintf(path, sizeof path, "bus.peers[%u]", i);
        check_access(&bus->peers[i].access, read, path);
        const char *region = bus->peers[i].region;
        uint32_t line = line_of(read, &bus->peers[i].region, "region", NULL, NULL);
        if (region == NULL) {
            continue;
        }
        if (is_given(read, &config->region, "region") && is_sound(read, &config->region, "region") && strcmp(region, config->region) == 0) {
            config_problems_add(read->problems, line, "bus.peers[%u].region: \"%s\" is this sidecar's own region", i, region);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (bus->peers[j].region != NULL && strcmp(region, bus->peers[j].region) == 0) {
                config_problems_add(read->problems, line, "bus.peers[%u].region: \"%s\" is already that of bus.peers[%u]", i, region, j);
                break;
            }
        }
    }
}

/* ---- strong consistency ---- */

/* What a strong namespace can not do with, or without. */
static void check_strong_namespace(const struct config *config, const struct config_read *read, uint32_t i)
{
    const struct config_namespace *ns = &config->namespaces[i];
    uint32_t line = line_of(read, &ns->consistency, "consistency", ns, NULL);
    if (ns->read != READ_THROUGH && is_sound(read, &ns->read, "read")) {
        config_problems_add(read->problems, line, "namespaces[%u].consistency: \"strong\" needs read: through: nobody knows when a value was true that clients store", i);
    }
    if (config->bus == NULL && is_sound(read, &config->bus, "bus")) {
        config_problems_add(read->problems, line, "namespaces[%u].consistency: \"strong\" needs a bus section: regions, or sidecars of one, agree over NATS", i);
    }
    if (ns->read != READ_THROUGH && config->database == NULL && is_sound(read, &config->database, "database")) {
        config_problems_add(read->problems, line, "namespaces[%u].consistency: \"strong\" needs a database section", i);
    }
    if (ns->stale_while_revalidate_s > 0 && is_sound(read, &ns->stale_while_revalidate_s, "stale_while_revalidate")) {
        config_problems_add(read->problems, line_of(read, &ns->stale_while_revalidate_s, "stale_while_revalidate", ns, NULL),
                            "namespaces[%u].stale_while_revalidate: can not go with consistency: strong", i);
    }
}

static void check_witnesses(const struct config *config, const struct config_read *read)
{
    const struct config_strong *strong = config->strong;
    for (uint32_t i = 0; i < strong->witness_count; i++) {
        const char *name = strong->witnesses[i].region;
        uint32_t line = line_of(read, &strong->witnesses[i].region, "name", NULL, NULL);
        char path[32];
        snprintf(path, sizeof path, "strong.witnesses[%u]", i);
        check_access(&strong->witnesses[i].access, read, path);
        bool is_region = name != NULL && config->region != NULL && strcmp(name, config->region) == 0;
        for (uint32_t j = 0; name != NULL && config->bus != NULL && j < config->bus->peer_count; j++) {
            is_region = is_region || (config->bus->peers[j].region != NULL && strcmp(name, config->bus->peers[j].region) == 0);
        }
        if (is_region) {
            config_problems_add(read->problems, line, "%s.name: \"%s\" is a region, whose NATS has a vote already", path, name);
        }
        for (uint32_t j = 0; j < i && name != NULL; j++) {
            if (strong->witnesses[j].region != NULL && strcmp(name, strong->witnesses[j].region) == 0) {
                config_problems_add(read->problems, line, "%s.name: \"%s\" is already that of strong.witnesses[%u]", path, name, j);
                break;
            }
        }
    }
    uint32_t voters = config_voters(config);
    if (voters > CONFIG_VOTERS_MAX) {
        config_problems_add(read->problems, line_of(read, &strong->witnesses, "witnesses", &config->bus->peers, "peers"),
                            "strong.witnesses: with this region, its peers and the witnesses there are %u votes, more than %u", voters, CONFIG_VOTERS_MAX);
    }
}

/* A write must have time left for its statement when a region had to be suspended first: locks are asked for until prepare_timeout, then its lease
 * runs out, which begins anew with the round that suspends it; and clocks differ (proxy/strong/strong.h, STRONG_SKEWS). */
static void check_windows(const struct config *config, const struct config_read *read)
{
    const struct config_strong *strong = config->strong;
    bool is_given_one = is_given(read, &strong->lock_window_ms, "lock_window") || is_given(read, &config->strong, "strong");
    uint64_t least_ms = strong->prepare_timeout_ms + 2ULL * strong->lease_ms + 3ULL * config->max_clock_skew_ms + 1000;
    if (strong->lock_window_ms < least_ms && is_sound(read, &strong->lock_window_ms, "lock_window") && is_sound(read, &strong->lease_ms, "lease") &&
        is_sound(read, &strong->prepare_timeout_ms, "prepare_timeout") && is_sound(read, &config->max_clock_skew_ms, "max_clock_skew")) {
        config_problems_add(read->problems,
                            is_given_one ? line_of(read, &strong->lock_window_ms, "lock_window", &config->strong, "strong")
                                         : line_of(read, &config->max_clock_skew_ms, "max_clock_skew", NULL, NULL),
                            "strong.lock_window: must be at least prepare_timeout, twice lease, three times max_clock_skew and a second together, which are "
                            "%" PRIu64 "ms: else a write that has to suspend a region has no time left",
                            least_ms);
    }
}

static void check_strong(const struct config *config, const struct config_read *read)
{
    bool is_wanted = false;
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        bool is_strong = config->namespaces[i].consistency == CONSISTENCY_STRONG;
        is_wanted = is_wanted || is_strong || !is_sound(read, &config->namespaces[i].consistency, "consistency");
        if (is_strong) {
            check_strong_namespace(config, read, i);
        }
    }
    if (!is_wanted && config->strong != NULL && is_sound(read, &config->namespaces, "namespaces")) {
        config_problems_add(read->problems, line_of(read, &config->strong, "strong", NULL, NULL), "strong: is used only where a namespace has consistency: strong");
        return;
    }
    if (config->strong == NULL) {
        return;
    }
    if (config->flush_all == FLUSH_NODES && is_sound(read, &config->flush_all, "flush_all")) {
        config_problems_add(read->problems, line_of(read, &config->flush_all, "flush_all", NULL, NULL),
                            "flush_all: \"nodes\" can not go with consistency: strong: the locks of writes under way would go, too; rule or refuse");
    }
    check_witnesses(config, read);
    check_windows(config, read);
}

void config_check(const struct config *config, const struct config_read *read)
{
    check_listen(config, read);
    check_sizes(config, read);
    check_admin(config, read);
    check_credentials(config, read);
    check_pool(config, read);
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        check_unique(config, read, i);
        check_times(config, read, i);
        check_source(config, read, i);
    }
    if (config->database != NULL && is_given(read, &config->database->password, "password") &&
        is_given(read, &config->database->password, "password_file")) {
        config_problems_add(read->problems, line_of(read, &config->database->password, "password_file", NULL, NULL),
                            "database.password_file: can not go with password; give one of them");
    }
    if (config->bus != NULL) {
        check_bus(config, read);
    }
    check_strong(config, read);
}
