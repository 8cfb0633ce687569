/* Every option, every default, every complaint with its line and words; then the real deploy/outrigger.yaml. */
#include <check.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config.h"
#include "tests/unit/check_main.h"

#define POOL "pool: {nodes: [10.0.0.1]}\n"
#define DATABASE "database: {primary: db, schema: shop, user: u}\n"
#define BUS "region: w\nbus: {url: 'nats://n', peers: [{region: e, url: 'nats://e'}]}\n"
#define STRONG "namespaces:\n  - prefix: 'a:'\n    read: through\n    consistency: strong\n    " SOURCE "\n"
#define SOURCE "source: {table: t, key_column: k, value_column: v}"

/* What the parser says of `text`, to be freed; "" if it is well. */
static char *parse(const char *text, size_t text_len, struct config **config)
{
    char *said = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&said, &len);
    enum err err = config_parse("f", span_of(text, text_len), out, config);
    fclose(out);
    ck_assert_int_eq(err, len == 0 ? OK : ERR_CONFIG);
    ck_assert((*config != NULL) == (err == OK));
    return said;
}

static struct config *good(const char *text)
{
    struct config *config;
    char *said = parse(text, strlen(text), &config);
    ck_assert_str_eq(said, "");
    free(said);
    return config;
}

static void bad(const char *text, const char *expected)
{
    struct config *config;
    char *said = parse(text, strlen(text), &config);
    ck_assert_str_eq(said, expected);
    free(said);
    config_destroy(&config);
}

/* ---- what is well ---- */

START_TEST(every_default)
{
    struct config *c = good(POOL);
    ck_assert_str_eq(c->region, "local");
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    ck_assert_uint_eq(c->threads, (uint32_t)MIN(processors, 256));
    ck_assert_uint_eq(c->listen_count, 1);
    ck_assert_str_eq(c->listen[0].address.text, "127.0.0.1:11211");
    ck_assert_str_eq(c->listen[0].address.host, "127.0.0.1");
    ck_assert_uint_eq(c->listen[0].address.port, 11211);
    ck_assert_ptr_null(c->listen[0].address.path);
    ck_assert_uint_eq(c->unix_mode, 0660);
    ck_assert_uint_eq(c->max_connections, 20000);
    ck_assert_uint_eq(c->max_value_size, 1 << 20);
    ck_assert_uint_eq(c->idle_timeout_ms, 0);
    ck_assert_uint_eq(c->max_client_buffer, 64 << 20);
    ck_assert_uint_eq(c->pool.node_count, 1);
    ck_assert_str_eq(c->pool.nodes[0].address.text, "10.0.0.1");
    ck_assert_uint_eq(c->pool.nodes[0].address.port, 11211);
    ck_assert_uint_eq(c->pool.nodes[0].weight, 1);
    ck_assert_int_eq(c->pool.versions, VERSIONS_AUTO);
    ck_assert_uint_eq(c->pool.connections, 1);
    ck_assert_uint_eq(c->pool.connect_timeout_ms, 1000);
    ck_assert_uint_eq(c->pool.timeout_ms, 500);
    ck_assert_uint_eq(c->pool.retry_min_ms, 100);
    ck_assert_uint_eq(c->pool.retry_max_ms, 5000);
    ck_assert_uint_eq(c->pool.max_pending, 65536);
    ck_assert_uint_eq(c->namespace_count, 1);
    ck_assert_str_eq(c->namespaces[0].prefix, "");
    ck_assert_str_eq(c->namespaces[0].name, "default");
    ck_assert_int_eq(c->namespaces[0].read, READ_ASIDE);
    ck_assert_int_eq(c->namespaces[0].write, WRITE_ASIDE);
    ck_assert_int_eq(c->namespaces[0].on_set, ON_SET_LOCAL);
    ck_assert_uint_eq(c->namespaces[0].ttl_s, 3600);
    ck_assert_uint_eq(c->namespaces[0].ttl_jitter_s, 0);
    ck_assert_uint_eq(c->namespaces[0].negative_ttl_s, 10);
    ck_assert_uint_eq(c->namespaces[0].lease_wait_ms, 200);
    ck_assert_uint_eq(c->namespaces[0].lease_ttl_s, 10);
    ck_assert_uint_eq(c->namespaces[0].tombstone_ttl_s, 30);
    ck_assert_ptr_null(c->namespaces[0].source);
    ck_assert_ptr_null(c->database);
    ck_assert_ptr_null(c->bus);
    ck_assert(!c->has_admin);
    ck_assert(!c->admin_public);
    ck_assert_int_eq(c->log_level, LOG_INFO);
    ck_assert_uint_eq(c->max_clock_skew_ms, 500);
    ck_assert_int_eq(c->sidecar_id, -1);
    config_destroy(&c);
    ck_assert_ptr_null(c);
    config_destroy(&c); /* of nothing: nothing */
}
END_TEST

/* What is said of a configuration that is well, to be freed. */
static char *warnings(const struct config *config)
{
    char *said = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&said, &len);
    config_warn(config, "f", out);
    fclose(out);
    return said;
}

START_TEST(strong_namespaces)
{
    struct config *c = good(POOL DATABASE BUS STRONG);
    ck_assert_int_eq(c->namespaces[0].consistency, CONSISTENCY_STRONG);
    ck_assert_ptr_nonnull(c->strong);
    ck_assert_uint_eq(c->strong->lease_ms, 3000);
    ck_assert_uint_eq(c->strong->lock_window_ms, 10000);
    ck_assert_uint_eq(c->strong->prepare_timeout_ms, 1000);
    ck_assert_uint_eq(c->strong->witness_count, 0);
    ck_assert_int_eq(c->flush_all, FLUSH_RULE); /* as nothing was said */
    ck_assert_uint_eq(config_voters(c), 2);
    char *said = warnings(c);
    ck_assert_ptr_nonnull(strstr(said, "f: warning: strong: two votes: when either NATS is away"));
    free(said);
    config_destroy(&c);

    c = good(POOL DATABASE BUS STRONG "flush_all: refuse\nstrong:\n  lease: 500ms\n  lock_window: 3600ms\n  prepare_timeout: 100ms\n"
             "  witnesses: [{name: x, url: 'tls://x', user: u, password: p, tls: {server_name: n}}]\n");
    ck_assert_int_eq(c->flush_all, FLUSH_REFUSE);
    ck_assert_uint_eq(c->strong->lease_ms, 500);
    ck_assert_uint_eq(c->strong->witness_count, 1);
    ck_assert_str_eq(c->strong->witnesses[0].region, "x");
    ck_assert_str_eq(c->strong->witnesses[0].access.user, "u");
    ck_assert_str_eq(c->strong->witnesses[0].access.tls->server_name, "n");
    ck_assert_ptr_null(c->strong->witnesses[0].domain);
    said = warnings(c);
    ck_assert_str_eq(said, "");
    free(said);
    config_destroy(&c);

    c = good(POOL DATABASE BUS "namespaces: [{prefix: 'a:', consistency: eventual}]\n");
    ck_assert_ptr_null(c->strong);
    ck_assert_int_eq(c->flush_all, FLUSH_NODES);
    said = warnings(c);
    ck_assert_str_eq(said, "");
    free(said);
    config_destroy(&c);
}
END_TEST

