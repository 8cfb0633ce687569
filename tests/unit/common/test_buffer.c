#include <check.h>

#include "common/buffer.h"
#include "tests/unit/check_main.h"

#define NO_LIMIT ((size_t)1 << 30)

/* All bytes of a chain, taken through chain_iov() in pieces of any number. */
static size_t contents(const struct chain *chain, char *out, size_t size)
{
    struct iovec iov[1024];
    int n = chain_iov(chain, iov, 1024);
    size_t len = 0;
    for (int i = 0; i < n; i++) {
        ck_assert_uint_gt(iov[i].iov_len, 0);
        ck_assert_uint_le(len + iov[i].iov_len, size);
        memcpy(out + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    return len;
}

static void expect(const struct chain *chain, const char *expected, size_t expected_len)
{
    static char found[8 << 20];
    ck_assert_uint_eq(chain->bytes, expected_len);
    ck_assert_uint_eq(contents(chain, found, sizeof found), expected_len);
    ck_assert_mem_eq(found, expected, expected_len);
}

static void finish(struct chain *chain, struct chunk_pool *pool)
{
    chain_clear(chain);
    ck_assert_uint_eq(chain->bytes, 0);
    ck_assert_uint_eq(pool->used_bytes, 0); /* every chunk is back */
    chunk_pool_deinit(pool);
    ck_assert_uint_eq(pool->free_bytes, 0);
}

/* ---- chunks ---- */

START_TEST(chunks_have_room)
{
    struct chunk_pool pool;
    chunk_pool_init(&pool, NO_LIMIT);
    static const size_t sizes[] = {0, 1, 200, 208, 209, 256, 4096, 32768, 131000, 131072 - sizeof(struct chunk), 131072, 131073, 1 << 20, 5000001};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct chunk *c = chunk_get(&pool, sizes[i]);
        ck_assert_ptr_nonnull(c);
        ck_assert_uint_ge(c->cap, sizes[i]);
        ck_assert_uint_eq(c->refs, 1);
        ck_assert_uint_eq(pool.used_bytes, c->cap + sizeof *c);
        memset(c->data, 'x', c->cap);
        if (sizes[i] > 131072) {
            ck_assert_uint_eq(c->cap, sizes[i]); /* not doubled */
        }
        chunk_unref(&c);
        ck_assert_ptr_null(c);
        ck_assert_uint_eq(pool.used_bytes, 0);
    }
    struct chunk *none = NULL;
    chunk_unref(&none); /* of nothing: nothing */
    chunk_pool_deinit(&pool);
}
END_TEST

START_TEST(chunks_are_used_again)
{
    struct chunk_pool pool;
    chunk_pool_init(&pool, NO_LIMIT);
    struct chunk *c = chunk_get(&pool, 900);
    struct chunk *first = c;
    chunk_unref(&c);
    ck_assert_uint_eq(pool.free_bytes, 1024);
    c = chunk_get(&pool, 700);
    ck_assert_ptr_eq(c, first); /* the same class */
    ck_assert_uint_eq(pool.free_bytes, 0);
    chunk_unref(&c);
    c = chunk_get(&pool, 100000); /* another class */
    ck_assert_ptr_ne(c, first);
    chunk_unref(&c);
    c = chunk_get(&pool, 1 << 20); /* large ones are not kept */
    size_t kept = pool.free_bytes;
    chunk_unref(&c);
    ck_assert_uint_eq(pool.free_bytes, kept);
    chunk_pool_deinit(&pool);
}
END_TEST

START_TEST(free_lists_are_bounded)
{
    struct chunk_pool pool;
    struct chunk *chunks[300];
    chunk_pool_init(&pool, NO_LIMIT);
    for (size_t i = 0; i < ARRAY_LEN(chunks); i++) {
        chunks[i] = chunk_get(&pool, 100000);
    }
    for (size_t i = 0; i < ARRAY_LEN(chunks); i++) {
        chunk_unref(&chunks[i]);
    }
    ck_assert_uint_eq(pool.free_bytes, 16 << 20); /* 37.5 MiB came back */
    chunk_pool_deinit(&pool);
}
END_TEST

START_TEST(limit)
{
    struct chunk_pool pool;
    struct chunk *chunks[8];
    chunk_pool_init(&pool, 1 << 20);
    ck_assert_ptr_null(chunk_get(&pool, 1 << 20)); /* the header does not fit */
    for (size_t i = 0; i < 8; i++) {
        chunks[i] = chunk_get(&pool, 131072 - sizeof(struct chunk));
        ck_assert_ptr_nonnull(chunks[i]);
    }
    ck_assert_uint_eq(pool.used_bytes, 1 << 20);
    ck_assert_ptr_null(chunk_get(&pool, 1));
    chunk_unref(&chunks[0]);
    chunks[0] = chunk_get(&pool, 1);
    ck_assert_ptr_nonnull(chunks[0]);
    for (size_t i = 0; i < 8; i++) {
        chunk_unref(&chunks[i]);
    }
    ck_assert_ptr_null(chunk_get(&pool, SIZE_MAX));
    ck_assert_ptr_null(chunk_get(&pool, SIZE_MAX - sizeof(struct chunk)));
    chunk_pool_deinit(&pool);
}
END_TEST

/* What lies on the free lists counts again once it is handed out. */
START_TEST(limit_holds_for_used_chunks_too)
{
    struct chunk_pool pool;
    struct chunk *small[4], *large;
    chunk_pool_init(&pool, 4 * 1024);
    for (size_t i = 0; i < 4; i++) {
        small[i] = chunk_get(&pool, 1000 - sizeof(struct chunk));
    }
    for (size_t i = 0; i < 4; i++) {
        chunk_unref(&small[i]);
    }
    large = chunk_get(&pool, 4096 - sizeof(struct chunk));
    ck_assert_ptr_nonnull(large);
    ck_assert_ptr_null(chunk_get(&pool, 1000 - sizeof(struct chunk)));
    ck_assert_uint_le(pool.used_bytes, pool.limit_bytes);
    chunk_unref(&large);
    chunk_pool_deinit(&pool);
}
END_TEST

START_TEST(without_a_pool)
{
    struct chunk *c = chunk_get(NULL, 100);
    struct chunk *second = chunk_ref(c);
    ck_assert_ptr_null(c->pool);
    chunk_unref(&c);
    second->data[99] = 'x'; /* still there */
    chunk_unref(&second);
    c = chunk_get(NULL, 1 << 20);
    chunk_unref(&c);
}
END_TEST

/* ---- chains ---- */

START_TEST(append)
{
    struct chunk_pool pool;
    struct chain chain;
    chunk_pool_init(&pool, NO_LIMIT);
    chain_init(&chain, &pool);
    expect(&chain, "", 0);
    ck_assert_int_eq(chain_append(&chain, "", 0), OK);
    ck_assert_uint_eq(chain.count, 0);
    ck_assert_int_eq(chain_append(&chain, "hello", 5), OK);
    ck_assert_int_eq(chain_append(&chain, ", world", 7), OK);
    ck_assert_uint_eq(chain.count, 1); /* side by side */
    expect(&chain, "hello, world", 12);
    ck_assert_uint_eq(pool.used_bytes, 2048); /* a small answer takes a small chunk */
    finish(&chain, &pool);
}
END_TEST

START_TEST(append_over_chunks)
{
    enum { LEN = 1000000 };
    struct chunk_pool pool;
    struct chain chain;
    char *text = xmalloc(LEN);
    for (size_t i = 0; i < LEN; i++) {
        text[i] = (char)(i * 31 + i / 251);
    }
    chunk_pool_init(&pool, NO_LIMIT);
    chain_init(&chain, &pool);
    for (size_t at = 0, step = 1; at < LEN; at += step, step = step * 3 % 70001 + 1) {
        ck_assert_int_eq(chain_append(&chain, text + at, MIN(step, LEN - at)), OK);
    }
    expect(&chain, text, LEN);
    ck_assert_uint_le(pool.used_bytes, LEN + LEN / 4);
    finish(&chain, &pool);
    free(text);
}
END_TEST

START_TEST(references)
{
    struct chunk_pool pool;
    struct chain chain;
    chunk_pool_init(&pool, NO_LIMIT);
    chain_init(&chain, &pool);
    struct chunk *received = chunk_get(&pool, 20000);
    memset(received->data, 'v', 20000);
    ck_assert_int_eq(chain_append(&chain, "VALUE ", 6), OK);
    ck_assert_int_eq(chain_append_value(&chain, received, received->data, 10000), OK); /* stays where it is */
    ck_assert_int_eq(chain_append(&chain, "\r\n", 2), OK);
    ck_assert_uint_eq(received->refs, 2);
    ck_assert_uint_eq(chain.count, 3);
    ck_assert_int_eq(chain_append_value(&chain, received, received->data, CHAIN_REF_MIN - 1), OK); /* copied */
    ck_assert_uint_eq(received->refs, 2);
    ck_assert_int_eq(chain_append_value(&chain, NULL, received->data, 10000), OK); /* copied too */
    ck_assert_uint_eq(received->refs, 2);
    ck_assert_int_eq(chain_append_value(&chain, received, received->data, CHAIN_REF_MIN), OK);
    ck_assert_uint_eq(received->refs, 3);
    ck_assert_int_eq(chain_append_ref(&chain, received, received->data, 0), OK); /* nothing takes nothing */
    ck_assert_uint_eq(received->refs, 3);
    struct iovec iov[2];
    ck_assert_int_eq(chain_iov(&chain, iov, 2), 2); /* no more than asked for */
    ck_assert_ptr_eq(iov[1].iov_base, received->data);
    chunk_unref(&received); /* the chain has its own */

    char expected[6 + 10000 + 2 + 4095 + 10000 + 4096];
    memset(expected, 'v', sizeof expected);
    memcpy(expected, "VALUE ", 6);
    memcpy(expected + 10006, "\r\n", 2);
    expect(&chain, expected, sizeof expected);
    chain_consume(&chain, 6 + 9999);
    expect(&chain, expected + 10005, sizeof expected - 10005);
    finish(&chain, &pool);
}
END_TEST

/* As a session writes: reserve, fill, take what was needed of it. */
START_TEST(reserve_and_commit)
{
    struct chunk_pool pool;
    struct chain chain;
    chunk_pool_init(&pool, NO_LIMIT);
    chain_init(&chain, &pool);
    char expected[40000];
    size_t len = 0;
    for (unsigned i = 0; len < sizeof expected - 64; i++) {
        char *room = chain_reserve(&chain, i % 100 == 0 ? CHAIN_RESERVE_MAX : 64);
        ck_assert_ptr_nonnull(room);
        size_t n = (size_t)sprintf(room, "line %u\r\n", i);
        memcpy(expected + len, room, n);
        len += n;
        ck_assert_int_eq(chain_commit(&chain, n), OK);
    }
    expect(&chain, expected, len);
    char *unused = chain_reserve(&chain, 10); /* reserved and then not taken */
    ck_assert_ptr_nonnull(unused);
    ck_assert_int_eq(chain_commit(&chain, 0), OK);
    expect(&chain, expected, len);
    chain_clear(&chain);
    ck_assert_ptr_nonnull(chain_reserve(&chain, 10));
    ck_assert_int_eq(chain_commit(&chain, 0), OK);
    ck_assert_uint_eq(chain.count, 0);
    finish(&chain, &pool);
}
END_TEST

/* A reference between two copies: they are in one chunk, but not one piece. */
START_TEST(pieces_stay_in_order)
{
    struct chunk_pool pool;
    struct chain chain;
    chunk_pool_init(&pool, NO_LIMIT);
    chain_init(&chain, &pool);
    struct chunk *other = chunk_get(&pool, 10);
    memcpy(other->data, "bbb", 3);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(chain_append(&chain, "aaa", 3), OK);
        ck_assert_int_eq(chain_append_ref(&chain, other, other->data, 3), OK);
    }
    ck_assert_uint_eq(chain.count, 10);
    ck_assert_uint_eq(other->refs, 6);
    expect(&chain, "aaabbbaaabbbaaabbbaaabbbaaabbb", 30);
    chunk_unref(&other);
    finish(&chain, &pool);
}
END_TEST

