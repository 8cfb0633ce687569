/* What:    the deletion of one key asked for by another thread than a worker's: what a client's `delete` does, the other regions included.
 * Owns:    nothing; the errand is lent to the worker from errand_submit() until on_done.
 * Threads: errand_submit() from any thread; on_done runs on the worker's thread.
 * Fails:   status REPLY_ERROR, with the text that a client would be told.
 */
#ifndef PROXY_CACHE_ERRAND_H
#define PROXY_CACHE_ERRAND_H

#include "proxy/cache/cache.h"

struct errand {
    void (*on_done)(struct errand *errand);
    uint16_t key_len;
    char key[KEY_MAX];
    enum reply_status status; /* the result: REPLY_DELETED, REPLY_NOT_FOUND or REPLY_ERROR */
    char text[ERROR_TEXT_MAX];
    struct cache *cache; /* the worker's, with what follows */
    struct mail mail;
};

void errand_submit(struct cache *cache, struct errand *errand);

#endif