START_TEST(defaults_of_sections)
{
    struct config *c = good(POOL DATABASE "region: west\nbus: {url: 'nats://n'}\nadmin: {}\nnamespaces: [{prefix: 'p:', read: through, " SOURCE "}]\n");
    ck_assert_str_eq(c->database->primary->host, "db");
    ck_assert_uint_eq(c->database->primary->port, 3306);
    ck_assert_str_eq(c->database->schema, "shop");
    ck_assert_str_eq(c->database->user, "u");
    ck_assert_str_eq(c->database->password, "");
    ck_assert_uint_eq(c->database->threads, 4);
    ck_assert_uint_eq(c->database->batch, 128);
    ck_assert_uint_eq(c->database->queue, 4096);
    ck_assert_uint_eq(c->database->connect_timeout_ms, 2000);
    ck_assert_uint_eq(c->database->timeout_ms, 2000);
    ck_assert_ptr_null(c->database->tls_ca);
    ck_assert_str_eq(c->bus->url, "nats://n");
    ck_assert_uint_eq(c->bus->peer_count, 0);
    ck_assert_uint_eq(c->bus->publish_timeout_ms, 3000);
    ck_assert_uint_eq(c->bus->max_pending, 65536);
    ck_assert_uint_eq(c->bus->stream_max_age_s, 86400);
    ck_assert_uint_eq(c->bus->stream_max_bytes, 1 << 30);
    ck_assert_uint_eq(c->bus->stream_replicas, 1);
    ck_assert_uint_eq(c->bus->relays, 2);
    ck_assert_ptr_null(c->bus->access.tls);
    ck_assert_uint_eq(c->bus->ack_wait_ms, 10000);
    ck_assert_uint_eq(c->bus->resend_window_ms, 180000);
    ck_assert_ptr_null(c->bus->access.credentials_file);
    ck_assert(c->has_admin);
    ck_assert_str_eq(c->admin.text, "127.0.0.1:9411");
    ck_assert_uint_eq(c->admin.port, 9411);
    ck_assert_int_eq(c->pool.versions, VERSIONS_ON); /* because of the through namespace */
    const struct config_source *source = c->namespaces[0].source;
    ck_assert_str_eq(source->table, "t");
    ck_assert_str_eq(source->key_column, "k");
    ck_assert_str_eq(source->value_column, "v");
    ck_assert_ptr_null(source->value_columns);
    ck_assert_uint_eq(source->value_column_count, 0);
    ck_assert_ptr_null(source->flags_column);
    ck_assert_ptr_null(source->expires_column);
    ck_assert_uint_eq(c->namespace_count, 2); /* and the default one */
    config_destroy(&c);
}
END_TEST

START_TEST(listeners_and_tls)
{
    struct config *c = good("unix_mode: 0640\n"
                            "listen:\n"
                            "  - localhost\n"
                            "  - {address: '[::]:7', tls: true}\n"
                            "  - {address: 'unix:/a', mode: 0600, tls: true}\n"
                            "  - unix:/b\n"
                            "tls: {certificate: /dev/null, key: /dev/zero, client_ca: /dev/full, min_version: 1.3, handshake_timeout: 1h}\n" POOL);
    ck_assert_uint_eq(c->listen_count, 4);
    ck_assert_uint_eq(c->listen[0].address.port, 11211);
    ck_assert(!c->listen[0].tls && c->listen[1].tls && c->listen[2].tls && !c->listen[3].tls);
    ck_assert_str_eq(c->listen[1].address.host, "::");
    ck_assert_uint_eq(c->listen[2].mode, 0600);
    ck_assert_str_eq(c->listen[3].address.path, "/b");
    ck_assert_uint_eq(c->listen[3].mode, 0640);
    ck_assert_str_eq(c->tls->certificate, "/dev/null");
    ck_assert_str_eq(c->tls->key, "/dev/zero");
    ck_assert_str_eq(c->tls->client_ca, "/dev/full");
    ck_assert_int_eq(c->tls->min_version, TLS_VERSION_1_3);
    ck_assert_uint_eq(c->tls->handshake_timeout_ms, 3600 * 1000);
    config_destroy(&c);

    c = good("tls: {certificate: /dev/null, key: /dev/null}\n" POOL);
    ck_assert_uint_eq(c->listen_count, 1);
    ck_assert(!c->listen[0].tls);
    ck_assert_ptr_null(c->tls->client_ca);
    ck_assert_int_eq(c->tls->min_version, TLS_VERSION_1_2);
    ck_assert_uint_eq(c->tls->handshake_timeout_ms, 5000);
    config_destroy(&c);
}
END_TEST

START_TEST(every_option_of_the_process)
{
    struct config *c = good("region: eu-west_1\n"
                            "threads: 7\n"
                            "listen: ['0.0.0.0:1', '[::1]:65535', 'unix:/run/o.sock', 'localhost', '[2001:db8::1]']\n"
                            "unix_mode: 0o777\n"
                            "max_connections: 5\n"
                            "max_value_size: 128MiB\n"
                            "idle_timeout: 30d\n"
                            "max_client_buffer: 16GiB\n"
                            "max_clock_skew: 1m\n"
                            "sidecar_id: 1023\n"
                            "log: {level: debug}\n"
                            "admin: {listen: '0.0.0.0:80', public: true, token: 0123456789abcdef}\n" POOL);
    ck_assert_str_eq(c->region, "eu-west_1");
    ck_assert_uint_eq(c->threads, 7);
    ck_assert_uint_eq(c->listen_count, 5);
    ck_assert_str_eq(c->listen[1].address.host, "::1");
    ck_assert_uint_eq(c->listen[1].address.port, 65535);
    ck_assert_str_eq(c->listen[1].address.text, "[::1]:65535");
    ck_assert_str_eq(c->listen[2].address.path, "/run/o.sock");
    ck_assert_str_eq(c->listen[2].address.text, "unix:/run/o.sock");
    ck_assert_ptr_null(c->listen[2].address.host);
    ck_assert_uint_eq(c->listen[2].address.port, 0);
    ck_assert_uint_eq(c->listen[3].address.port, 11211);
    ck_assert_str_eq(c->listen[4].address.host, "2001:db8::1");
    ck_assert_uint_eq(c->unix_mode, 0777);
    ck_assert_uint_eq(c->max_connections, 5);
    ck_assert_uint_eq(c->max_value_size, 128 << 20);
    ck_assert_uint_eq(c->idle_timeout_ms, 30U * 86400 * 1000);
    ck_assert_uint_eq(c->max_client_buffer, 16ULL << 30);
    ck_assert_uint_eq(c->max_clock_skew_ms, 60000);
    ck_assert_int_eq(c->sidecar_id, 1023);
    ck_assert_int_eq(c->log_level, LOG_DEBUG);
    ck_assert(c->has_admin && c->admin_public);
    ck_assert_str_eq(c->admin.host, "0.0.0.0");
    config_destroy(&c);
}
END_TEST