START_TEST(consume_every_length)
{
    for (size_t step = 1; step <= 31; step++) {
        struct chunk_pool pool;
        struct chain chain;
        chunk_pool_init(&pool, NO_LIMIT);
        chain_init(&chain, &pool);
        struct chunk *other = chunk_get(&pool, 10);
        memcpy(other->data, "bbb", 3);
        for (int i = 0; i < 5; i++) {
            chain_append(&chain, "aaa", 3);
            chain_append_ref(&chain, other, other->data, 3);
        }
        chunk_unref(&other);
        for (size_t at = 0; at < 30; at += step) {
            expect(&chain, &"aaabbbaaabbbaaabbbaaabbbaaabbb"[at], 30 - at);
            chain_consume(&chain, 0);
            chain_consume(&chain, MIN(step, 30 - at));
        }
        ck_assert_uint_eq(chain.count, 0);
        ck_assert_uint_eq(pool.used_bytes, 0); /* an empty chain holds nothing */
        ck_assert_ptr_eq(chain.segments, chain.inlined);
        finish(&chain, &pool);
    }
}
END_TEST

/* The ring of segments turns round and round, at its first size and at larger ones, against a plain model. */
START_TEST(wrap_around)
{
    enum { ROUNDS = 20000, LONGEST = 2000 };
    for (uint32_t depth = 1; depth <= 50; depth += 7) {
        struct chunk_pool pool;
        struct chain chain;
        char model[LONGEST];
        size_t len = 0;
        unsigned number = depth;
        chunk_pool_init(&pool, NO_LIMIT);
        chain_init(&chain, &pool);
        for (unsigned i = 0; i < ROUNDS / depth; i++) {
            number = number * 1103515245 + 12345;
            bool must_grow = chain.count < 1;
            if (must_grow || (chain.count < depth && (number >> 16) % 2 == 0)) {
                struct chunk *c = chunk_get(&pool, 20);
                size_t n = 1 + (number >> 20) % 9;
                memset(c->data, 'a' + (int)(i % 26), n);
                ck_assert_int_eq(chain_append_ref(&chain, c, c->data, n), OK);
                memcpy(model + len, c->data, n);
                len += n;
                chunk_unref(&c);
            } else {
                size_t n = (number >> 20) % (MIN(len, (size_t)25) + 1);
                chain_consume(&chain, n);
                memmove(model, model + n, len - n);
                len -= n;
            }
            expect(&chain, model, len);
        }
        finish(&chain, &pool);
    }
}
END_TEST

