/* What:    CPU time of a process from the kernel's accounting: nanoseconds on the processor, over all its threads, from
 *          /proc/PID/task/N/schedstat, split into user and system as /proc/PID/stat has it (which counts in ticks of 10 ms).
 * Owns:    nothing.
 * Threads: any.
 * Fails:   false when there is no such process.
 */
#ifndef BENCH_CPU_H
#define BENCH_CPU_H

#include <stdbool.h>
#include <stdint.h>

struct cpu_usage {
    uint64_t run_ns;
    uint64_t user_ticks;
    uint64_t system_ticks;
};

bool cpu_read(int pid, struct cpu_usage *out);

struct cpu_seconds {
    double total;
    double user;
    double system;
};

struct cpu_seconds cpu_between(const struct cpu_usage *from, const struct cpu_usage *to);

#endif