START_TEST(every_option_of_the_pool)
{
    struct config *c = good("pool:\n"
                            "  nodes: [a.example, {address: 'b.example:1', weight: 1000}, 'unix:/s', {address: '[::1]:2'}]\n"
                            "  versions: on\n"
                            "  connections: 64\n"
                            "  connect_timeout: 1ms\n"
                            "  timeout: 1h\n"
                            "  retry_min: 2000us\n"
                            "  retry_max: 2ms\n"
                            "  max_pending: 1\n");
    ck_assert_uint_eq(c->pool.node_count, 4);
    ck_assert_str_eq(c->pool.nodes[0].address.host, "a.example");
    ck_assert_uint_eq(c->pool.nodes[1].weight, 1000);
    ck_assert_uint_eq(c->pool.nodes[1].address.port, 1);
    ck_assert_str_eq(c->pool.nodes[2].address.path, "/s");
    ck_assert_uint_eq(c->pool.nodes[3].weight, 1);
    ck_assert_int_eq(c->pool.versions, VERSIONS_ON);
    ck_assert_uint_eq(c->pool.connections, 64);
    ck_assert_uint_eq(c->pool.connect_timeout_ms, 1);
    ck_assert_uint_eq(c->pool.timeout_ms, 3600000);
    ck_assert_uint_eq(c->pool.retry_min_ms, 2);
    ck_assert_uint_eq(c->pool.retry_max_ms, 2);
    ck_assert_uint_eq(c->pool.max_pending, 1);
    config_destroy(&c);
    c = good("pool: {nodes: [a], versions: off}\n");
    ck_assert_int_eq(c->pool.versions, VERSIONS_OFF);
    config_destroy(&c);
}
END_TEST

START_TEST(every_option_of_a_namespace)
{
    struct config *c = good(POOL DATABASE "namespaces:\n"
                                          "  - prefix: 'pkg:'\n"
                                          "    name: packages\n"
                                          "    read: through\n"
                                          "    write: aside\n"
                                          "    on_set: invalidate\n"
                                          "    ttl: 30d\n"
                                          "    ttl_jitter: 2h\n"
                                          "    negative_ttl: 0s\n"
                                          "    lease_wait: 1000ms\n"
                                          "    lease_ttl: 1s\n"
                                          "    tombstone_ttl: 3000ms\n"
                                          "    source:\n"
                                          "      table: sh$$op.pack_ages\n"
                                          "      key_column: name\n"
                                          "      value_columns: [a, b_2, C$$3]\n"
                                          "      flags_column: f\n"
                                          "      expires_column: e\n"
                                          "  - prefix: ''\n"
                                          "    ttl: 0s\n"
                                          "  - {prefix: '::'}\n");
    ck_assert_uint_eq(c->namespace_count, 3);
    const struct config_namespace *n = &c->namespaces[0];
    ck_assert_str_eq(n->prefix, "pkg:");
    ck_assert_str_eq(n->name, "packages");
    ck_assert_int_eq(n->read, READ_THROUGH);
    ck_assert_int_eq(n->on_set, ON_SET_INVALIDATE);
    ck_assert_uint_eq(n->ttl_s, 30 * 86400);
    ck_assert_uint_eq(n->ttl_jitter_s, 7200);
    ck_assert_uint_eq(n->negative_ttl_s, 0);
    ck_assert_uint_eq(n->lease_wait_ms, 1000); /* as long as the lease, and no longer */
    ck_assert_uint_eq(n->lease_ttl_s, 1);
    ck_assert_uint_eq(n->tombstone_ttl_s, 3);
    ck_assert_str_eq(n->source->table, "sh$op.pack_ages");
    ck_assert_str_eq(n->source->key_column, "name");
    ck_assert_ptr_null(n->source->value_column);
    ck_assert_uint_eq(n->source->value_column_count, 3);
    ck_assert_str_eq(n->source->value_columns[0], "a");
    ck_assert_str_eq(n->source->value_columns[2], "C$3");
    ck_assert_str_eq(n->source->flags_column, "f");
    ck_assert_str_eq(n->source->expires_column, "e");
    ck_assert_str_eq(c->namespaces[1].name, "default");
    ck_assert_uint_eq(c->namespaces[1].ttl_s, 0);
    ck_assert_str_eq(c->namespaces[2].name, "::");
    config_destroy(&c);
}
END_TEST

START_TEST(several_primaries_and_a_replica)
{
    struct config *c = good(POOL "database: {primary: ['a', 'b:3307'], schema: s, user: u, replica: r, heartbeat_writer: off,\n"
                                 "           heartbeat_table: ops.hb, heartbeat_interval: 1s, max_replica_lag: 2s, breaker_failures: 1}\n"
                                 "namespaces:\n"
                                 "  - {prefix: '', read: through, tombstone_ttl: 7s, source: {table: t, key_column: k, value_column: v}}\n");
    ck_assert_uint_eq(c->database->primary_count, 2);
    ck_assert_str_eq(c->database->primary[0].host, "a");
    ck_assert_uint_eq(c->database->primary[1].port, 3307);
    ck_assert_str_eq(c->database->replica.host, "r");
    ck_assert_str_eq(c->database->heartbeat_table, "ops.hb");
    ck_assert_int_eq(c->database->heartbeat_writer, HEARTBEAT_OFF);
    config_destroy(&c);
    bad(POOL "database: {primary: a, schema: s, user: u, replica: r, max_replica_lag: 2s}\n"
             "namespaces:\n"
             "  - {prefix: '', read: through, tombstone_ttl: 6s, source: {table: t, key_column: k, value_column: v}}\n",
        "f:4: namespaces[0].tombstone_ttl: must be longer than database.timeout, max_replica_lag and twice max_clock_skew together and a second, "
        "which are 6000ms: an older row of the replica may not find it gone\n");
    bad(POOL "database: {primary: [], schema: s, user: u}\n", "f:2: database.primary: has 0 elements, expected 1 to 16\n");
    bad(POOL "database: {primary: [a, 'b:0'], schema: s, user: u}\n",
        "f:2: database.primary[1]: \"b:0\" has a bad port: expected 1 to 65535\n");
    bad(POOL "database: {primary: 'b:0', schema: s, user: u}\n", "f:2: database.primary: \"b:0\" has a bad port: expected 1 to 65535\n");
}
END_TEST