START_TEST(out_of_memory)
{
    struct chunk_pool pool;
    struct chain chain;
    char text[20000];
    memset(text, 't', sizeof text);
    chunk_pool_init(&pool, 2048);
    chain_init(&chain, &pool);
    ck_assert_int_eq(chain_append(&chain, text, 500), OK);
    ck_assert_int_eq(chain_append(&chain, text, sizeof text), ERR_NOMEM);
    ck_assert_ptr_null(chain_reserve(&chain, CHAIN_RESERVE_MAX));
    expect(&chain, text, chain.bytes); /* what got in is there, whole */
    ck_assert_int_eq(chain_append(&chain, "more", 4), ERR_NOMEM);
    finish(&chain, &pool);

    chunk_pool_init(&pool, 0);
    chain_init(&chain, &pool);
    ck_assert_ptr_null(chain_reserve(&chain, 1));
    ck_assert_int_eq(chain_append(&chain, "x", 1), ERR_NOMEM);
    finish(&chain, &pool);
}
END_TEST

START_TEST(cleared_and_used_again)
{
    struct chunk_pool pool;
    struct chain chain;
    chunk_pool_init(&pool, NO_LIMIT);
    chain_init(&chain, &pool);
    chain_clear(&chain);
    for (int i = 0; i < 10; i++) {
        struct chunk *c = chunk_get(&pool, 10);
        memcpy(c->data, "0123456789", 10);
        for (int k = 0; k < 20; k++) {
            chain_append_ref(&chain, c, c->data + k % 10, 1);
        }
        chunk_unref(&c);
        chain_append(&chain, "end", 3);
        expect(&chain, "01234567890123456789end", 23);
        chain_clear(&chain);
        expect(&chain, "", 0);
        ck_assert_uint_eq(pool.used_bytes, 0);
    }
    finish(&chain, &pool);
}
END_TEST

