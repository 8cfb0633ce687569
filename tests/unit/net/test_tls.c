/* Loading certificates, seeing that they have changed, and reloading while others accept. */
#include "proxy/net/tls.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/net/tls_files.h"

static void write_file(const char *path, const char *content)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(content, file);
    fclose(file);
}

static void check_refused(const char *option, const char *path, const char *what)
{
    ck_assert_int_eq(tls_create(&config, &tls, text), ERR_CONFIG);
    ck_assert_ptr_null(tls);
    ck_assert_msg(strstr(text, option) != NULL && strstr(text, path) != NULL && strstr(text, what) != NULL, "%s", text);
}

START_TEST(a_good_pair)
{
    create();
    uint64_t now = (uint64_t)time(NULL);
    ck_assert_uint_ge(tls_expires_s(tls), now + 900);
    ck_assert_uint_le(tls_expires_s(tls), now + 1001);
}
END_TEST

START_TEST(files_that_are_no_good)
{
    config.key = paths[3];
    check_refused("tls.key", paths[3], "does not belong to the certificate");
    config.key = paths[0];
    check_refused("tls.key", paths[0], "not usable as a PEM key");
    config.key = dir;
    check_refused("tls.key", dir, "not a regular file");
    config.key = paths[1];
    config.certificate = "/nowhere";
    check_refused("tls.certificate", "/nowhere", "No such file");
    write_file(paths[2], "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    config.certificate = paths[2];
    check_refused("tls.certificate", paths[2], "not usable as a PEM certificate");
    config.certificate = paths[0];
    config.client_ca = paths[3];
    check_refused("tls.client_ca", paths[3], "not usable as PEM certificates");
}
END_TEST

START_TEST(a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked)
{
    FILE *file = fopen(paths[1], "w");
    PEM_write_PrivateKey(file, ours.key, EVP_aes_256_cbc(), (unsigned char *)"secret", 6, NULL, NULL);
    fclose(file);
    check_refused("tls.key", paths[1], "without pass phrase");
}
END_TEST

START_TEST(an_expired_certificate_is_warned_of_at_the_start_and_refused_later)
{
    struct certificate expired = certificate_make("expired", NULL, -10);
    create();
    uint64_t expires_s = tls_expires_s(tls);
    certificate_write(&expired, paths[0], paths[1]);
    ck_assert_int_eq(tls_reload(tls, text), ERR_CONFIG);
    ck_assert_ptr_nonnull(strstr(text, "has expired"));
    ck_assert_uint_eq(tls_expires_s(tls), expires_s);
    tls_destroy(&tls);
    ck_assert_int_eq(tls_create(&config, &tls, text), OK);
    ck_assert_ptr_nonnull(strstr(text, "has expired"));
    certificate_free(&expired);
}
END_TEST

START_TEST(a_change_is_seen_when_it_has_settled)
{
    create();
    ck_assert(!tls_has_changed(tls));
    ck_assert(!tls_has_changed(tls));
    certificate_write(&other, paths[0], paths[2]);
    ck_assert(!tls_has_changed(tls)); /* it may be half written */
    ck_assert(tls_has_changed(tls));
    ck_assert_int_eq(tls_reload(tls, text), ERR_CONFIG); /* the key is still the old one */
    ck_assert_ptr_nonnull(strstr(text, "does not belong"));
    ck_assert(!tls_has_changed(tls)); /* told once */
    certificate_write(&other, paths[2], paths[1]);
    ck_assert(!tls_has_changed(tls));
    ck_assert(tls_has_changed(tls));
    ck_assert_int_eq(tls_reload(tls, text), OK);
    ck_assert(!tls_has_changed(tls));
    unlink(paths[1]);
    tls_has_changed(tls);
    ck_assert(tls_has_changed(tls));
    ck_assert_int_eq(tls_reload(tls, text), ERR_CONFIG);
    certificate_write(&other, paths[0], paths[1]);
}
END_TEST

static _Atomic bool is_over;

static void *accept_all_the_time(void *arg)
{
    int fds[2];
    size_t *accepted = arg;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    while (!atomic_load(&is_over)) {
        struct tls_session *session = tls_accept(tls, fds[0]);
        ck_assert_ptr_nonnull(session);
        ck_assert_int_eq(tls_handshake(session), ERR_UNAVAILABLE);
        tls_session_free(&session);
        ++*accepted;
    }
    close(fds[0]);
    close(fds[1]);
    return NULL;
}

START_TEST(workers_accept_while_it_is_reloaded)
{
    pthread_t threads[2];
    size_t accepted[2] = {0, 0};
    create();
    for (size_t i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, accept_all_the_time, &accepted[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(tls_reload(tls, text), OK);
    }
    atomic_store(&is_over, true);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_uint_gt(accepted[i], 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tls");
    TCase *files = tcase_create("files");
    tcase_add_checked_fixture(files, setup, teardown);
    tcase_add_test(files, a_good_pair);
    tcase_add_test(files, files_that_are_no_good);
    tcase_add_test(files, a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked);
    tcase_add_test(files, an_expired_certificate_is_warned_of_at_the_start_and_refused_later);
    tcase_add_test(files, a_change_is_seen_when_it_has_settled);
    tcase_add_test(files, workers_accept_while_it_is_reloaded);
    suite_add_tcase(suite, files);
    return check_main(suite);
}
