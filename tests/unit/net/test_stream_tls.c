/* Streams with TLS over a socketpair, with OpenSSL's client at the other end. */
#include "proxy/net/stream.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/net/tls_files.h"

static struct loop loop;
static struct {
    struct stream stream;
    bool is_open, is_closed, saw_eof;
    bool echoes;
    char *got;
    size_t got_len, need;
    uint32_t turns_with_data;
    size_t most_in_a_turn;
    enum handshake_result result;
    uint32_t handshakes;
    enum err err;
} probe;
static SSL_CTX *client_ctx;
static SSL *client;
static int peer;

static void on_handshake(struct stream *s, enum handshake_result result, const char *why)
{
    probe.result = result;
    probe.handshakes++;
}

static void on_data(struct stream *s)
{
    struct span input = stream_input(s);
    if (probe.need > 0 && input.len < probe.need) {
        s->need = probe.need;
        return;
    }
    s->need = 0;
    probe.got = realloc(probe.got, probe.got_len + input.len);
    memcpy(probe.got + probe.got_len, input.data, input.len);
    probe.got_len += input.len;
    probe.turns_with_data++;
    probe.most_in_a_turn = MAX(probe.most_in_a_turn, input.len);
    if (probe.echoes) {
        chain_append_value(&s->out, s->in, input.data, input.len);
        stream_dirty(s);
    }
    stream_consume(s, input.len);
}

static void on_eof(struct stream *s)
{
    probe.saw_eof = true;
}

static void on_close(struct stream *s, enum err err)
{
    probe.is_closed = true;
    probe.err = err;
}

static void on_bury(struct stream *s)
{
    probe.is_open = false;
}

static const struct stream_ops ops = {.on_handshake = on_handshake, .on_data = on_data, .on_eof = on_eof, .on_close = on_close, .on_bury = on_bury};

static void turn(void)
{
    loop_turn(&loop, false);
}

static void open_stream(uint32_t timeout_ms)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    peer = fds[1];
    memset(&probe, 0, sizeof probe);
    probe.is_open = true;
    struct tls_session *session = tls_accept(tls, fds[0]);
    ck_assert_ptr_nonnull(session);
    stream_open_tls(&probe.stream, &loop, &ops, fds[0], session, timeout_ms);
}

static void open_client(void)
{
    client = SSL_new(client_ctx);
    SSL_set_fd(client, peer);
    SSL_set_connect_state(client);
}

static void close_client(void)
{
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN); /* else its session could not be resumed */
    SSL_free(client);
    client = NULL;
    close(peer);
}

static void setup_stream(void)
{
    setup();
    create();
    ck_assert_int_eq(loop_init(&loop, NULL, 256 << 20), OK);
    client_ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(client_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    open_stream(60000);
    open_client();
}

static void teardown_stream(void)
{
    if (probe.is_open) {
        stream_close(&probe.stream, ERR_STOPPING);
        turn();
    }
    ck_assert(!probe.is_open);
    ck_assert_uint_eq(probe.handshakes, 1);
    free(probe.got);
    close_client();
    SSL_CTX_free(client_ctx);
    ck_assert_uint_eq(loop.chunks.used_bytes, CHUNK_BYTES_MAX);
    ck_assert(list_is_empty(&loop.unread));
    loop_deinit(&loop);
    teardown();
}

/* Turns until the client's call is through; its result. */
static int drive(int (*call)(SSL *))
{
    for (;;) {
        ERR_clear_error();
        int rc = call(client);
        if (rc > 0) {
            return rc;
        }
        int error = SSL_get_error(client, rc);
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
            return rc;
        }
        turn();
    }
}

static void shake(void)
{
    ck_assert_int_eq(drive(SSL_do_handshake), 1);
    for (int i = 0; i < 3; i++) {
        turn();
    }
}

static void send_all(const char *data, size_t len)
{
    while (len > 0) {
        int n = SSL_write(client, data, (int)MIN(len, (size_t)1 << 20));
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        } else {
            ck_assert_int_eq(SSL_get_error(client, n), SSL_ERROR_WANT_WRITE);
        }
        turn();
    }
}

static char *pattern(size_t len)
{
    char *data = xmalloc(len);
    for (size_t i = 0; i < len; i++) {
        data[i] = (char)(i * 31 % 251);
    }
    return data;
}

START_TEST(hands_are_shaken_and_bytes_go_both_ways)
{
    char buffer[10];
    shake();
    ck_assert_int_eq(probe.result, HANDSHAKE_FULL);
    probe.echoes = true;
    send_all("hello", 5);
    ck_assert_uint_eq(probe.got_len, 5);
    ck_assert_int_eq(SSL_read(client, buffer, sizeof buffer), 5);
    ck_assert_mem_eq(buffer, "hello", 5);
    ck_assert_ptr_null(probe.stream.in);
}
END_TEST

