/* What:    certificates for tests, made on the spot and written as PEM files.
 * Owns:    struct certificate owns its key and certificate.
 * Fails:   a test.
 */
#ifndef TESTS_UNIT_NET_CERTIFICATE_H
#define TESTS_UNIT_NET_CERTIFICATE_H

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "tests/unit/check_main.h"

struct certificate {
    EVP_PKEY *key;
    X509 *x509;
};

/* Signed by `issuer`, or by itself; valid from now on for so many seconds, which may be less than none. */
static inline struct certificate certificate_make(const char *name, const struct certificate *issuer, long seconds)
{
    struct certificate c = {.key = EVP_EC_gen("P-256"), .x509 = X509_new()};
    const struct certificate *by = issuer != NULL ? issuer : &c;
    ck_assert_ptr_nonnull(c.key);
    X509_set_version(c.x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c.x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(c.x509), seconds < 0 ? 2 * seconds : -60);
    X509_gmtime_adj(X509_getm_notAfter(c.x509), seconds);
    X509_set_pubkey(c.x509, c.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c.x509), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(c.x509, X509_get_subject_name(by->x509));
    if (issuer == NULL) {
        X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
        ck_assert_int_eq(X509_add_ext(c.x509, extension, -1), 1);
        X509_EXTENSION_free(extension);
    }
    ck_assert_int_gt(X509_sign(c.x509, by->key, EVP_sha256()), 0);
    return c;
}

static inline void certificate_free(struct certificate *c)
{
    EVP_PKEY_free(c->key);
    X509_free(c->x509);
}

static inline void certificate_write(const struct certificate *c, const char *certificate_path, const char *key_path)
{
    FILE *file = fopen(certificate_path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(PEM_write_X509(file, c->x509), 1);
    fclose(file);
    file = fopen(key_path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(PEM_write_PrivateKey(file, c->key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
}

#endif
