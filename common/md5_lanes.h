/* What:    the first 32 bits of the MD5 of up to 16 short keys at once, for the hash ring: where keys come in bunches (pipelines,
 *          multi-gets), one after the other would make MD5 the most expensive thing that is done for them.
 * Owns:    nothing.
 * Threads: any; pure.
 * Fails:   never; keys are at most MD5_LANE_KEY_MAX bytes.
 * Source:  RFC 1321. Each lane of a vector computes one key's digest; lanes whose key has fewer blocks keep their state.
 *
 * Measured on a 2-core x86-64 VM with AVX2, ns for each 64-byte key: OpenSSL's MD5() 190 to 240; here 4 keys 135, 8 keys 67, 16 keys 36.
 */
#ifndef COMMON_MD5_LANES_H
#define COMMON_MD5_LANES_H

#include "common/base.h"

#define MD5_LANES 16
#define MD5_LANE_KEY_MAX 250

/* out[i] is the first four bytes of MD5(keys[i]), little endian; 1 ≤ count ≤ MD5_LANES. */
void md5_lanes(const struct span *keys, uint32_t count, uint32_t *out);

#endif
