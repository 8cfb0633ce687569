/* What:    the configuration: one YAML file (or the command line alone) made into one immutable struct.
 * Owns:    struct config owns all its strings and arrays.
 * Threads: read-only once loaded; any thread.
 * Fails:   ERR_CONFIG with every problem found written to `problems`, each as "file:line: what was wrong and what was expected".
 *
 * The options, their defaults, ranges and help texts are the tables in config.def; deploy/outrigger.yaml shows them all.
 */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include "common/base.h"
#include "common/err.h"
#include "common/log.h"

#define KEY_MAX 250 /* memcached's limit */

enum read_mode { READ_ASIDE, READ_THROUGH };
enum write_mode { WRITE_ASIDE, WRITE_THROUGH };
enum consistency { CONSISTENCY_EVENTUAL, CONSISTENCY_STRONG };
enum source_kind { SOURCE_TABLE, SOURCE_ENTRIES };
enum on_set { ON_SET_LOCAL, ON_SET_INVALIDATE };
enum flush_mode { FLUSH_NODES, FLUSH_RULE, FLUSH_REFUSE };
enum heartbeat_writer { HEARTBEAT_AUTO, HEARTBEAT_OFF };
enum versions_mode { VERSIONS_AUTO, VERSIONS_ON, VERSIONS_OFF };
enum tls_version { TLS_VERSION_1_2, TLS_VERSION_1_3 };

/* Where something listens or is found: a unix socket when `path` is set, else host and port. */
struct address {
    char *text; /* as written, for messages */
    char *host;
    uint16_t port;
    char *path;
};

struct config_node {
    struct address address;
    uint32_t weight;
};

struct config_pool {
    struct config_node *nodes;
    uint32_t node_count;
    enum versions_mode versions;
    uint32_t connections;
    uint32_t connect_timeout_ms;
    uint32_t timeout_ms;
    uint32_t retry_min_ms;
    uint32_t retry_max_ms;
    uint32_t max_pending;
};

struct config_source {
    enum source_kind kind; /* SOURCE_ENTRIES: all that follows is set, but `key`; key_column then holds whole keys */
    char *table; /* validated identifiers; table may be schema.table */
    char *key;        /* a key_template of the whole key; or NULL: */
    char *key_column; /* the key without the namespace's prefix */
    char *value_column;   /* or NULL: the columns below, as a JSON object */
    char **value_columns;
    uint32_t value_column_count;
    char *flags_column;   /* or NULL */
    char *version_column; /* or NULL */
    char *expires_column; /* or NULL */
};

struct config_namespace {
    char *prefix;
    char *name; /* metrics label; unique */
    enum read_mode read;
    enum write_mode write;
    enum on_set on_set;
    enum consistency consistency;
    uint32_t ttl_s; /* 0: none */
    uint32_t ttl_jitter_s;
    uint32_t negative_ttl_s; /* 0: not remembered */
    uint32_t refresh_ahead_s; /* 0: not */
    uint32_t stale_while_revalidate_s; /* 0: not */
    uint32_t lease_wait_ms;
    uint32_t lease_ttl_s;
    uint32_t tombstone_ttl_s;
    struct config_source *source; /* only with READ_THROUGH */
};

struct config_database {
    struct address *primary; /* those that can be it; the one that is not read-only is */
    uint32_t primary_count;
    struct address replica; /* this region's; without text: none */
    uint32_t max_replica_lag_ms;
    uint32_t heartbeat_interval_ms;
    char *heartbeat_table;
    enum heartbeat_writer heartbeat_writer;
    char *schema;
    char *user;
    char *password; /* read from password_file where that is given */
    uint32_t threads;
    uint32_t write_threads;
    uint32_t batch;
    uint32_t queue;
    uint32_t connect_timeout_ms;
    uint32_t timeout_ms;
    uint32_t breaker_failures;
    char *tls_ca; /* or NULL */
};

#define CONFIG_VOTERS_MAX 16
#define CONFIG_SERVERS_MAX 16 /* in the URL of a NATS */

/* TLS towards a NATS. */
struct config_bus_tls {
    char *ca;          /* or NULL: the authorities that the system trusts */
    char *certificate; /* ours, or NULL: it does not ask for one */
    char *key;
    char *server_name; /* or NULL: the host of the URL */
};