START_TEST(every_option_of_database_and_bus)
{
    struct config *c = good(POOL "region: west\n"
                                 "database:\n"
                                 "  primary: unix:/run/mysqld.sock\n"
                                 "  schema: my-shop\n"
                                 "  user: o\n"
                                 "  password: 'p$$w\"'\n"
                                 "  threads: 256\n"
                                 "  batch: 2\n"
                                 "  queue: 1\n"
                                 "  connect_timeout: 5s\n"
                                 "  timeout: 100ms\n"
                                 "  tls_ca: /dev/null\n"
                                 "bus:\n"
                                 "  url: tls://user:pa@[::1]:4333\n"
                                 "  peers:\n"
                                 "    - {region: east, url: 'nats://e:1'}\n"
                                 "    - {region: south, url: 'nats://e:1', domain: south-1}\n"
                                 "    - region: north\n"
                                 "      url: tls://n1:1,tls://u:p@n2:2\n"
                                 "      nkey: UABC\n"
                                 "      nkey_file: /dev/null\n"
                                 "      tls: {ca: /dev/null, certificate: /dev/null, key: /dev/null, server_name: n.example}\n"
                                 "    - {region: up, url: 'nats://u', user: me, password: pw, tls: {}}\n"
                                 "  relays: 0\n"
                                 "  publish_timeout: 100ms\n"
                                 "  max_pending: 10\n"
                                 "  stream_max_age: 365d\n"
                                 "  stream_max_bytes: 1MiB\n"
                                 "  stream_replicas: 3\n"
                                 "  ack_wait: 1s\n"
                                 "  resend_window: 0s\n"
                                 "  credentials_file: /dev/null\n");
    ck_assert_str_eq(c->database->primary->path, "/run/mysqld.sock");
    ck_assert_str_eq(c->database->schema, "my-shop");
    ck_assert_str_eq(c->database->password, "p$w\"");
    ck_assert_uint_eq(c->database->threads, 256);
    ck_assert_uint_eq(c->database->batch, 2);
    ck_assert_uint_eq(c->database->queue, 1);
    ck_assert_uint_eq(c->database->connect_timeout_ms, 5000);
    ck_assert_uint_eq(c->database->timeout_ms, 100);
    ck_assert_uint_eq(c->database->primary_count, 1);
    ck_assert_ptr_null(c->database->replica.text);
    ck_assert_uint_eq(c->database->max_replica_lag_ms, 5000);
    ck_assert_uint_eq(c->database->heartbeat_interval_ms, 250);
    ck_assert_str_eq(c->database->heartbeat_table, "outrigger_heartbeat");
    ck_assert_int_eq(c->database->heartbeat_writer, HEARTBEAT_AUTO);
    ck_assert_uint_eq(c->database->breaker_failures, 3);
    ck_assert_str_eq(c->database->tls_ca, "/dev/null");
    ck_assert_str_eq(c->bus->url, "tls://user:pa@[::1]:4333");
    ck_assert_uint_eq(c->bus->peer_count, 4);
    ck_assert_uint_eq(c->bus->relays, 0);
    ck_assert_str_eq(c->bus->peers[2].url, "tls://n1:1,tls://u:p@n2:2");
    ck_assert_str_eq(c->bus->peers[2].access.nkey, "UABC");
    ck_assert_str_eq(c->bus->peers[2].access.nkey_file, "/dev/null");
    ck_assert_str_eq(c->bus->peers[2].access.tls->ca, "/dev/null");
    ck_assert_str_eq(c->bus->peers[2].access.tls->certificate, "/dev/null");
    ck_assert_str_eq(c->bus->peers[2].access.tls->key, "/dev/null");
    ck_assert_str_eq(c->bus->peers[2].access.tls->server_name, "n.example");
    ck_assert_str_eq(c->bus->peers[3].access.user, "me");
    ck_assert_str_eq(c->bus->peers[3].access.password, "pw");
    ck_assert_ptr_nonnull(c->bus->peers[3].access.tls);
    ck_assert_str_eq(c->bus->peers[0].region, "east");
    ck_assert_ptr_null(c->bus->peers[0].domain);
    ck_assert_str_eq(c->bus->peers[1].url, "nats://e:1");
    ck_assert_str_eq(c->bus->peers[1].domain, "south-1");
    ck_assert_uint_eq(c->bus->publish_timeout_ms, 100);
    ck_assert_uint_eq(c->bus->max_pending, 10);
    ck_assert_uint_eq(c->bus->stream_max_age_s, 365 * 86400);
    ck_assert_uint_eq(c->bus->stream_max_bytes, 1 << 20);
    ck_assert_uint_eq(c->bus->stream_replicas, 3);
    ck_assert_uint_eq(c->bus->ack_wait_ms, 1000);
    ck_assert_uint_eq(c->bus->resend_window_ms, 0);
    ck_assert_str_eq(c->bus->access.credentials_file, "/dev/null");
    config_destroy(&c);
}
END_TEST

