/* What:    how long a lookup among rules takes: no rules, 100 and 10,000 prefix rules, and 256 others. Prints nanoseconds for each. */
#include "common/glob_index.h"

#include "common/clock.h"

#define KEYS 1024
#define ROUNDS 2000

static void measure(const char *name, const struct glob_rule *rules, uint32_t count, const struct span *keys)
{
    struct glob_index *index;
    uint64_t built_us = clock_mono_us();
    if (glob_index_create(rules, count, &index) != OK) {
        exit(1);
    }
    built_us = clock_mono_us() - built_us;
    uint64_t sum = 0;
    uint64_t us = clock_mono_us();
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < KEYS; i++) {
            sum += glob_index_find(index, keys[i]);
        }
    }
    us = clock_mono_us() - us;
    printf("%-28s %8.1f ns a lookup, %6lu us to build (%lu)\n", name, 1000.0 * (double)us / (ROUNDS * KEYS), (unsigned long)built_us,
           (unsigned long)(sum % 10));
    glob_index_destroy(&index);
}

int main(void)
{
    static char key_texts[KEYS][32];
    static char texts[GLOB_INDEX_RULES][32];
    static struct span keys[KEYS];
    static struct glob_rule rules[GLOB_INDEX_RULES];
    for (int i = 0; i < KEYS; i++) {
        keys[i] = span_of(key_texts[i], (size_t)snprintf(key_texts[i], sizeof key_texts[i], "user:%d:session:%d", i * 37 % 20000, i));
    }
    for (uint32_t i = 0; i < GLOB_INDEX_RULES; i++) {
        rules[i] = (struct glob_rule){span_of(texts[i], (size_t)snprintf(texts[i], sizeof texts[i], "user:%u:*", 2 * i)), i + 1};
    }
    measure("no rules", rules, 0, keys);
    measure("100 prefix rules", rules, 100, keys);
    measure("10,000 prefix rules", rules, GLOB_INDEX_RULES, keys);
    for (uint32_t i = 0; i < GLOB_INDEX_OTHERS; i++) {
        rules[i] = (struct glob_rule){span_of(texts[i], (size_t)snprintf(texts[i], sizeof texts[i], "*:%u:*:x", i)), i + 1};
    }
    measure("256 others, from the start", rules, GLOB_INDEX_OTHERS, keys);
    for (uint32_t i = 0; i < GLOB_INDEX_OTHERS; i++) {
        rules[i] = (struct glob_rule){span_of(texts[i], (size_t)snprintf(texts[i], sizeof texts[i], "user:%u:*:x", i)), i + 1};
    }
    measure("256 others, with a prefix", rules, GLOB_INDEX_OTHERS, keys);
    return 0;
}