/* A slow peer has read all but the end of a large value: the value's chunk goes, its end stays. */
START_TEST(compact)
{
    enum { LARGE = 1 << 20 };
    struct chunk_pool pool;
    struct chain chain;
    chunk_pool_init(&pool, NO_LIMIT);
    chain_init(&chain, &pool);
    struct chunk *value = chunk_get(&pool, LARGE);
    memset(value->data, 'v', LARGE);
    memcpy(value->data + LARGE - 10, "0123456789", 10);
    ck_assert_int_eq(chain_append_ref(&chain, value, value->data, LARGE), OK);
    chunk_unref(&value);
    ck_assert_int_eq(chain_append(&chain, "\r\nEND\r\n", 7), OK);
    ck_assert_int_eq(chain_compact(&chain), OK);
    ck_assert_uint_gt(pool.used_bytes, LARGE); /* all of it is still to be read */
    chain_consume(&chain, LARGE - 10);
    expect(&chain, "0123456789\r\nEND\r\n", 17);
    ck_assert_int_eq(chain_compact(&chain), OK);
    expect(&chain, "0123456789\r\nEND\r\n", 17);
    ck_assert_uint_le(pool.used_bytes, 1024);
    size_t used = pool.used_bytes;
    ck_assert_int_eq(chain_compact(&chain), OK); /* again: nothing left to win */
    ck_assert_uint_eq(pool.used_bytes, used);
    ck_assert_int_eq(chain_append(&chain, "x", 1), OK); /* and it goes on */
    expect(&chain, "0123456789\r\nEND\r\nx", 18);
    finish(&chain, &pool);
    chain_init(&chain, &pool);
    ck_assert_int_eq(chain_compact(&chain), OK); /* of nothing */
    ck_assert_ptr_null(chain.tail);
}
END_TEST