START_TEST(environment)
{
    setenv("OT_NODE", "10.9.9.9:1", 1);
    setenv("OT_EMPTY", "", 1);
    unsetenv("OT_UNSET");
    struct config *c = good("pool: {nodes: ['${OT_NODE}', \"${OT_UNSET:-b}:${OT_UNSET:-12}\", 'x${OT_EMPTY:-no}y']}\n"
                            "database: {primary: d, schema: s, user: '$$${OT_UNSET:-}$$', password: '${OT_EMPTY}'}\n");
    ck_assert_str_eq(c->pool.nodes[0].address.text, "10.9.9.9:1");
    ck_assert_str_eq(c->pool.nodes[1].address.text, "b:12");
    ck_assert_str_eq(c->pool.nodes[2].address.text, "xy"); /* set, if to nothing */
    ck_assert_str_eq(c->database->user, "$$");
    ck_assert_str_eq(c->database->password, "");
    config_destroy(&c);
    bad(POOL "region: ${OT_UNSET}\n", "f:2: region: the environment variable OT_UNSET is not set (${OT_UNSET:-text} would give it a default)\n");
    const char *shape = "\"${\" must go on with NAME} or NAME:-text} (write \"$$\" for a dollar sign)\n";
    static const char *const wrong[] = {"${", "${}", "${1A}", "${A", "${A:-x", "${A:x}", "${A-x}", "${A b}"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char text[128], expected[192];
        snprintf(text, sizeof text, POOL "region: '%s'\n", wrong[i]);
        snprintf(expected, sizeof expected, "f:2: region: %s", shape);
        bad(text, expected);
    }
    bad(POOL "region: 'a$b'\n", "f:2: region: \"$\" must be followed by \"{\" or \"$\" (write \"$$\" for a dollar sign)\n");
    bad(POOL "region: 'a$'\n", "f:2: region: \"$\" must be followed by \"{\" or \"$\" (write \"$$\" for a dollar sign)\n");
    char medium[5001];
    memset(medium, 'y', sizeof medium - 1);
    medium[5000] = '\0';
    setenv("E", medium, 1);
    c = good(POOL "database: {primary: d, schema: s, user: u, password: 'a${E}${E}b'}\n");
    ck_assert_uint_eq(strlen(c->database->password), 10002);
    ck_assert_int_eq(c->database->password[10001], 'b');
    config_destroy(&c);
    char *large = xmalloc(70001);
    memset(large, 'x', 70000);
    large[70000] = '\0';
    setenv("OT_LARGE", large, 1);
    free(large);
    bad(POOL "region: 'a${OT_LARGE}'\n", "f:2: region: is longer than 65536 bytes with the environment in it\n");
}
END_TEST

/* What is wrong in it is told with its own line, and nothing that stands in it. */
START_TEST(credentials_file)
{
    char path[] = "/tmp/outrigger-users-XXXXXX";
    char text[128], expected[256];
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, "ann:secret\n", 11), 11);
    snprintf(text, sizeof text, POOL "credentials_file: %s\n", path);
    struct config *c = good(text);
    ck_assert_str_eq(c->credentials_file, path);
    config_destroy(&c);
    ck_assert_int_eq(write(fd, "bob\n", 4), 4);
    snprintf(expected, sizeof expected, "f:2: credentials_file: %s:2: has no \":\"; every line is user:password\n", path);
    bad(text, expected);
    close(fd);
    unlink(path);
    snprintf(expected, sizeof expected, "f:2: credentials_file: can not read \"%s\": No such file or directory\n", path);
    bad(text, expected);
    bad(POOL "credentials_file: /tmp\n", "f:2: credentials_file: /tmp is not a regular file\n");
}
END_TEST

START_TEST(password_file)
{
    char dir[] = "/tmp/outrigger-test-XXXXXX";
    char path[64], text[256], expected[256];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/secret", dir);
    snprintf(text, sizeof text, POOL "database: {primary: d, schema: s, user: u,\n password_file: %s}\n", path);

    snprintf(expected, sizeof expected, "f:3: database.password_file: can not read \"%s\": No such file or directory\n", path);
    bad(text, expected);

    static const char *const contents[][2] = {{"s3cret\n", "s3cret"}, {"s3cret", "s3cret"}, {"two\nlines\n\n", "two\nlines\n"}, {"dos\r\n", "dos"}, {"", ""}};
    for (size_t i = 0; i < ARRAY_LEN(contents); i++) {
        FILE *f = fopen(path, "w");
        fputs(contents[i][0], f);
        fclose(f);
        struct config *c = good(text);
        ck_assert_str_eq(c->database->password, contents[i][1]);
        config_destroy(&c);
    }
    char both[300];
    snprintf(both, sizeof both, POOL "database: {primary: d, schema: s, user: u, password: x,\n password_file: %s}\n", path);
    bad(both, "f:3: database.password_file: can not go with password; give one of them\n");
    snprintf(both, sizeof both, POOL "database: {primary: d, schema: s, user: u, password_file: %s,\n password: ''}\n", path);
    bad(both, "f:2: database.password_file: can not go with password; give one of them\n");

    FILE *f = fopen(path, "w");
    for (int i = 0; i < 65536; i++) {
        fputc('x', f);
    }
    fclose(f);
    struct config *c = good(text);
    ck_assert_uint_eq(strlen(c->database->password), 65536);
    config_destroy(&c);
    f = fopen(path, "a");
    fputc('x', f);
    fclose(f);
    snprintf(expected, sizeof expected, "f:3: database.password_file: \"%s\" is larger than 64 KiB\n", path);
    bad(text, expected);
    f = fopen(path, "w");
    fwrite("a\0b", 1, 3, f);
    fclose(f);
    snprintf(expected, sizeof expected, "f:3: database.password_file: \"%s\" has a zero byte in it\n", path);
    bad(text, expected);
    unlink(path);
    ck_assert_int_eq(mkfifo(path, 0600), 0); /* must not hang */
    snprintf(expected, sizeof expected, "f:3: database.password_file: \"%s\" is not a regular file\n", path);
    bad(text, expected);
    unlink(path);
    rmdir(dir);
}
END_TEST

/* ---- what is not ---- */

static const struct {
    const char *text;
    const char *expected;
} wrong[] = {
#include "tests/unit/common/config_problems.def"
};

START_TEST(every_complaint)
{
    bad(wrong[_i].text, wrong[_i].expected);
}
END_TEST

START_TEST(many_at_once)
{
    bad("regoin: west\n"
        "threads: 0\n"
        "pool:\n"
        "  nodes:\n"
        "    - 10.0.0.1:0\n"
        "    - {address: 10.0.0.2, weigth: 2}\n"
        "    - 10.0.0.2\n"
        "  timeout: 500\n"
        "namespaces:\n"
        "  - prefix: ''\n"
        "    read: thru\n"
        "  - prefix: 'user:'\n"
        "    read: through\n"
        "    ttl: 100ms\n"
        "bus:\n"
        "  url: nats://n\n"
        "admin: {listen: 0.0.0.0}\n",
        "f:1: unknown option \"regoin\" (did you mean `region`?)\n"
        "f:2: threads: \"0\" is out of range: 1 to 256\n"
        "f:5: pool.nodes[0]: \"10.0.0.1:0\" has a bad port: expected 1 to 65535\n"
        "f:6: pool.nodes[1]: unknown option \"weigth\" (did you mean `weight`?)\n"
        "f:7: pool.nodes[2]: is the same node as pool.nodes[1]\n"
        "f:8: pool.timeout: \"500\" is not a duration: a whole number and a unit (us, ms, s, m, h, d)\n"
        "f:11: namespaces[0].read: \"thru\" is not one of: aside, through\n"
        "f:13: namespaces[1].read: \"through\" needs a source\n"
        "f:13: namespaces[1].read: \"through\" needs a database section\n"
        "f:14: namespaces[1].ttl: \"100ms\" is not in whole seconds\n"
        "f:15: bus: needs `region`, the name under which this region publishes\n"
        "f:17: admin.listen: \"0.0.0.0\" can be reached from other hosts; that needs public: true\n");
}
END_TEST

