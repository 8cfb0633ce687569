#include "proxy/net/stream.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/check_main.h"

/* A stream over one end of a socketpair; what arrives is cut into items of `item_len` bytes. */
struct probe {
    struct stream stream;
    size_t item_len;
    size_t items;
    char *last; /* copy of the last item */
    bool says_need;
    bool keeps_chunk;
    struct chunk *kept;
    const char *kept_data;
    bool is_closed;
    bool is_buried;
    bool saw_eof;
    bool has_drained;
    enum err err;
};

static struct loop loop;
static struct probe probe;
static int peer;

static void on_data(struct stream *s)
{
    struct span input = stream_input(s);
    while (input.len >= probe.item_len) {
        free(probe.last);
        probe.last = xstrndup(input.data, probe.item_len);
        if (probe.keeps_chunk) {
            chunk_unref(&probe.kept);
            probe.kept = chunk_ref(s->in);
            probe.kept_data = input.data;
        }
        probe.items++;
        stream_consume(s, probe.item_len);
        input = stream_input(s);
    }
    s->need = probe.says_need && input.len > 0 ? probe.item_len : 0;
}

static void on_eof(struct stream *s)
{
    probe.saw_eof = true;
}

static void on_drain(struct stream *s)
{
    probe.has_drained = true;
}

static void on_close(struct stream *s, enum err err)
{
    ck_assert(!probe.is_closed);
    probe.is_closed = true;
    probe.err = err;
}

static void on_bury(struct stream *s)
{
    ck_assert(probe.is_closed);
    probe.is_buried = true;
}

static const struct stream_ops ops = {.on_data = on_data, .on_eof = on_eof, .on_drain = on_drain, .on_close = on_close, .on_bury = on_bury};

static void turn(void)
{
    loop_turn(&loop, false);
}

static void open_on(const int fds[2])
{
    ck_assert_int_eq(loop_init(&loop, NULL, 256 << 20), OK);
    probe = (struct probe){.item_len = 10};
    peer = fds[1];
    stream_open(&probe.stream, &loop, &ops, fds[0]);
}

static void setup(void)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    open_on(fds);
}

/* TCP takes more at once than a socketpair does. */
static void setup_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    int fds[2];
    ck_assert_int_eq(bind(listening, (struct sockaddr *)&address, len), 0);
    ck_assert_int_eq(listen(listening, 1), 0);
    ck_assert_int_eq(getsockname(listening, (struct sockaddr *)&address, &len), 0);
    fds[1] = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fds[1], (struct sockaddr *)&address, len), 0);
    fds[0] = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    close(listening);
    open_on(fds);
}

static void teardown(void)
{
    stream_close(&probe.stream, ERR_STOPPING);
    turn();
    ck_assert(probe.is_buried);
    chunk_unref(&probe.kept);
    free(probe.last);
    close(peer);
    ck_assert_uint_eq(loop.chunks.used_bytes, CHUNK_BYTES_MAX); /* the scratch chunk alone: nothing has leaked */
    loop_deinit(&loop);
}

static void send_all(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(peer, data, len);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
        turn();
    }
    turn();
    turn();
}

START_TEST(small_pieces_become_items)
{
    for (int i = 0; i < 25; i++) {
        send_all(&"0123456789"[i % 10], 1);
    }
    ck_assert_uint_eq(probe.items, 2);
    ck_assert_str_eq(probe.last, "0123456789");
    ck_assert_uint_eq(stream_input(&probe.stream).len, 5);
    ck_assert_ptr_ne(probe.stream.in, loop.scratch);
}
END_TEST

START_TEST(no_input_no_memory)
{
    send_all("0123456789", 10);
    ck_assert_ptr_null(probe.stream.in);
    ck_assert_uint_eq(loop.chunks.used_bytes, CHUNK_BYTES_MAX);
}
END_TEST

static void check_large(size_t len, bool says_need)
{
    char *value = xmalloc(len);
    for (size_t i = 0; i < len; i++) {
        value[i] = (char)('a' + i % 23);
    }
    probe.item_len = len;
    probe.says_need = says_need;
    probe.keeps_chunk = true;
    for (int round = 0; round < 3; round++) {
        send_all(value, len);
        ck_assert_uint_eq(probe.items, round + 1);
        ck_assert_mem_eq(probe.last, value, len);
        ck_assert_mem_eq(probe.kept_data, value, len);
    }
    free(value);
}

START_TEST(large_items_with_known_length)
{
    check_large(1 << 20, true);
    ck_assert_uint_le(probe.kept->cap, (1 << 20) + 64); /* received in place: its chunk holds nothing else */
}
END_TEST

START_TEST(large_items_with_unknown_length)
{
    check_large(300000, false);
}
END_TEST

START_TEST(middling_items)
{
    check_large(20000, true);
}
END_TEST

START_TEST(a_kept_value_survives_what_comes_later)
{
    probe.item_len = 5000;
    probe.keeps_chunk = true;
    char value[5000];
    memset(value, 'x', sizeof value);
    send_all(value, sizeof value);
    struct chunk *kept = chunk_ref(probe.kept);
    const char *data = probe.kept_data;
    memset(value, 'y', sizeof value);
    for (int i = 0; i < 100; i++) {
        send_all(value, sizeof value);
    }
    for (size_t i = 0; i < sizeof value; i++) {
        ck_assert_int_eq(data[i], 'x');
    }
    chunk_unref(&kept);
}
END_TEST

