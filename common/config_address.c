#include "common/config_address.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <strings.h>
#include <sys/un.h>

#include "common/config_value.h"

#define HOST_MAX 253 /* RFC 1035 */

static enum err fail_address(struct reason *why, const char *text, const char *rest)
{
    char quoted[CONFIG_QUOTED_SIZE];
    return config_problems_reason(why, "%s %s", config_problems_quote(span_str(text), quoted), rest);
}

static enum err parse_unix(const char *text, struct address *out, struct reason *why)
{
    const char *path = text + 5;
    if (path[0] != '/' || path[1] == '\0') {
        return fail_address(why, text, "is not an address: unix: must be followed by an absolute path");
    }
    if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        return fail_address(why, text, "is too long for a unix socket: at most 107 bytes");
    }
    if (config_value_check_text(text, why) != OK) {
        return ERR_INVALID;
    }
    *out = (struct address){.text = xstrdup(text), .path = xstrdup(path)};
    return OK;
}

static bool parse_port(const char *text, uint16_t *port)
{
    uint64_t value;
    struct reason ignored;
    if (config_value_number(text, 1, 65535, &value, &ignored) != OK) {
        return false;
    }
    *port = (uint16_t)value;
    return true;
}

/* A name, or dotted numbers that are an IPv4 address: what ends in a number can be no name. */
static bool is_host(struct span host)
{
    char text[HOST_MAX + 1];
    if (host.len == 0 || host.len > HOST_MAX || host.data[0] == '.' || host.data[0] == '-') {
        return false;
    }
    memcpy(text, host.data, host.len);
    text[host.len] = '\0';
    if (text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")] != '\0' || strstr(text, "..") != NULL) {
        return false;
    }
    const char *dot = strrchr(text, '.');
    const char *last = dot == NULL ? text : dot + 1;
    struct in_addr ip;
    return last[0] == '\0' || last[strspn(last, "0123456789")] != '\0' || inet_pton(AF_INET, text, &ip) == 1;
}

static bool is_v6(struct span host)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr ip;
    if (host.len >= sizeof text) {
        return false;
    }
    memcpy(text, host.data, host.len);
    text[host.len] = '\0';
    return inet_pton(AF_INET6, text, &ip) == 1;
}

enum err config_address_parse(const char *text, uint16_t default_port, struct address *out, struct reason *why)
{
    *out = (struct address){0};
    if (strncmp(text, "unix:", 5) == 0) {
        return parse_unix(text, out, why);
    }
    struct span host;
    const char *rest; /* "" or ":port" */
    if (text[0] == '[') {
        const char *close = strchr(text, ']');
        if (close == NULL || !is_v6(span_of(text + 1, (size_t)(close - text) - 1))) {
            return fail_address(why, text, "is not an address: an IPv6 address is written [2001:db8::1]:port");
        }
        host = span_of(text + 1, (size_t)(close - text) - 1);
        rest = close + 1;
    } else {
        const char *colon = strchr(text, ':');
        if (colon != NULL && strchr(colon + 1, ':') != NULL) {
            return fail_address(why, text, "is not an address: expected host:port, [v6]:port or unix:/path");
        }
        host = colon == NULL ? span_str(text) : span_of(text, (size_t)(colon - text));
        rest = text + host.len;
        if (!is_host(host)) {
            return fail_address(why, text, "is not an address: expected host:port, [v6]:port or unix:/path");
        }
    }
    uint16_t port = default_port;
    if (rest[0] == '\0' && default_port == 0) {
        return fail_address(why, text, "has no port");
    }
    if (rest[0] != '\0' && (rest[0] != ':' || !parse_port(rest + 1, &port))) {
        return fail_address(why, text, "has a bad port: expected 1 to 65535");
    }
    *out = (struct address){.text = xstrdup(text), .host = xstrndup(host.data, host.len), .port = port};
    return OK;
}

void config_address_free(struct address *address)
{
    free(address->text);
    free(address->host);
    free(address->path);
    *address = (struct address){0};
}

bool config_address_is_loopback(const struct address *address)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (address->path != NULL || strcasecmp(address->host, "localhost") == 0) {
        return true;
    }
    if (inet_pton(AF_INET, address->host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    return inet_pton(AF_INET6, address->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool config_address_is_same(const struct address *a, const struct address *b)
{
    if (a->path != NULL || b->path != NULL) {
        return a->path != NULL && b->path != NULL && strcmp(a->path, b->path) == 0;
    }
    if (a->host == NULL || b->host == NULL || a->port != b->port) {
        return false;
    }
    struct in6_addr x, y;
    if (inet_pton(AF_INET6, a->host, &x) == 1 && inet_pton(AF_INET6, b->host, &y) == 1) {
        return memcmp(&x, &y, sizeof x) == 0;
    }
    return strcasecmp(a->host, b->host) == 0;
}

static enum err check_server(const char *text, struct reason *why)
{
    const char *host = strncmp(text, "nats://", 7) == 0 ? text + 7 : strncmp(text, "tls://", 6) == 0 ? text + 6 : NULL;
    if (host == NULL) {
        return config_problems_reason(why, "must begin with nats:// or tls://");
    }
    if (config_value_check_prefix(text, why) != OK) {
        return config_problems_reason(why, "has a space or control character in it");
    }
    const char *at = strrchr(host, '@');
    if (at != NULL) {
        host = at + 1;
    }
    struct address address;
    if (strncmp(host, "unix:", 5) == 0 || config_address_parse(host, 4222, &address, why) != OK) {
        return config_problems_reason(why, "must name a server: nats://host:port or tls://host:port; several with commas between them");
    }
    config_address_free(&address);
    return OK;
}

/* The text is not shown: it may hold a password. */
enum err config_address_check_url(const char *text, struct reason *why)
{
    char *copy = xstrdup(text);
    uint32_t count = 0;
    enum err err = OK;
    char *rest = copy;
    for (char *server = strsep(&rest, ","); server != NULL && err == OK; server = strsep(&rest, ",")) {
        bool is_tls = strncmp(server, "tls://", 6) == 0;
        err = check_server(server, why);
        if (err == OK && is_tls != (strncmp(text, "tls://", 6) == 0)) {
            err = config_problems_reason(why, "must have tls:// in front of all its servers, or of none");
        }
        if (err == OK && ++count > CONFIG_SERVERS_MAX) {
            err = config_problems_reason(why, "names more than %d servers", CONFIG_SERVERS_MAX);
        }
    }
    explicit_bzero(copy, strlen(text));
    free(copy);
    return err;
}