START_TEST(secrets_are_not_shown)
{
    struct config *config;
    const char *text = POOL "region: w\ndatabase: {primary: d, schema: s, user: u, password: \"hunter2\\0\"}\nbus: {url: 'nats://u:hunter2@:1'}\n";
    char *said = parse(text, strlen(text), &config);
    ck_assert_str_eq(said, "f:3: database.password: has a zero byte in it\n"
                           "f:4: bus.url: must name a server: nats://host:port or tls://host:port; several with commas between them\n");
    free(said);
}
END_TEST

/* ---- bounds ---- */

static char *many(const char *head, const char *item, unsigned count, const char *tail)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    fputs(head, out);
    for (unsigned i = 0; i < count; i++) {
        fprintf(out, item, i, i);
    }
    fputs(tail, out);
    fclose(out);
    return text;
}

START_TEST(counts_at_their_limits)
{
    static const struct {
        const char *head, *item, *tail, *error;
        unsigned max;
    } cases[] = {
        {"pool: {nodes: [", "n%u, ", "]}\n", "f:1: pool.nodes: has 1025 elements, expected 1 to 1024\n", 1024},
        {POOL "namespaces:\n", "- {prefix: 'p%u:'}\n", "", "f:3: namespaces: has 1025 elements, expected 0 to 1024\n", 1024},
        {POOL "region: w\nbus: {url: 'nats://n', peers: [", "{region: r%u, url: 'nats://n'}, ", "]}\n",
         "f:3: bus.peers: has 64 elements, expected 0 to 63\n", 63},
        {POOL "listen: [", "h%u, ", "]\n", "f:2: listen: has 17 elements, expected 1 to 16\n", 16},
        {POOL DATABASE "namespaces: [{prefix: p, read: through, source: {table: t, key_column: k, value_columns: [", "c%u, ", "]}}]\n",
         "f:3: namespaces[0].source.value_columns: has 65 elements, expected 1 to 64\n", 64},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text = many(cases[i].head, cases[i].item, cases[i].max, cases[i].tail);
        struct config *config = good(text);
        config_destroy(&config);
        free(text);
        text = many(cases[i].head, cases[i].item, cases[i].max + 1, cases[i].tail);
        const char *expected = cases[i].error;
        bad(text, strstr(expected, "namespaces: has") != NULL ? "f:2: namespaces: has 1025 elements, expected 0 to 1024\n" : expected);
        free(text);
    }
}
END_TEST

START_TEST(too_many_problems)
{
    struct config *config;
    char *text = many(POOL, "zzzzzzzzzzz%u: %u\n", 2500, "");
    char *said = parse(text, strlen(text), &config);
    unsigned lines = 0;
    for (const char *p = said; (p = strchr(p, '\n')) != NULL; p++) {
        lines++;
    }
    ck_assert_uint_eq(lines, 1001);
    ck_assert_ptr_nonnull(strstr(said, "\nf: and 1500 more problems\n"));
    free(said);
    free(text);
}
END_TEST

START_TEST(size_of_the_file)
{
    char *text = xmalloc((1 << 20) + 1);
    memset(text, '#', (1 << 20) + 1);
    memcpy(text, POOL, strlen(POOL));
    struct config *config;
    char *said = parse(text, 1 << 20, &config);
    ck_assert_str_eq(said, "");
    free(said);
    config_destroy(&config);
    said = parse(text, (1 << 20) + 1, &config);
    ck_assert_str_eq(said, "f: is larger than 1 MiB\n");
    free(said);
    free(text);
    text = many(POOL "x: [", "a%u, ", 70000, "]\n");
    bad(text, "f:2: the file has more than 65536 values\n");
    free(text);
}
END_TEST

START_TEST(lengths_at_their_limits)
{
    char text[512], prefix[252];
    memset(prefix, 'p', sizeof prefix);
    prefix[250] = '\0';
    snprintf(text, sizeof text, POOL "namespaces: [{prefix: %s}]\n", prefix);
    struct config *config = good(text);
    ck_assert_str_eq(config->namespaces[0].name, prefix);
    config_destroy(&config);
    prefix[250] = 'p';
    prefix[251] = '\0';
    snprintf(text, sizeof text, POOL "namespaces: [{prefix: %s}]\n", prefix);
    bad(text, "f:2: namespaces[0].prefix: is longer than 250 bytes\n");
}
END_TEST

START_TEST(sources)
{
    struct config *c = good(POOL DATABASE "namespaces:\n"
                                          "  - {prefix: 'a:', read: through, write: through, source: entries}\n"
                                          "  - {prefix: 'b:', read: through, source: {kind: entries, table: shop.mine}}\n"
                                          "  - {prefix: 'o:', read: through, source: {table: t, key: 'o:{a}.{b}', value_column: v, "
                                          "version_column: ver}}\n");
    const struct config_source *source = c->namespaces[0].source;
    ck_assert_int_eq(c->namespaces[0].write, WRITE_THROUGH);
    ck_assert_int_eq(source->kind, SOURCE_ENTRIES);
    ck_assert_str_eq(source->table, "outrigger_entries");
    ck_assert_str_eq(source->key_column, "cache_key");
    ck_assert_str_eq(source->value_column, "value");
    ck_assert_str_eq(source->flags_column, "flags");
    ck_assert_str_eq(source->version_column, "version");
    ck_assert_str_eq(source->expires_column, "expires_at");
    ck_assert_str_eq(c->namespaces[1].source->table, "shop.mine");
    ck_assert_str_eq(c->namespaces[1].source->key_column, "cache_key");
    source = c->namespaces[2].source;
    ck_assert_int_eq(source->kind, SOURCE_TABLE);
    ck_assert_str_eq(source->key, "o:{a}.{b}");
    ck_assert_ptr_null(source->key_column);
    ck_assert_str_eq(source->version_column, "ver");
    config_destroy(&c);
}
END_TEST

