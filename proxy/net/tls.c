#include "proxy/net/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#define RECORD 16384 /* bytes of one TLS record */
#define FILES 3

/* TLS 1.2: forward secret and authenticated; TLS 1.3 has no others. */
#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"

/* What tells a file from the one that was there before. */
struct file_mark {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified;
    struct timespec changed;
};

struct tls {
    const struct config_tls *config;
    pthread_mutex_t lock;
    SSL_CTX *current; /* under the lock */
    uint64_t expires_s;
    struct file_mark loaded[FILES]; /* when the files were last read, whatever came of it */
    struct file_mark looked[FILES];
};

struct tls_session {
    SSL *ssl;
    bool receive_wants_write;
    bool send_wants_read;
    bool has_more;
    bool is_broken;
    enum handshake_result result;
    char reason[160];
};

/* --- files to a context --- */

/* OpenSSL's own words for what went wrong first. */
static const char *why(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    return reason != NULL ? reason : "no reason given";
}

static enum err fail(char text[TLS_TEXT], const char *option, const char *path, const char *what)
{
    snprintf(text, TLS_TEXT, "tls.%s: %s: %s (%s)", option, path, what, why());
    ERR_clear_error();
    return ERR_CONFIG;
}

static int no_pass_phrase(char *buffer, int size, int is_writing, void *ctx)
{
    return -1; /* rather than ask the terminal */
}

/* OpenSSL would wait for the other end of a pipe. */
static enum err check_file(const char *option, const char *path, char text[TLS_TEXT])
{
    struct stat st;
    if (stat(path, &st) != 0) {
        snprintf(text, TLS_TEXT, "tls.%s: %s: can not be read: %s", option, path, strerror(errno));
        return ERR_CONFIG;
    }
    if (!S_ISREG(st.st_mode)) {
        snprintf(text, TLS_TEXT, "tls.%s: %s: is not a regular file", option, path);
        return ERR_CONFIG;
    }
    return OK;
}

static enum err load_files(SSL_CTX *ctx, const struct config_tls *config, char text[TLS_TEXT])
{
    if (check_file("certificate", config->certificate, text) != OK || check_file("key", config->key, text) != OK ||
        (config->client_ca != NULL && check_file("client_ca", config->client_ca, text) != OK)) {
        return ERR_CONFIG;
    }
    if (SSL_CTX_use_certificate_chain_file(ctx, config->certificate) != 1) {
        return fail(text, "certificate", config->certificate, "is not usable as a PEM certificate");
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, config->key, SSL_FILETYPE_PEM) != 1) {
        int reason = ERR_GET_REASON(ERR_peek_error());
        bool is_other = reason == X509_R_KEY_VALUES_MISMATCH || reason == X509_R_KEY_TYPE_MISMATCH;
        return fail(text, "key", config->key, is_other ? "does not belong to the certificate" : "is not usable as a PEM key without pass phrase");
    }
    if (SSL_CTX_check_private_key(ctx) != 1) {
        return fail(text, "key", config->key, "does not belong to the certificate");
    }
    if (config->client_ca != NULL) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(config->client_ca);
        if (names == NULL || SSL_CTX_load_verify_file(ctx, config->client_ca) != 1) {
            sk_X509_NAME_pop_free(names, X509_NAME_free);
            return fail(text, "client_ca", config->client_ca, "is not usable as PEM certificates");
        }
        SSL_CTX_set_client_CA_list(ctx, names);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return OK;
}

