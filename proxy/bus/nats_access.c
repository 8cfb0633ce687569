#include "proxy/bus/nats_access.h"

#include <nats/nats.h>

static bool is_somebody(const struct config_access *access)
{
    return access->credentials_file != NULL || access->nkey != NULL || access->user != NULL;
}

/* A peer that says nothing is told what this region's NATS is told. */
static const struct config_access *identity_of(const struct access *access)
{
    bool says_nothing = !is_somebody(access->own) && strchr(access->urls, '@') == NULL;
    return says_nothing && access->fallback != NULL && is_somebody(access->fallback) ? access->fallback : access->own;
}

static const struct config_bus_tls *tls_of(const struct access *access)
{
    return access->own->tls != NULL || access->fallback == NULL ? access->own->tls : access->fallback->tls;
}

/* Whose options those are, for messages. */
static const char *section_of(const struct access *access, const struct config_access *used)
{
    return used == access->own ? access->section : "bus";
}

static const char *tls_section_of(const struct access *access)
{
    const struct config_bus_tls *tls = tls_of(access);
    return tls == NULL || tls == access->own->tls ? access->section : "bus";
}

static natsStatus set_servers(const char *urls, natsOptions *options)
{
    char *copy = xstrdup(urls);
    const char *servers[CONFIG_SERVERS_MAX];
    int count = 0;
    char *rest = copy;
    for (char *server = strsep(&rest, ","); server != NULL && count < CONFIG_SERVERS_MAX; server = strsep(&rest, ",")) {
        servers[count++] = server;
    }
    natsStatus s = natsOptions_SetServers(options, servers, count);
    explicit_bzero(copy, strlen(urls));
    free(copy);
    return s;
}

/* Without the library's "(conn.c:2088): ". */
static const char *without_place(const char *text)
{
    const char *end = text[0] == '(' ? strstr(text, "): ") : NULL;
    return end != NULL ? end + 3 : text;
}

/* What the library says in addition to its status. */
static const char *last_error(natsStatus s)
{
    natsStatus status;
    const char *text = nats_GetLastError(&status);
    return text != NULL && text[0] != '\0' ? without_place(text) : natsStatus_GetText(s);
}

static enum err fail(char why[static ACCESS_TEXT_MAX], const char *section, const char *option, const char *path, natsStatus s)
{
    snprintf(why, ACCESS_TEXT_MAX, "%s.%s: %s can not be used: %s", section, option, path, last_error(s));
    return ERR_CONFIG;
}

static enum err set_tls(const struct access *access, natsOptions *options, char why[static ACCESS_TEXT_MAX])
{
    const struct config_bus_tls *tls = tls_of(access);
    const char *section = tls_section_of(access);
    if (tls == NULL && strncmp(access->urls, "tls://", 6) != 0) {
        return OK;
    }
    natsStatus s = natsOptions_SetSecure(options, true);
    if (s != NATS_OK) {
        return fail(why, section, "tls", "TLS", s);
    }
    if (tls == NULL) {
        return OK;
    }
    if (tls->ca != NULL && (s = natsOptions_LoadCATrustedCertificates(options, tls->ca)) != NATS_OK) {
        return fail(why, section, "tls.ca", tls->ca, s);
    }
    if (tls->certificate != NULL && (s = natsOptions_LoadCertificatesChain(options, tls->certificate, tls->key)) != NATS_OK) {
        return fail(why, section, "tls.certificate", tls->certificate, s);
    }
    if (tls->server_name != NULL && (s = natsOptions_SetExpectedHostname(options, tls->server_name)) != NATS_OK) {
        return fail(why, section, "tls.server_name", tls->server_name, s);
    }
    return OK;
}

static enum err set_identity(const struct access *access, natsOptions *options, char why[static ACCESS_TEXT_MAX])
{
    const struct config_access *identity = identity_of(access);
    const char *section = section_of(access, identity);
    natsStatus s = NATS_OK;
    if (identity->credentials_file != NULL) {
        s = natsOptions_SetUserCredentialsFromFiles(options, identity->credentials_file, NULL);
        return s == NATS_OK ? OK : fail(why, section, "credentials_file", identity->credentials_file, s);
    }
    if (identity->nkey != NULL) {
        s = natsOptions_SetNKeyFromSeed(options, identity->nkey, identity->nkey_file);
        return s == NATS_OK ? OK : fail(why, section, "nkey_file", identity->nkey_file, s);
    }
    if (identity->user != NULL) {
        s = natsOptions_SetUserInfo(options, identity->user, identity->password);
        return s == NATS_OK ? OK : fail(why, section, "user", "it", s);
    }
    return OK;
}