/* Cut anywhere, the text is refused or read; nothing leaks and nothing is read that is not there. */
START_TEST(truncated_anywhere)
{
    const char *text = POOL DATABASE "region: w\nnamespaces:\n  - prefix: 'a:'\n    read: through\n    " SOURCE
                                     "\nbus: {url: 'nats://n', peers: [{region: e, url: \"nats://${E:-e}\"}]}\n";
    for (size_t len = 0; len <= strlen(text); len++) {
        char *copy = xmalloc(len + 1);
        memcpy(copy, text, len);
        struct config *config;
        char *said = parse(copy, len, &config);
        free(said);
        free(copy);
        config_destroy(&config);
    }
}
END_TEST

/* ---- files, the command line, help ---- */

/* The file in the source tree: where the compiler found this one (which may be relative to a folder that is not ours), or above the
 * program or the working directory. */
static FILE *open_deploy(void)
{
    static const char name[] = "deploy/outrigger.yaml";
    char path[4400], from[2][4096];
    const char *source_end = strstr(__FILE__, "tests/unit/common/");
    ck_assert_ptr_nonnull(source_end);
    snprintf(path, sizeof path, "%.*s%s", (int)(source_end - __FILE__), __FILE__, name);
    FILE *file = fopen(path, "r");
    ssize_t len = readlink("/proc/self/exe", from[0], sizeof from[0] - 1);
    from[0][len > 0 ? len : 0] = '\0';
    ck_assert_ptr_nonnull(getcwd(from[1], sizeof from[1] - 2));
    strcat(from[1], "/.");
    for (size_t i = 0; i < ARRAY_LEN(from); i++) {
        for (char *slash; file == NULL && (slash = strrchr(from[i], '/')) != NULL;) {
            *slash = '\0';
            snprintf(path, sizeof path, "%s/%s", from[i], name);
            file = fopen(path, "r");
        }
    }
    ck_assert_msg(file != NULL, "no %s", name);
    return file;
}

static char *read_deploy(void)
{
    FILE *file = open_deploy();
    char *text = xcalloc(1, 65536);
    ck_assert_uint_lt(fread(text, 1, 65535, file), 65535);
    fclose(file);
    return text;
}

/* `text` with `from` replaced, to be freed. */
static char *replace(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    ck_assert_ptr_nonnull(at);
    char *out = xmalloc(strlen(text) + strlen(to) + 1);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

START_TEST(the_real_file)
{
    char *text = read_deploy();
    char *ours = replace(text, "password_file: /run/secrets/mysql", "password: '${OT_PASSWORD}'");
    setenv("OT_PASSWORD", "pw", 1);
    struct config *c = good(ours);
    ck_assert_str_eq(c->region, "west");
    ck_assert_uint_eq(c->listen_count, 2);
    ck_assert_uint_eq(c->pool.node_count, 2);
    ck_assert_uint_eq(c->pool.nodes[1].weight, 2);
    ck_assert_uint_eq(c->namespace_count, 3);
    ck_assert_str_eq(c->namespaces[1].name, "package");
    ck_assert_int_eq(c->namespaces[2].write, WRITE_THROUGH);
    ck_assert_str_eq(c->namespaces[2].source->table, "outrigger_entries");
    ck_assert_int_eq(c->namespaces[1].read, READ_THROUGH);
    ck_assert_int_eq(c->pool.versions, VERSIONS_ON);
    ck_assert_str_eq(c->database->password, "pw");
    ck_assert_str_eq(c->bus->peers[0].region, "east");
    ck_assert(c->has_admin);
    config_destroy(&c);
    free(ours);

    char dir[] = "/tmp/outrigger-test-XXXXXX";
    char secret[64], path[64], file_line[128];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(secret, sizeof secret, "%s/mysql", dir);
    snprintf(path, sizeof path, "%s/outrigger.yaml", dir);
    snprintf(file_line, sizeof file_line, "password_file: %s", secret);
    ours = replace(text, "password_file: /run/secrets/mysql", file_line);
    FILE *file = fopen(secret, "w");
    fputs("from file\n", file);
    fclose(file);
    file = fopen(path, "w");
    fputs(ours, file);
    fclose(file);
    ck_assert_int_eq(config_load(path, stderr, &c), OK);
    ck_assert_str_eq(c->database->password, "from file");
    config_destroy(&c);
    unlink(secret);
    unlink(path);
    rmdir(dir);
    free(ours);
    free(text);
}
END_TEST

/* What deploy/outrigger.yaml says of a default is the default: with every option that has one taken out, the same comes of it. */
START_TEST(the_real_file_shows_the_defaults)
{
    struct config *file, *plain;
    char *text = read_deploy();
    char *ours = replace(text, "password_file: /run/secrets/mysql", "password: pw");
    file = good(ours);
    plain = good("region: west\n" POOL "namespaces:\n  - {prefix: ''}\n  - {prefix: 'package:', read: through, " SOURCE "}\n" DATABASE
                 "bus: {url: 'nats://127.0.0.1:4222'}\nadmin: {}\n");
#define SAME(field) ck_assert_msg(file->field == plain->field, #field)
    SAME(unix_mode), SAME(max_connections), SAME(max_value_size), SAME(idle_timeout_ms), SAME(max_client_buffer);
    SAME(pool.versions), SAME(pool.connections), SAME(pool.connect_timeout_ms), SAME(pool.timeout_ms), SAME(pool.retry_min_ms);
    SAME(pool.retry_max_ms), SAME(pool.max_pending), SAME(pool.nodes[0].weight);
    SAME(namespaces[0].read), SAME(namespaces[0].write), SAME(namespaces[0].on_set);
    SAME(namespaces[1].ttl_s), SAME(namespaces[1].ttl_jitter_s), SAME(namespaces[1].negative_ttl_s), SAME(namespaces[1].lease_wait_ms);
    SAME(namespaces[1].lease_ttl_s), SAME(namespaces[1].tombstone_ttl_s);
    SAME(database->threads), SAME(database->write_threads), SAME(namespaces[1].source->kind), SAME(database->queue), SAME(database->connect_timeout_ms), SAME(database->timeout_ms);
    SAME(bus->publish_timeout_ms), SAME(bus->max_pending), SAME(bus->stream_max_age_s), SAME(bus->stream_max_bytes);
    SAME(bus->stream_replicas), SAME(bus->ack_wait_ms), SAME(bus->resend_window_ms), SAME(has_admin), SAME(admin_public), SAME(log_level), SAME(max_clock_skew_ms);
    SAME(sidecar_id);
#undef SAME
    ck_assert_str_eq(file->listen[0].address.text, plain->listen[0].address.text);
    ck_assert_ptr_null(file->tls);
    ck_assert_str_eq(file->admin.text, plain->admin.text);
    config_destroy(&file);
    config_destroy(&plain);
    free(ours);
    free(text);
}
END_TEST

/* Every option that --help tells of is in the real file, commented out at least. */
START_TEST(help_and_the_real_file_agree)
{
    char *text = read_deploy();
    char *help = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&help, &len);
    config_describe(out);
    fclose(out);
    unsigned options = 0;
    char *save = NULL;
    strtok_r(help, "\n", &save); /* the heading */
    for (char *line; (line = strtok_r(NULL, "\n", &save)) != NULL; options++) {
        char *end = strchr(line, ' ');
        ck_assert_ptr_nonnull(end);
        ck_assert_uint_gt(strlen(end), 60);
        *end = '\0';
        char *dot = strrchr(line, '.');
        char key[64];
        snprintf(key, sizeof key, "%s:", dot == NULL ? line : dot + 1);
        ck_assert_msg(strstr(text, key) != NULL, "%s is not in deploy/outrigger.yaml", line);
    }
    ck_assert_uint_gt(options, 70); /* it was not cut short */
    free(help);
    free(text);
}
END_TEST