static SSL_CTX *new_context(const struct config_tls *config)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL) {
        return NULL;
    }
    SSL_CTX_set_min_proto_version(ctx, config->min_version == TLS_VERSION_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(ctx, CIPHERS_1_2);
    /* A peer that just ends has said all it had to: a request says how long it is, so that nothing can be cut off unnoticed. */
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* Idle connections hold no buffers; what waits to be written may move (chain_compact). */
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    /* Clients keep their sessions as tickets, and all workers can open them; we keep none. A new context opens no old ticket, so that a
     * client's certificate is looked at again when client_ca has changed. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"outrigger", 9);
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_default_passwd_cb(ctx, no_pass_phrase);
    return ctx;
}

static uint64_t seconds_of(const ASN1_TIME *time)
{
    struct tm tm;
    if (ASN1_TIME_to_tm(time, &tm) != 1) {
        return 0;
    }
    time_t seconds = timegm(&tm);
    return seconds < 0 ? 0 : (uint64_t)seconds;
}

static enum err load(const struct config_tls *config, SSL_CTX **out, uint64_t *expires_s, bool *is_expired, char text[TLS_TEXT])
{
    text[0] = '\0';
    *is_expired = false;
    ERR_clear_error();
    SSL_CTX *ctx = new_context(config);
    if (ctx == NULL) {
        return fail(text, "certificate", config->certificate, "no context for it");
    }
    enum err err = load_files(ctx, config, text);
    if (err != OK) {
        SSL_CTX_free(ctx);
        return err;
    }
    const X509 *certificate = SSL_CTX_get0_certificate(ctx);
    *expires_s = seconds_of(X509_get0_notAfter(certificate));
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
        *is_expired = true;
        snprintf(text, TLS_TEXT, "tls.certificate: %s: has expired", config->certificate);
    } else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
        snprintf(text, TLS_TEXT, "tls.certificate: %s: is not valid yet", config->certificate);
    }
    *out = ctx;
    return OK;
}

/* --- the context in force --- */

static void look(const struct config_tls *config, struct file_mark marks[FILES])
{
    const char *const paths[FILES] = {config->certificate, config->key, config->client_ca};
    memset(marks, 0, FILES * sizeof *marks); /* padding, too: they are compared as bytes */
    for (int i = 0; i < FILES; i++) {
        struct stat st;
        if (paths[i] != NULL && stat(paths[i], &st) == 0) {
            marks[i].device = st.st_dev;
            marks[i].inode = st.st_ino;
            marks[i].size = st.st_size;
            marks[i].modified = st.st_mtim;
            marks[i].changed = st.st_ctim;
        }
    }
}

enum err tls_create(const struct config_tls *config, struct tls **out, char text[TLS_TEXT])
{
    struct tls *tls = xcalloc(1, sizeof *tls);
    bool is_expired;
    tls->config = config;
    look(config, tls->loaded); /* before they are read: what changes meanwhile is seen as a change */
    enum err err = load(config, &tls->current, &tls->expires_s, &is_expired, text);
    if (err != OK) {
        free(tls);
        tls = NULL;
    } else {
        pthread_mutex_init(&tls->lock, NULL);
    }
    *out = tls;
    return err;
}

void tls_destroy(struct tls **tls)
{
    if (*tls != NULL) {
        SSL_CTX_free((*tls)->current);
        pthread_mutex_destroy(&(*tls)->lock);
        free(*tls);
        *tls = NULL;
    }
}

enum err tls_reload(struct tls *tls, char text[TLS_TEXT])
{
    SSL_CTX *fresh = NULL;
    uint64_t expires_s = 0;
    bool is_expired;
    look(tls->config, tls->loaded);
    enum err err = load(tls->config, &fresh, &expires_s, &is_expired, text);
    if (err == OK && is_expired) {
        SSL_CTX_free(fresh);
        err = ERR_CONFIG;
    }
    if (err != OK) {
        return err;
    }
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *old = tls->current;
    tls->current = fresh;
    pthread_mutex_unlock(&tls->lock);
    tls->expires_s = expires_s;
    SSL_CTX_free(old); /* sessions that began with it hold it */
    return OK;
}

bool tls_has_changed(struct tls *tls)
{
    struct file_mark now[FILES];
    look(tls->config, now);
    bool is_settled = memcmp(now, tls->looked, sizeof now) == 0;
    memcpy(tls->looked, now, sizeof now);
    return is_settled && memcmp(now, tls->loaded, sizeof now) != 0;
}

uint64_t tls_expires_s(const struct tls *tls)
{
    return tls->expires_s;
}

/* --- a connection --- */

struct tls_session *tls_accept(struct tls *tls, int fd)
{
    pthread_mutex_lock(&tls->lock);
    SSL *ssl = SSL_new(tls->current);
    pthread_mutex_unlock(&tls->lock);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_accept_state(ssl);
    struct tls_session *s = xcalloc(1, sizeof *s);
    s->ssl = ssl;
    s->result = HANDSHAKE_CLOSED; /* what it is if nothing else comes of it */
    snprintf(s->reason, sizeof s->reason, "connection closed");
    return s;
}

void tls_session_free(struct tls_session **session)
{
    if (*session != NULL) {
        SSL_free((*session)->ssl);
        free(*session);
        *session = NULL;
    }
}

/* What an operation that did not succeed leaves behind: EAGAIN, EPROTO, or 0 for the end of input. `is_crossed`: it waits for the opposite
 * of what it does. */
static int settle(struct tls_session *s, int rc, int opposite, bool *is_crossed)
{
    int error = SSL_get_error(s->ssl, rc);
    *is_crossed = error == opposite;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return EAGAIN;
    }
    if (error == SSL_ERROR_ZERO_RETURN) {
        return 0;
    }
    s->is_broken = true;
    return EPROTO;
}

static enum handshake_result classify(void)
{
    switch (ERR_GET_REASON(ERR_peek_error())) {
    case 0: /* the socket's own end or error */
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return HANDSHAKE_CLOSED;
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
        return HANDSHAKE_NOT_TLS;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        return HANDSHAKE_CERTIFICATE;
    default:
        return HANDSHAKE_FAILED;
    }
}

