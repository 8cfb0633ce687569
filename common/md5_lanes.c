#include "common/md5_lanes.h"

#define BLOCK 64
#define BLOCKS_MAX 5 /* 250 bytes, 0x80, the length: 259 bytes */

typedef uint32_t lanes __attribute__((vector_size(MD5_LANES * 4)));

struct padded {
    unsigned char bytes[MD5_LANES][BLOCKS_MAX * BLOCK];
    uint32_t blocks[MD5_LANES];
    uint32_t most;
};

static void pad(const struct span *keys, uint32_t count, struct padded *p)
{
    p->most = 1;
    for (uint32_t i = 0; i < count; i++) {
        unsigned char *at = p->bytes[i];
        size_t len = keys[i].len;
        p->blocks[i] = (uint32_t)((len + 9 + BLOCK - 1) / BLOCK);
        p->most = MAX(p->most, p->blocks[i]);
        if (len > 0) {
            memcpy(at, keys[i].data, len);
        }
        at[len] = 0x80;
        memset(at + len + 1, 0, p->blocks[i] * BLOCK - len - 1);
        uint64_t bits = (uint64_t)len * 8;
        at[p->blocks[i] * BLOCK - 8] = (unsigned char)bits;
        at[p->blocks[i] * BLOCK - 7] = (unsigned char)(bits >> 8);
    }
    for (uint32_t i = count; i < MD5_LANES; i++) {
        memset(p->bytes[i], 0, BLOCK); /* an idle lane; what it computes is never looked at */
        p->blocks[i] = 0;
    }
}

static inline uint32_t load(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))
#define F(b, c, d) ((d) ^ ((b) & ((c) ^ (d))))
#define G(b, c, d) ((c) ^ ((d) & ((b) ^ (c))))
#define H(b, c, d) ((b) ^ (c) ^ (d))
#define I(b, c, d) ((c) ^ ((b) | ~(d)))
#define STEP(f, a, b, c, d, k, s, t) \
    a += f(b, c, d) + w[k] + (t);    \
    a = ROTATE(a, s) + b

/* RFC 1321, 3.4: the 64 steps over all lanes at once. */
static inline __attribute__((always_inline)) void steps(lanes *state, const lanes *w)
{
    lanes a = state[0], b = state[1], c = state[2], d = state[3];
#define X(f, k0, s0, t0, k1, s1, t1, k2, s2, t2, k3, s3, t3) \
    STEP(f, a, b, c, d, k0, s0, t0);                         \
    STEP(f, d, a, b, c, k1, s1, t1);                         \
    STEP(f, c, d, a, b, k2, s2, t2);                         \
    STEP(f, b, c, d, a, k3, s3, t3);
#include "common/md5_steps.def"
#undef X
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

static inline __attribute__((always_inline)) void digest(const struct padded *p, uint32_t count, uint32_t *out)
{
    lanes state[4] = {(lanes){0} + 0x67452301U, (lanes){0} + 0xefcdab89U, (lanes){0} + 0x98badcfeU, (lanes){0} + 0x10325476U};
    for (uint32_t block = 0; block < p->most; block++) {
        uint32_t words[16][MD5_LANES]; /* transposed in memory: compilers make little of setting lanes one by one */
        uint32_t is_running[MD5_LANES];
        for (uint32_t i = 0; i < MD5_LANES; i++) {
            is_running[i] = block < p->blocks[i] ? UINT32_MAX : 0;
            const unsigned char *at = p->bytes[i] + (is_running[i] ? block * BLOCK : 0);
            for (uint32_t k = 0; k < 16; k++) {
                words[k][i] = load(at + 4 * k);
            }
        }
        lanes w[16];
        lanes running;
        memcpy(w, words, sizeof w);
        memcpy(&running, is_running, sizeof running);
        lanes next[4] = {state[0], state[1], state[2], state[3]};
        steps(next, w);
        for (int i = 0; i < 4; i++) {
            state[i] = (next[i] & running) | (state[i] & ~running);
        }
    }
    memcpy(out, &state[0], count * sizeof *out);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void digest_avx2(const struct padded *p, uint32_t count, uint32_t *out)
{
    digest(p, count, out);
}
#endif

static void digest_plain(const struct padded *p, uint32_t count, uint32_t *out)
{
    digest(p, count, out);
}

void md5_lanes(const struct span *keys, uint32_t count, uint32_t *out)
{
    struct padded padded;
    pad(keys, count, &padded);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        digest_avx2(&padded, count, out);
        return;
    }
#endif
    digest_plain(&padded, count, out);
}