START_TEST(compact_without_memory)
{
    struct chunk_pool pool;
    struct chain chain;
    chunk_pool_init(&pool, 70000);
    chain_init(&chain, &pool);
    struct chunk *value = chunk_get(&pool, 65536 - sizeof(struct chunk));
    memcpy(value->data, "abc", 3);
    ck_assert_int_eq(chain_append_ref(&chain, value, value->data, 3), OK);
    chunk_unref(&value);
    pool.limit_bytes = 65536;
    ck_assert_int_eq(chain_compact(&chain), ERR_NOMEM);
    expect(&chain, "abc", 3);
    finish(&chain, &pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("buffer");
    TCase *chunks = tcase_create("chunks");
    tcase_add_test(chunks, chunks_have_room);
    tcase_add_test(chunks, chunks_are_used_again);
    tcase_add_test(chunks, free_lists_are_bounded);
    tcase_add_test(chunks, limit);
    tcase_add_test(chunks, limit_holds_for_used_chunks_too);
    tcase_add_test(chunks, without_a_pool);
    suite_add_tcase(suite, chunks);
    TCase *chains = tcase_create("chains");
    tcase_set_timeout(chains, 60);
    tcase_add_test(chains, append);
    tcase_add_test(chains, append_over_chunks);
    tcase_add_test(chains, references);
    tcase_add_test(chains, reserve_and_commit);
    tcase_add_test(chains, pieces_stay_in_order);
    tcase_add_test(chains, consume_every_length);
    tcase_add_test(chains, wrap_around);
    tcase_add_test(chains, out_of_memory);
    tcase_add_test(chains, cleared_and_used_again);
    tcase_add_test(chains, compact);
    tcase_add_test(chains, compact_without_memory);
    suite_add_tcase(suite, chains);
    return check_main(suite);
}