enum err tls_handshake(struct tls_session *s)
{
    ERR_clear_error();
    s->receive_wants_write = false;
    int rc = SSL_do_handshake(s->ssl);
    if (rc == 1) {
        s->result = SSL_session_reused(s->ssl) ? HANDSHAKE_RESUMED : HANDSHAKE_FULL;
        return OK;
    }
    int error = settle(s, rc, SSL_ERROR_WANT_WRITE, &s->receive_wants_write);
    if (error == EAGAIN) {
        return ERR_UNAVAILABLE;
    }
    s->is_broken = true;
    s->result = error == 0 ? HANDSHAKE_CLOSED : classify();
    if (s->result == HANDSHAKE_NOT_TLS) {
        snprintf(s->reason, sizeof s->reason, "it does not speak TLS");
    } else if (s->result != HANDSHAKE_CLOSED) {
        long verified = SSL_get_verify_result(s->ssl);
        snprintf(s->reason, sizeof s->reason, "%s%s%s", why(), verified == X509_V_OK ? "" : ": ",
                 verified == X509_V_OK ? "" : X509_verify_cert_error_string(verified));
    }
    ERR_clear_error();
    return s->result == HANDSHAKE_CLOSED ? ERR_CLOSED : ERR_PROTOCOL;
}

enum handshake_result tls_result(const struct tls_session *s)
{
    return s->result;
}

const char *tls_reason(const struct tls_session *s)
{
    return s->reason;
}

bool tls_receive_wants_write(const struct tls_session *s)
{
    return s->receive_wants_write;
}

bool tls_send_wants_read(const struct tls_session *s)
{
    return s->send_wants_read;
}

bool tls_has_more(const struct tls_session *s)
{
    return s->has_more;
}

ssize_t tls_receive(struct tls_session *s, char *data, size_t len)
{
    size_t got = 0;
    s->receive_wants_write = false;
    s->has_more = false;
    if (s->is_broken) {
        errno = EPROTO;
        return -1;
    }
    ERR_clear_error();
    while (got < len) {
        size_t n = 0;
        int rc = SSL_read_ex(s->ssl, data + got, len - got, &n);
        if (rc == 1) {
            got += n;
            s->has_more = SSL_has_pending(s->ssl) != 0;
            if (!s->has_more) {
                break; /* the socket will say when there is more; asking it costs a system call */
            }
            continue;
        }
        int error = settle(s, rc, SSL_ERROR_WANT_WRITE, &s->receive_wants_write);
        ERR_clear_error();
        s->has_more = error != EAGAIN; /* the end: it is to be asked for once more, behind what came before it */
        if (got == 0) {
            s->has_more = false;
            errno = error;
            return error == 0 ? 0 : -1;
        }
        break;
    }
    return (ssize_t)got;
}

/* Fills a record from the pieces from `offset` of the first on: small ones are not worth a record each. */
static size_t gather(const struct iovec *iov, int pieces, size_t offset, char record[RECORD])
{
    size_t len = 0;
    for (int i = 0; i < pieces && len < RECORD; i++) {
        size_t n = MIN(iov[i].iov_len - offset, RECORD - len);
        memcpy(record + len, (const char *)iov[i].iov_base + offset, n);
        len += n;
        offset = 0;
    }
    return len;
}

ssize_t tls_send(struct tls_session *s, const struct iovec *iov, int pieces)
{
    char record[RECORD];
    size_t sent = 0;
    size_t offset = 0;
    int error = s->is_broken ? EPROTO : 0;
    s->send_wants_read = false;
    ERR_clear_error();
    while (pieces > 0 && error == 0) {
        const char *data = (const char *)iov->iov_base + offset;
        size_t len = MIN(iov->iov_len - offset, (size_t)RECORD);
        if (len < RECORD && pieces > 1) {
            len = gather(iov, pieces, offset, record);
            data = record;
        }
        size_t n = 0;
        int rc = SSL_write_ex(s->ssl, data, len, &n);
        if (rc != 1) {
            error = settle(s, rc, SSL_ERROR_WANT_READ, &s->send_wants_read);
            error = error == 0 ? EPROTO : error;
            ERR_clear_error();
            break;
        }
        sent += n;
        for (offset += n; pieces > 0 && offset >= iov->iov_len; pieces--) {
            offset -= iov->iov_len;
            iov++;
        }
    }
    if (sent == 0 && error != 0) {
        errno = error;
        return -1;
    }
    return (ssize_t)sent;
}

void tls_goodbye(struct tls_session *s)
{
    if (!s->is_broken) {
        ERR_clear_error();
        SSL_shutdown(s->ssl);
        ERR_clear_error();
    }
}