/* How a NATS is told who we are: one of credentials_file, nkey and user, or none. */
struct config_access {
    char *credentials_file;
    char *nkey; /* the public key; its seed is in nkey_file */
    char *nkey_file;
    char *user;
    char *password;             /* read from password_file where that is given */
    struct config_bus_tls *tls; /* or NULL */
};

struct config_peer {
    char *region;
    char *url;    /* or several, with commas between them */
    char *domain; /* or NULL */
    struct config_access access;
};

struct config_spool {
    char *directory;
    uint64_t max_bytes;
    uint64_t segment_bytes;
};

struct config_bus {
    char *url; /* or several, with commas between them */
    uint32_t relays; /* 0: every sidecar */
    struct config_peer *peers;
    uint32_t peer_count;
    uint32_t publish_timeout_ms;
    uint32_t max_pending;
    uint64_t stream_max_age_s;
    uint64_t stream_max_bytes;
    uint32_t stream_replicas;
    uint32_t rules_wait_ms;
    uint32_t ack_wait_ms;
    uint32_t resend_window_ms; /* 0: nothing is kept */
    struct config_access access;
    struct config_spool *spool; /* or NULL */
    bool intent;
};

/* The consistency controller; there is one when a namespace is strong. */
struct config_strong {
    uint32_t lease_ms;
    uint32_t lock_window_ms;
    uint32_t prepare_timeout_ms;
    struct config_peer *witnesses; /* votes beside the own region's NATS and the peers'; `region` is the name of one, `domain` NULL */
    uint32_t witness_count;
};

struct config_listen {
    struct address address;
    bool tls;
    uint32_t mode; /* of a unix socket */
};

struct config_tls {
    char *certificate;
    char *key;
    char *client_ca; /* or NULL: clients need no certificate */
    enum tls_version min_version;
    uint32_t handshake_timeout_ms;
};

struct config {
    char *region;
    uint32_t threads;
    struct config_listen *listen;
    uint32_t listen_count;
    uint32_t unix_mode;
    struct config_tls *tls; /* or NULL */
    uint32_t max_connections;
    uint64_t max_value_size;
    uint32_t idle_timeout_ms; /* 0: never */
    uint64_t max_client_buffer;
    char *credentials_file; /* or NULL: nobody needs to authenticate */
    enum flush_mode flush_all; /* where a namespace is strong never FLUSH_NODES */
    struct config_pool pool;
    struct config_namespace *namespaces; /* as listed; always contains the default namespace "" */
    uint32_t namespace_count;
    struct config_database *database; /* or NULL */
    struct config_bus *bus;           /* or NULL */
    struct config_strong *strong;     /* not NULL where a namespace is strong */
    bool has_admin;
    struct address admin;
    bool admin_public;
    char *admin_token; /* or NULL; read from token_file where that is given */
    enum log_level log_level;
    uint32_t max_clock_skew_ms;
    int32_t sidecar_id; /* -1: at random */
#ifdef OUTRIGGER_TEST_HOOKS
    uint32_t broken_guard; /* enum guard */
    uint32_t clock_offset_ms;
#endif
};

/* Reads and checks a file. On ERR_CONFIG *out is NULL and `problems` has a line for every problem; environment variables in the
 * text are expanded, secrets read from the files that are named. */
enum err config_load(const char *path, FILE *problems, struct config **out);

/* The same from memory; `name` stands for the file in messages. Used by tests and fuzzers. */
enum err config_parse(const char *name, struct span text, FILE *problems, struct config **out);

/* All defaults, the nodes of `pool` ("host:port,host:port") and, where given, the addresses of `listen` (comma separated, or NULL). */
enum err config_plain(const char *pool, const char *listen, FILE *problems, struct config **out);

void config_destroy(struct config **config);

/* Prints a line for what is allowed, but not wise. `name` stands for the file. */
void config_warn(const struct config *config, const char *name, FILE *out);

/* How many NATS have a vote, where a namespace is strong: the own region's, the peers' and the witnesses. */
static inline uint32_t config_voters(const struct config *config)
{
    return 1 + (config->bus != NULL ? config->bus->peer_count : 0) + config->strong->witness_count;
}

/* Every option with its default and help, as text for --help. */
void config_describe(FILE *out);

#endif