/* All of it is in the socket at once, and more than one turn may take is held by TLS, for which no event comes. */
START_TEST(what_tls_holds_is_not_forgotten)
{
    int size = 4 << 20;
    setsockopt(peer, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    shake();
    char *data = pattern(100000);
    loop.scratch->cap = 1000; /* so that every record is taken in pieces */
    size_t sent = 0;
    int n;
    while (sent < 100000 && (n = SSL_write(client, data + sent, (int)(100000 - sent))) > 0) {
        sent += (size_t)n;
    }
    ck_assert_uint_gt(sent, 32768);
    for (int i = 0; i < 300; i++) {
        turn();
    }
    ck_assert_uint_eq(probe.got_len, sent);
    ck_assert_mem_eq(probe.got, data, sent);
    ck_assert_uint_le(probe.most_in_a_turn, 1000);
    loop.scratch->cap = LOOP_SCRATCH;
    free(data);
}
END_TEST

START_TEST(a_pause_keeps_what_tls_holds)
{
    shake();
    char *data = pattern(9000);
    loop.scratch->cap = 1000;
    ck_assert_int_eq(SSL_write(client, data, 9000), 9000);
    turn();
    stream_pause(&probe.stream);
    size_t got = probe.got_len;
    ck_assert_uint_lt(got, 9000);
    for (int i = 0; i < 5; i++) {
        turn();
    }
    ck_assert_uint_eq(probe.got_len, got);
    stream_resume(&probe.stream);
    for (int i = 0; i < 20; i++) {
        turn();
    }
    ck_assert_uint_eq(probe.got_len, 9000);
    ck_assert_mem_eq(probe.got, data, 9000);
    loop.scratch->cap = LOOP_SCRATCH;
    free(data);
}
END_TEST

START_TEST(large_values_arrive_in_place)
{
    size_t len = 5 << 20;
    shake();
    char *data = pattern(len);
    probe.need = len;
    send_all(data, len);
    for (int i = 0; i < 100; i++) {
        turn();
    }
    ck_assert_uint_eq(probe.turns_with_data, 1);
    ck_assert_uint_eq(probe.got_len, len);
    ck_assert_mem_eq(probe.got, data, len);
    free(data);
}
END_TEST

/* Small pieces, large ones and a slow reader: the socket is full again and again, and output grows meanwhile. */
START_TEST(output_waits_for_a_slow_reader)
{
    size_t total = 3 << 20;
    char *data = pattern(total);
    char buffer[50000];
    size_t queued = 0, got = 0, step = 1;
    struct chunk *big = chunk_get(&loop.chunks, total);
    memcpy(big->data, data, total);
    shake();
    while (got < total) {
        if (queued < total) {
            size_t n = MIN(step % 70001, total - queued);
            ck_assert_int_eq(chain_append_value(&probe.stream.out, big, big->data + queued, n), OK);
            queued += n;
            step = step * 7 + 1;
            stream_dirty(&probe.stream);
        }
        turn();
        int n = SSL_read(client, buffer, sizeof buffer);
        if (n > 0) {
            ck_assert_mem_eq(buffer, data + got, (size_t)n);
            got += (size_t)n;
        }
    }
    ck_assert_uint_eq(probe.stream.out.bytes, 0);
    chunk_unref(&big);
    free(data);
}
END_TEST

START_TEST(a_goodbye_is_the_end_of_input_and_answers_still_go_out)
{
    char buffer[10];
    shake();
    SSL_shutdown(client);
    turn();
    turn();
    ck_assert(probe.saw_eof);
    ck_assert(!probe.is_closed);
    chain_append(&probe.stream.out, "bye", 3);
    stream_finish(&probe.stream);
    turn();
    ck_assert(probe.is_closed);
    ck_assert_int_eq(SSL_read(client, buffer, sizeof buffer), 3);
    ck_assert_int_eq(SSL_read(client, buffer, sizeof buffer), 0);
    ck_assert_int_eq(SSL_get_error(client, 0), SSL_ERROR_ZERO_RETURN);
}
END_TEST

/* The bytes and the end of input come together, and the end has been taken off the socket with them. */
START_TEST(a_goodbye_right_behind_data_is_seen)
{
    shake();
    ck_assert_int_eq(SSL_write(client, "last", 4), 4);
    SSL_shutdown(client);
    turn();
    turn();
    ck_assert_uint_eq(probe.got_len, 4);
    ck_assert(probe.saw_eof);
}
END_TEST

START_TEST(an_end_without_a_goodbye_is_the_same)
{
    char buffer[10];
    shake();
    ck_assert_int_eq(SSL_write(client, "last", 4), 4);
    shutdown(peer, SHUT_WR);
    turn();
    turn();
    ck_assert_uint_eq(probe.got_len, 4);
    ck_assert(probe.saw_eof);
    chain_append(&probe.stream.out, "bye", 3);
    stream_dirty(&probe.stream);
    turn();
    ck_assert_int_eq(SSL_read(client, buffer, sizeof buffer), 3);
}
END_TEST

/* What is lost is not to look complete. */
START_TEST(no_goodbye_when_output_is_lost)
{
    char buffer[10];
    shake();
    chain_append(&probe.stream.out, "lost", 4);
    stream_close(&probe.stream, ERR_OVERLOAD);
    turn();
    ck_assert_int_le(SSL_read(client, buffer, sizeof buffer), 0);
    ck_assert_int_ne(SSL_get_error(client, 0), SSL_ERROR_ZERO_RETURN);
}
END_TEST

static void check_hostile(const char *bytes, size_t len, enum handshake_result result)
{
    ck_assert_int_eq(write(peer, bytes, len), (ssize_t)len);
    turn();
    turn();
    ck_assert(probe.is_closed);
    ck_assert_int_eq(probe.err, ERR_PROTOCOL);
    ck_assert_int_eq(probe.result, result);
}

START_TEST(plain_text_is_refused)
{
    check_hostile("get a\r\nget a\r\n", 14, HANDSHAKE_NOT_TLS);
}
END_TEST

START_TEST(http_is_refused)
{
    check_hostile("GET / HTTP/1.1\r\n\r\n", 18, HANDSHAKE_NOT_TLS);
}
END_TEST

START_TEST(garbage_is_refused)
{
    check_hostile("\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff", 10, HANDSHAKE_FAILED);
}
END_TEST

START_TEST(garbage_after_the_handshake_closes)
{
    shake();
    ck_assert_int_eq(write(peer, "\x17\x03\x03\x00\x20 this was not encrypted by anybody", 37), 37);
    turn();
    turn();
    ck_assert(probe.is_closed);
    ck_assert_int_eq(probe.err, ERR_PROTOCOL);
    ck_assert_int_eq(probe.result, HANDSHAKE_FULL);
}
END_TEST

START_TEST(who_goes_away_during_the_handshake_is_closed)
{
    shutdown(peer, SHUT_RDWR);
    turn();
    turn();
    ck_assert(probe.is_closed);
    ck_assert_int_eq(probe.result, HANDSHAKE_CLOSED);
}
END_TEST

START_TEST(the_handshake_has_a_deadline)
{
    stream_close(&probe.stream, ERR_CLOSED);
    turn();
    close_client();
    open_stream(1);
    open_client();
    while (!probe.is_closed) {
        loop_turn(&loop, true);
    }
    ck_assert_int_eq(probe.err, ERR_TIMEOUT);
    ck_assert_int_eq(probe.result, HANDSHAKE_TIMEOUT);
}
END_TEST

START_TEST(the_deadline_is_over_once_hands_are_shaken)
{
    shake();
    ck_assert_int_eq(event_base_get_num_events(loop.base, EVENT_BASE_COUNT_ADDED), 2); /* mail, and input */
}
END_TEST

START_TEST(a_key_update_is_answered)
{
    char buffer[10];
    shake();
    ck_assert_int_eq(SSL_key_update(client, SSL_KEY_UPDATE_REQUESTED), 1);
    probe.echoes = true;
    send_all("hello", 5);
    turn();
    ck_assert_int_eq(SSL_read(client, buffer, sizeof buffer), 5);
    ck_assert_uint_eq(probe.got_len, 5);
}
END_TEST

START_TEST(renegotiation_is_refused_and_nothing_else_happens)
{
    SSL_set_max_proto_version(client, TLS1_2_VERSION);
    shake();
    ck_assert_int_eq(SSL_version(client), TLS1_2_VERSION);
    ck_assert_int_eq(SSL_renegotiate(client), 1);
    ck_assert_int_le(drive(SSL_do_handshake), 0); /* told "no renegotiation", OpenSSL's client gives up */
    ck_assert_uint_eq(probe.got_len, 0);
    ck_assert(!probe.is_closed);
}
END_TEST

/* Again over a new socket, with the session of the last. */
static enum handshake_result again(SSL_SESSION *session)
{
    stream_close(&probe.stream, ERR_CLOSED);
    turn();
    free(probe.got);
    close_client();
    open_stream(60000);
    open_client();
    SSL_set_session(client, session);
    shake();
    return probe.result;
}

START_TEST(sessions_are_resumed_until_the_certificate_changes)
{
    char buffer[10];
    shake();
    SSL_read(client, buffer, sizeof buffer); /* the ticket */
    SSL_SESSION *session = SSL_get1_session(client);
    ck_assert(SSL_SESSION_is_resumable(session));
    ck_assert_int_eq(again(session), HANDSHAKE_RESUMED);
    ck_assert_int_eq(tls_reload(tls, text), OK);
    ck_assert_int_eq(again(session), HANDSHAKE_FULL);
    SSL_SESSION_free(session);
}
END_TEST

START_TEST(an_old_connection_goes_on_with_what_it_began_with)
{
    char name[64];
    shake();
    certificate_write(&other, paths[0], paths[1]);
    ck_assert_int_eq(tls_reload(tls, text), OK);
    send_all("hello", 5);
    ck_assert_uint_eq(probe.got_len, 5);
    again(NULL);
    X509 *shown = SSL_get1_peer_certificate(client);
    X509_NAME_get_text_by_NID(X509_get_subject_name(shown), NID_commonName, name, sizeof name);
    ck_assert_str_eq(name, "other");
    X509_free(shown);
}
END_TEST

START_TEST(clients_must_show_a_certificate_of_the_right_authority)
{
    config.client_ca = paths[2];
    ck_assert_int_eq(tls_reload(tls, text), OK);
    stream_close(&probe.stream, ERR_CLOSED);
    turn();
    close_client();

    open_stream(60000);
    open_client();
    drive(SSL_do_handshake); /* TLS 1.3: the client is through before the server has looked */
    while (!probe.is_closed) {
        turn();
    }
    ck_assert_int_eq(probe.result, HANDSHAKE_CERTIFICATE);
    close_client();

    struct certificate good = certificate_make("good", &other, 1000);
    open_stream(60000);
    open_client();
    ck_assert_int_eq(SSL_use_certificate(client, good.x509), 1);
    ck_assert_int_eq(SSL_use_PrivateKey(client, good.key), 1);
    shake();
    ck_assert_int_eq(probe.result, HANDSHAKE_FULL);
    certificate_free(&good);
}
END_TEST

START_TEST(old_versions_are_refused)
{
    SSL_set_max_proto_version(client, TLS1_2_VERSION);
    config.min_version = TLS_VERSION_1_3;
    ck_assert_int_eq(tls_reload(tls, text), OK);
    stream_close(&probe.stream, ERR_CLOSED);
    turn();
    close_client();
    open_stream(60000);
    open_client();
    SSL_set_max_proto_version(client, TLS1_2_VERSION);
    ck_assert_int_le(drive(SSL_do_handshake), 0);
    ck_assert_int_eq(probe.result, HANDSHAKE_FAILED);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stream with TLS");
    TCase *streams = tcase_create("streams");
    tcase_add_checked_fixture(streams, setup_stream, teardown_stream);
    tcase_add_test(streams, hands_are_shaken_and_bytes_go_both_ways);
    tcase_add_test(streams, what_tls_holds_is_not_forgotten);
    tcase_add_test(streams, a_pause_keeps_what_tls_holds);
    tcase_add_test(streams, large_values_arrive_in_place);
    tcase_add_test(streams, output_waits_for_a_slow_reader);
    tcase_add_test(streams, a_goodbye_is_the_end_of_input_and_answers_still_go_out);
    tcase_add_test(streams, a_goodbye_right_behind_data_is_seen);
    tcase_add_test(streams, an_end_without_a_goodbye_is_the_same);
    tcase_add_test(streams, no_goodbye_when_output_is_lost);
    tcase_add_test(streams, plain_text_is_refused);
    tcase_add_test(streams, http_is_refused);
    tcase_add_test(streams, garbage_is_refused);
    tcase_add_test(streams, garbage_after_the_handshake_closes);
    tcase_add_test(streams, who_goes_away_during_the_handshake_is_closed);
    tcase_add_test(streams, the_handshake_has_a_deadline);
    tcase_add_test(streams, the_deadline_is_over_once_hands_are_shaken);
    tcase_add_test(streams, a_key_update_is_answered);
    tcase_add_test(streams, renegotiation_is_refused_and_nothing_else_happens);
    tcase_add_test(streams, sessions_are_resumed_until_the_certificate_changes);
    tcase_add_test(streams, an_old_connection_goes_on_with_what_it_began_with);
    tcase_add_test(streams, clients_must_show_a_certificate_of_the_right_authority);
    tcase_add_test(streams, old_versions_are_refused);
    suite_add_tcase(suite, streams);
    return check_main(suite);
}
