#include "tests/bench/requests.h"

#include "common/base.h"

#define MULTI_GET_KEYS_IN_ALL 16384 /* keeps the texts of multi-gets within the processor's cache */

static char *allocate(size_t size)
{
    char *p = malloc(size);
    if (p == NULL)
        abort();
    return p;
}

/* n different numbers below limit: a random start, then a random step, around. */
static void pick_numbers(uint64_t *random, uint32_t limit, uint32_t *out, uint32_t n)
{
    uint32_t number = random_below(random, limit);
    uint32_t step = 1 + random_below(random, MAX(limit / n, 1U));
    for (uint32_t i = 0; i < n; i++) {
        out[i] = number;
        number = (number + step) % limit;
    }
}

static uint64_t tail_of(const struct shape *shape, uint32_t number)
{
    char key[KEY_MAX];
    uint64_t tail;
    shape_key(shape, number, key);
    memcpy(&tail, key + shape->key_size - KEY_TAIL, KEY_TAIL);
    return tail;
}

static char *build_gets(struct requests *r, const struct protocol *protocol, const struct shape *shape,
                        const struct requests_options *o, char *text)
{
    uint32_t *numbers = xcalloc(o->multi_get, sizeof(*numbers));
    for (uint32_t i = 0; i < r->get_count; i++) {
        struct request *q = &r->gets[i];
        if (o->multi_get == 1)
            numbers[0] = i;
        else
            pick_numbers(&r->random, o->keys, numbers, o->multi_get);
        *q = (struct request){.kind = REQUEST_GET, .text = text, .keys = o->multi_get};
        q->len = (uint32_t)protocol->write_get(shape, numbers, o->multi_get, text);
        for (uint32_t k = 0; k < o->multi_get; k++)
            q->tails ^= tail_of(shape, numbers[k]);
        text += q->len;
        r->longest = MAX(r->longest, q->len);
    }
    free(numbers);
    return text;
}

static char *build_sets(struct requests *r, const struct protocol *protocol, const struct shape *shape, char *text)
{
    r->body = shape->value;
    r->body_len = shape->body_len;
    for (uint32_t i = 0; i < r->set_count; i++) {
        struct request *q = &r->sets[i];
        *q = (struct request){.kind = REQUEST_SET, .text = text, .keys = 1, .tails = tail_of(shape, i)};
        q->len = (uint32_t)protocol->write_set(shape, i, text);
        text += q->len;
        r->longest = MAX(r->longest, q->len + r->body_len);
    }
    return text;
}

void requests_init(struct requests *r, const struct protocol *protocol, const struct shape *shape, const struct requests_options *o)
{
    *r = (struct requests){.random = (o->seed + 1) * 0x9e3779b97f4a7c15ULL};
    r->get_count = o->multi_get == 1 ? o->keys : MAX(64U, MULTI_GET_KEYS_IN_ALL / o->multi_get);
    r->set_count = o->keys;
    r->set_share = (uint32_t)(MIN(o->set_ratio, 1.0) * (double)UINT32_MAX);
    r->gets = xcalloc(r->get_count, sizeof(*r->gets));
    r->sets = xcalloc(r->set_count, sizeof(*r->sets));
    size_t per_get = 64 + (size_t)o->multi_get * (shape->key_size + 64); /* any protocol's */
    size_t per_set = 128 + shape->key_size;
    r->text = allocate(r->get_count * per_get + r->set_count * per_set);
    build_sets(r, protocol, shape, build_gets(r, protocol, shape, o, r->text));
}

void requests_deinit(struct requests *r)
{
    free(r->gets);
    free(r->sets);
    free(r->text);
}
