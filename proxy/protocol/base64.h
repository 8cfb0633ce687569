/* What:    base64 as memcached has it, for keys that can not stand in a line.
 * Owns:    nothing.
 * Threads: any; pure.
 */
#ifndef PROXY_PROTOCOL_BASE64_H
#define PROXY_PROTOCOL_BASE64_H

#include "common/base.h"

#define BASE64_LEN(len) (((len) + 2) / 3 * 4)

/* Writes BASE64_LEN(bytes.len) digits and returns where they end. */
char *base64_put(char *at, struct span bytes);

/* Decodes into `out`, which has room for text.len / 4 * 3 bytes; returns how many they are. 0: that is no base64. As in memcached bytes that are
 * no digits are skipped, and so is what follows the padding. */
size_t base64_decode(struct span text, char *out);

#endif