struct access access_of(const struct config_bus *bus, const struct config_peer *peer, const char *section)
{
    if (peer == NULL) {
        return (struct access){.urls = bus->url, .own = &bus->access, .section = section};
    }
    return (struct access){.urls = peer->url, .own = &peer->access, .fallback = &bus->access, .section = section};
}

enum err access_set(const struct access *access, struct __natsOptions *options, char why[static ACCESS_TEXT_MAX])
{
    natsStatus s = set_servers(access->urls, options);
    if (s != NATS_OK) {
        return fail(why, access->section, "url", "it", s);
    }
    enum err err = set_tls(access, options, why);
    return err == OK ? set_identity(access, options, why) : err;
}

/* --- explaining --- */

static void explain_refusal(const struct access *access, char out[static ACCESS_TEXT_MAX])
{
    const struct config_access *identity = identity_of(access);
    const char *section = section_of(access, identity);
    const char *with = "no credentials at all";
    const char *option = "give credentials_file, nkey or user";
    if (identity->credentials_file != NULL) {
        with = "our credentials";
        option = "look at credentials_file: expired, revoked, or of another account or operator?";
    } else if (identity->nkey != NULL) {
        with = "our nkey";
        option = "look at nkey and nkey_file: do they belong together, and does the server know the key?";
    } else if (identity->user != NULL) {
        with = "our user and password";
        option = "look at user and password";
    } else if (strchr(access->urls, '@') != NULL) {
        with = "the user and password of the url";
        option = "look at url";
    }
    snprintf(out, ACCESS_TEXT_MAX, "it refuses %s (authorization violation); %s, in section %s", with, option, section);
}

static void explain_tls(const struct access *access, const char *error, char out[static ACCESS_TEXT_MAX])
{
    snprintf(out, ACCESS_TEXT_MAX,
             "no TLS with it (%.150s); is the server's certificate signed by tls.ca, of the name in url or tls.server_name, and not expired, and "
             "does it trust our tls.certificate? In section %s",
             error, tls_section_of(access));
}

void access_explain(const struct access *access, int status, const char *error, char out[static ACCESS_TEXT_MAX])
{
    natsStatus s = (natsStatus)status;
    const char *said = error[0] != '\0' ? without_place(error) : natsStatus_GetText(s);
    if (strncmp(said, "Expected 'PONG'", 15) == 0) { /* TLS 1.3: our certificate is looked at after the handshake */
        snprintf(out, ACCESS_TEXT_MAX, "it closed the connection as we came in; does it ask for a certificate, and trust ours? Look at tls.certificate, "
                 "in section %s", tls_section_of(access));
        return;
    }
    switch (s) {
    case NATS_CONNECTION_AUTH_FAILED: explain_refusal(access, out); return;
    case NATS_SSL_ERROR: explain_tls(access, said, out); return;
    case NATS_SECURE_CONNECTION_REQUIRED:
        snprintf(out, ACCESS_TEXT_MAX, "it wants TLS: give tls:// in url, or section tls, in section %s", access->section);
        return;
    case NATS_SECURE_CONNECTION_WANTED:
        snprintf(out, ACCESS_TEXT_MAX, "it does not speak TLS, which section %s asks for", access->section);
        return;
    default: snprintf(out, ACCESS_TEXT_MAX, "%s", said);
    }
}

void access_display(const char *urls, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (const char *url = urls; url != NULL && used < size;) {
        const char *comma = strchr(url, ',');
        int len = comma != NULL ? (int)(comma - url) : (int)strlen(url);
        const char *scheme_end = strstr(url, "://");
        const char *host = scheme_end != NULL && scheme_end < url + len ? scheme_end + 3 : url;
        const char *at = memrchr(host, '@', (size_t)(url + len - host));
        const char *shown = at != NULL ? at + 1 : host;
        int n = snprintf(out + used, size - used, "%s%.*s%.*s", used > 0 ? "," : "", (int)(host - url), url, (int)(url + len - shown), shown);
        used += n > 0 ? (size_t)n : 0;
        url = comma != NULL ? comma + 1 : NULL;
    }
}
