/* What:    the load generator's command line.
 * Owns:    nothing; strings are argv's.
 * Threads: any.
 * Fails:   ends the process with 2 and a line on stderr.
 */
#ifndef BENCH_LOAD_OPTIONS_H
#define BENCH_LOAD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct load_options {
    const char *address;
    const char *protocol;
    const char *prefix;
    uint32_t connections;
    uint32_t pipeline;
    uint32_t keys;
    uint32_t key_size;
    uint32_t value_size;
    uint32_t multi_get;
    uint32_t idle; /* hold so many connections instead of a run */
    bool idle_used; /* each has had one GET answered */
    double set_ratio;
    double duration;
    double warm_up;
    double rate;
    bool is_poisson;
    bool preload;
    bool allow_misses;
    bool check_all;
    uint64_t seed;
    int watch_pid;
};

void load_options_parse(struct load_options *o, int argc, char **argv);

#endif