START_TEST(files_that_can_not_be_read)
{
    static const char *const cases[][2] = {
        {"/nowhere/at/all", "/nowhere/at/all: can not be read: No such file or directory\n"},
        {"/", "/: can not be read: Is a directory\n"},
        {"/dev/zero", "/dev/zero: is larger than 1 MiB\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *said = NULL;
        size_t len = 0;
        struct config *config;
        FILE *out = open_memstream(&said, &len);
        ck_assert_int_eq(config_load(cases[i][0], out, &config), ERR_CONFIG);
        fclose(out);
        ck_assert_ptr_null(config);
        ck_assert_str_eq(said, cases[i][1]);
        free(said);
    }
}
END_TEST

static char *plain_problems(const char *pool, const char *listen, struct config **config)
{
    char *said = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&said, &len);
    enum err err = config_plain(pool, listen, out, config);
    fclose(out);
    ck_assert_int_eq(err, len == 0 ? OK : ERR_CONFIG);
    return said;
}

START_TEST(plain)
{
    struct config *c;
    ck_assert_int_eq(config_plain("a:1,[::1]:2,unix:/s,b", NULL, stderr, &c), OK);
    ck_assert_str_eq(c->region, "local");
    ck_assert_uint_eq(c->pool.node_count, 4);
    ck_assert_str_eq(c->pool.nodes[1].address.host, "::1");
    ck_assert_str_eq(c->pool.nodes[2].address.path, "/s");
    ck_assert_uint_eq(c->pool.nodes[3].address.port, 11211);
    ck_assert_uint_eq(c->pool.nodes[3].weight, 1);
    ck_assert_uint_eq(c->pool.timeout_ms, 500);
    ck_assert_uint_eq(c->listen_count, 1);
    ck_assert_str_eq(c->listen[0].address.text, "127.0.0.1:11211");
    ck_assert_uint_eq(c->namespace_count, 1);
    ck_assert_str_eq(c->namespaces[0].name, "default");
    ck_assert(!c->has_admin);
    ck_assert_uint_gt(c->threads, 0);
    ck_assert_int_eq(c->sidecar_id, -1);
    config_destroy(&c);
    ck_assert_int_eq(config_plain("a", "0.0.0.0:1,unix:/tmp/s", stderr, &c), OK);
    ck_assert_uint_eq(c->listen_count, 2);
    ck_assert_str_eq(c->listen[1].address.path, "/tmp/s");
    config_destroy(&c);
    static const char *const cases[][3] = {
        {"", NULL, "command line: --pool: \"\" is not an address: expected host:port, [v6]:port or unix:/path\n"},
        {"a,", NULL, "command line: --pool: \"\" is not an address: expected host:port, [v6]:port or unix:/path\n"},
        {"a:0,b:x", "c:0",
         "command line: --pool: \"a:0\" has a bad port: expected 1 to 65535\n"
         "command line: --pool: \"b:x\" has a bad port: expected 1 to 65535\n"
         "command line: --listen: \"c:0\" has a bad port: expected 1 to 65535\n"},
        {"a,b,a", NULL, "command line: pool.nodes[2]: is the same node as pool.nodes[0]\n"},
        {"a", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "command line: --listen: has more than 16 addresses\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *said = plain_problems(cases[i][0], cases[i][1], &c);
        ck_assert_str_eq(said, cases[i][2]);
        ck_assert_ptr_null(c);
        free(said);
    }
    char *pool = many("n", ",h%u", 1024, "");
    char *said = plain_problems(pool, NULL, &c);
    ck_assert_str_eq(said, "command line: --pool: has more than 1024 addresses\n");
    free(said);
    free(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *well = tcase_create("well");
    tcase_add_test(well, every_default);
    tcase_add_test(well, sources);
    tcase_add_test(well, defaults_of_sections);
    tcase_add_test(well, strong_namespaces);
    tcase_add_test(well, every_option_of_the_process);
    tcase_add_test(well, listeners_and_tls);
    tcase_add_test(well, every_option_of_the_pool);
    tcase_add_test(well, every_option_of_a_namespace);
    tcase_add_test(well, every_option_of_database_and_bus);
    tcase_add_test(well, several_primaries_and_a_replica);
    tcase_add_test(well, environment);
    tcase_add_test(well, credentials_file);
    tcase_add_test(well, password_file);
    suite_add_tcase(suite, well);
    TCase *not_well = tcase_create("not well");
    tcase_add_loop_test(not_well, every_complaint, 0, ARRAY_LEN(wrong));
    tcase_add_test(not_well, many_at_once);
    tcase_add_test(not_well, secrets_are_not_shown);
    suite_add_tcase(suite, not_well);
    TCase *bounds = tcase_create("bounds");
    tcase_set_timeout(bounds, 60);
    tcase_add_test(bounds, counts_at_their_limits);
    tcase_add_test(bounds, too_many_problems);
    tcase_add_test(bounds, size_of_the_file);
    tcase_add_test(bounds, lengths_at_their_limits);
    tcase_add_test(bounds, truncated_anywhere);
    suite_add_tcase(suite, bounds);
    TCase *files = tcase_create("files");
    tcase_add_test(files, the_real_file);
    tcase_add_test(files, the_real_file_shows_the_defaults);
    tcase_add_test(files, help_and_the_real_file_agree);
    tcase_add_test(files, files_that_can_not_be_read);
    tcase_add_test(files, plain);
    suite_add_tcase(suite, files);
    return check_main(suite);
}
