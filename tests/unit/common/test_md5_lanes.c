#include "common/md5_lanes.h"

#include <openssl/evp.h>

#include "tests/unit/check_main.h"

static uint32_t expected(struct span key)
{
    unsigned char digest[16];
    ck_assert_int_eq(EVP_Digest(key.data, key.len, digest, NULL, EVP_md5(), NULL), 1);
    return (uint32_t)digest[0] | (uint32_t)digest[1] << 8 | (uint32_t)digest[2] << 16 | (uint32_t)digest[3] << 24;
}

static void check(const struct span *keys, uint32_t count)
{
    uint32_t out[MD5_LANES];
    md5_lanes(keys, count, out);
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_uint_eq(out[i], expected(keys[i]));
    }
}

START_TEST(every_length_in_every_lane)
{
    char bytes[MD5_LANE_KEY_MAX];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (char)(i * 37 + 11);
    }
    for (size_t len = 0; len <= MD5_LANE_KEY_MAX; len++) {
        struct span keys[MD5_LANES];
        for (uint32_t i = 0; i < MD5_LANES; i++) {
            keys[i] = span_of(bytes, (len + i * 17) % (MD5_LANE_KEY_MAX + 1)); /* lanes of different numbers of blocks side by side */
        }
        check(keys, MD5_LANES);
    }
}
END_TEST

START_TEST(any_number_of_keys)
{
    struct span keys[MD5_LANES];
    for (uint32_t i = 0; i < MD5_LANES; i++) {
        keys[i] = span_of("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz", 1 + i * 4);
    }
    for (uint32_t count = 1; count <= MD5_LANES; count++) {
        check(keys, count);
    }
}
END_TEST

START_TEST(random_bytes)
{
    static char bytes[MD5_LANES][MD5_LANE_KEY_MAX];
    unsigned seed = 7;
    for (int round = 0; round < 2000; round++) {
        struct span keys[MD5_LANES];
        uint32_t count = 1 + (uint32_t)rand_r(&seed) % MD5_LANES;
        for (uint32_t i = 0; i < count; i++) {
            size_t len = (size_t)rand_r(&seed) % (MD5_LANE_KEY_MAX + 1);
            for (size_t j = 0; j < len; j++) {
                bytes[i][j] = (char)rand_r(&seed);
            }
            keys[i] = span_of(bytes[i], len);
        }
        check(keys, count);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("md5_lanes");
    TCase *tc = tcase_create("against OpenSSL");
    tcase_add_test(tc, every_length_in_every_lane);
    tcase_add_test(tc, any_number_of_keys);
    tcase_add_test(tc, random_bytes);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
