#include "tests/bench/protocol.h"

#include <stdio.h>
#include <string.h>

static const struct protocol *const protocols[] = {&protocol_classic, &protocol_meta, &protocol_meta_bare, &protocol_binary};

const struct protocol *protocol_find(const char *name)
{
    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++) {
        if (strcmp(protocols[i]->name, name) == 0)
            return protocols[i];
    }
    return NULL;
}

void shape_key(const struct shape *shape, uint32_t number, char *out)
{
    char tail[KEY_TAIL + 8];
    size_t prefix_len = strlen(shape->prefix);
    memset(out, 'k', shape->key_size);
    memcpy(out, shape->prefix, prefix_len);
    snprintf(tail, sizeof(tail), "%08u", number % 100000000U);
    memcpy(out + shape->key_size - KEY_TAIL, tail, KEY_TAIL);
}
