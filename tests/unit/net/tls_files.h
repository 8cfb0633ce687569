/* What:    two pairs of key and certificate as files in a directory of their own, and a struct tls made of the first.
 * Owns:    the directory, from setup() to teardown().
 * Fails:   a test.
 */
#ifndef TESTS_UNIT_NET_TLS_FILES_H
#define TESTS_UNIT_NET_TLS_FILES_H

#include <signal.h>
#include <unistd.h>

#include "proxy/net/tls.h"
#include "tests/unit/net/certificate.h"

static char dir[] = "/tmp/outrigger-test-XXXXXX";
static char paths[4][64]; /* certificate, key, another's certificate and key */
static struct config_tls config;
static struct certificate ours, other;
static struct tls *tls;
static char text[TLS_TEXT];

static inline void setup(void)
{
    static const char *const names[] = {"ours.crt", "ours.key", "other.crt", "other.key"};
    signal(SIGPIPE, SIG_IGN); /* as in the product */
    strcpy(dir + sizeof dir - 7, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        snprintf(paths[i], sizeof paths[i], "%s/%s", dir, names[i]);
    }
    ours = certificate_make("ours", NULL, 1000);
    other = certificate_make("other", NULL, 2000);
    certificate_write(&ours, paths[0], paths[1]);
    certificate_write(&other, paths[2], paths[3]);
    config = (struct config_tls){.certificate = paths[0], .key = paths[1], .handshake_timeout_ms = 60000};
    tls = NULL;
}

static inline void teardown(void)
{
    tls_destroy(&tls);
    certificate_free(&ours);
    certificate_free(&other);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        unlink(paths[i]);
    }
    ck_assert_int_eq(rmdir(dir), 0);
}

static inline void create(void)
{
    ck_assert_msg(tls_create(&config, &tls, text) == OK, "%s", text);
    ck_assert_str_eq(text, "");
}

#endif
