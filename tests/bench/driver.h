/* What:    drives all connections of a run through one epoll loop, in one of two ways:
 *          closed loop: every connection keeps its pipeline full; what comes out is the throughput.
 *          open loop: requests are due by a schedule, whatever the server does; each one's latency counts from when it was due,
 *          so that a stalled server is charged for all that it held up (no coordinated omission).
 * Owns:    nothing beyond the run.
 * Threads: one.
 * Fails:   false with a line on stderr.
 */
#ifndef BENCH_DRIVER_H
#define BENCH_DRIVER_H

#include "tests/bench/cpu.h"
#include "tests/bench/histogram.h"
#include "tests/bench/requests.h"

struct run {
    const char *address;
    const struct protocol *protocol;
    const struct shape *shape;
    struct requests *requests;
    uint32_t connections;
    uint32_t depth;
    double warm_up;
    double duration;
    double rate; /* requests a second; 0: closed loop */
    bool is_poisson;
    bool is_preload; /* a SET of every key instead, once, untimed */
    int watch_pid;   /* whose CPU time to measure; 0: nobody's */
};

/* Of the requests that were measured: closed loop, those answered in the time after the warm-up; open loop, those due then. */
struct tally {
    double seconds;
    uint64_t requests;
    uint64_t keys;
    uint64_t hits;
    uint64_t misses;
    uint64_t stored;
    uint64_t errors;
    uint64_t unfinished; /* open loop: not answered within DRAIN_SECONDS after the end; their latency so far is counted */
    char first_error[128];
    struct histogram latency; /* ns */
    struct cpu_seconds own;
    struct cpu_seconds watched;
};

#define DRAIN_SECONDS 5

bool driver_run(const struct run *run, struct tally *out);

#endif