START_TEST(output_waits_for_a_slow_reader)
{
    size_t total = 8 << 20;
    char *data = xmalloc(total);
    for (size_t i = 0; i < total; i++) {
        data[i] = (char)(i * 7 % 251);
    }
    struct chunk *big = chunk_get(&loop.chunks, total);
    memcpy(big->data, data, total);
    ck_assert_int_eq(chain_append(&probe.stream.out, data, 100), OK);
    ck_assert_int_eq(chain_append_ref(&probe.stream.out, big, big->data + 100, total - 200), OK);
    ck_assert_int_eq(chain_append(&probe.stream.out, data + total - 100, 100), OK);
    chunk_unref(&big);
    stream_dirty(&probe.stream);
    turn();
    ck_assert(probe.stream.out.bytes > STREAM_HIGH);
    char buffer[100000];
    size_t got = 0;
    while (got < total) {
        ssize_t n = read(peer, buffer, sizeof buffer);
        if (n > 0) {
            ck_assert_mem_eq(buffer, data + got, (size_t)n);
            got += (size_t)n;
        }
        turn();
    }
    ck_assert_uint_eq(probe.stream.out.bytes, 0);
    ck_assert(probe.has_drained);
    free(data);
}
END_TEST

START_TEST(finish_writes_first_then_closes)
{
    ck_assert_int_eq(chain_append(&probe.stream.out, "bye", 3), OK);
    stream_finish(&probe.stream);
    turn();
    char buffer[10];
    ck_assert_int_eq(read(peer, buffer, sizeof buffer), 3);
    ck_assert_int_eq(read(peer, buffer, sizeof buffer), 0);
    ck_assert(probe.is_closed);
}
END_TEST

START_TEST(end_of_input_is_told_once)
{
    shutdown(peer, SHUT_WR);
    turn();
    turn();
    ck_assert(probe.saw_eof);
    ck_assert(!probe.is_closed);
}
END_TEST

START_TEST(a_pause_leaves_input_in_the_kernel)
{
    stream_pause(&probe.stream);
    ck_assert_int_eq(write(peer, "0123456789", 10), 10);
    turn();
    ck_assert_uint_eq(probe.items, 0);
    stream_resume(&probe.stream);
    turn();
    ck_assert_uint_eq(probe.items, 1);
}
END_TEST

START_TEST(memory_at_its_limit_closes_the_one_who_wants_more)
{
    loop.chunks.limit_bytes = loop.chunks.used_bytes + 100000;
    probe.item_len = 1 << 20;
    probe.says_need = true;
    char data[50000];
    memset(data, 'x', sizeof data);
    for (int i = 0; i < 40 && !probe.is_closed; i++) {
        ssize_t n = write(peer, data, sizeof data);
        (void)n;
        turn();
    }
    ck_assert(probe.is_closed);
    ck_assert_int_eq(probe.err, ERR_NOMEM);
}
END_TEST

START_TEST(a_turn_receives_only_so_much)
{
    char piece[65536];
    size_t sent = 0;
    memset(piece, 'x', sizeof piece);
    probe.item_len = 64 << 20;
    probe.says_need = true;
    send_all("x", 1); /* now it is known how long it will be */
    while (sent < 1 << 20) {
        ssize_t n = write(peer, piece, sizeof piece);
        if (n <= 0) {
            break;
        }
        sent += (size_t)n;
    }
    ck_assert_uint_gt(sent, 2 * STREAM_RECEIVE_MAX);
    uint64_t before = probe.stream.bytes_in;
    while (probe.stream.bytes_in == before) {
        turn();
    }
    ck_assert_uint_le(probe.stream.bytes_in - before, STREAM_RECEIVE_MAX);
    while (probe.stream.bytes_in < before + sent) {
        turn();
    }
}
END_TEST

START_TEST(a_turn_writes_only_so_much)
{
    size_t len = 8 << 20;
    struct chunk *big = chunk_get(&loop.chunks, len);
    memset(big->data, 'x', len);
    ck_assert_int_eq(chain_append_ref(&probe.stream.out, big, big->data, len), OK);
    chunk_unref(&big);
    stream_dirty(&probe.stream);
    uint64_t before;
    uint32_t full_turns = 0;
    static char buffer[1 << 20];
    do {
        before = probe.stream.bytes_out;
        turn();
        ck_assert_uint_le(probe.stream.bytes_out - before, 2 * STREAM_WRITE_MAX); /* by the event and by the end of the turn */
        full_turns += probe.stream.bytes_out - before >= STREAM_WRITE_MAX;
        while (read(peer, buffer, sizeof buffer) > 0) {
        }
    } while (probe.stream.out.bytes > 0);
    ck_assert_uint_gt(full_turns, 0); /* the socket would have taken more */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stream");
    TCase *tc = tcase_create("socketpair");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, small_pieces_become_items);
    tcase_add_test(tc, no_input_no_memory);
    tcase_add_test(tc, large_items_with_known_length);
    tcase_add_test(tc, large_items_with_unknown_length);
    tcase_add_test(tc, middling_items);
    tcase_add_test(tc, a_kept_value_survives_what_comes_later);
    tcase_add_test(tc, output_waits_for_a_slow_reader);
    tcase_add_test(tc, finish_writes_first_then_closes);
    tcase_add_test(tc, end_of_input_is_told_once);
    tcase_add_test(tc, a_pause_leaves_input_in_the_kernel);
    tcase_add_test(tc, memory_at_its_limit_closes_the_one_who_wants_more);
    suite_add_tcase(suite, tc);
    TCase *tcp = tcase_create("tcp");
    tcase_add_checked_fixture(tcp, setup_tcp, teardown);
    tcase_add_test(tcp, a_turn_receives_only_so_much);
    tcase_add_test(tcp, a_turn_writes_only_so_much);
    suite_add_tcase(suite, tcp);
    return check_main(suite);
}
