/* What: the load generator: memcached clients by the hundred in one thread.
 *
 *   load_options ─▶ requests (built beforehand) ─▶ driver (epoll; closed or open loop) ─▶ JSON on stdout
 *                                                    └─ client (one connection) ─ protocol (classic, meta, binary)
 *
 * Made to cost less than what it measures: one recv and one send per connection and wake-up, no allocation, replies skipped by their
 * known length. It still checks every reply: the right key, the value's length and both its ends.
 */
#include "common/base.h"
#include "tests/bench/driver.h"
#include "tests/bench/idle.h"
#include "tests/bench/load_options.h"
#include "tests/bench/value.h"

#include <sys/resource.h>

static double us(uint64_t ns)
{
    return (double)ns / 1000;
}

static void print_cpu(const char *name, const struct cpu_seconds *cpu)
{
    printf("  \"%s\": {\"total_s\": %.4f, \"user_s\": %.4f, \"system_s\": %.4f},\n", name, cpu->total, cpu->user, cpu->system);
}

static void print_json(const struct load_options *o, const struct tally *t)
{
    const struct histogram *h = &t->latency;
    printf("{\n  \"mode\": \"%s\", \"protocol\": \"%s\", \"connections\": %u, \"pipeline\": %u, \"multi_get\": %u,\n",
           o->rate > 0 ? "open" : "closed", o->protocol, o->connections, o->pipeline, o->multi_get);
    printf("  \"requests\": %lu, \"keys\": %lu, \"seconds\": %.4f, \"rps\": %.1f, \"keys_per_s\": %.1f,\n", (unsigned long)t->requests,
           (unsigned long)t->keys, t->seconds, t->seconds > 0 ? (double)t->requests / t->seconds : 0,
           t->seconds > 0 ? (double)t->keys / t->seconds : 0);
    printf("  \"hits\": %lu, \"misses\": %lu, \"stored\": %lu, \"errors\": %lu, \"unfinished\": %lu,\n", (unsigned long)t->hits,
           (unsigned long)t->misses, (unsigned long)t->stored, (unsigned long)t->errors, (unsigned long)t->unfinished);
    print_cpu("load_cpu", &t->own);
    if (o->watch_pid != 0)
        print_cpu("watched_cpu", &t->watched);
    printf("  \"latency_us\": {\"mean\": %.1f, \"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f}\n}\n",
           histogram_mean(h) / 1000, us(histogram_quantile(h, 0.5)), us(histogram_quantile(h, 0.99)),
           us(histogram_quantile(h, 0.999)), us(h->max));
}

static int complain(const struct load_options *o, const struct tally *t)
{
    int code = 0;
    if (t->errors > 0) {
        fprintf(stderr, "load: %lu errors, the first: %s\n", (unsigned long)t->errors, t->first_error);
        code = 1;
    }
    if (t->misses > 0 && !o->allow_misses) {
        fprintf(stderr, "load: %lu misses\n", (unsigned long)t->misses);
        code = 1;
    }
    if (t->unfinished > 0) {
        fprintf(stderr, "load: %lu requests not answered\n", (unsigned long)t->unfinished);
        code = 1;
    } else if (t->requests == 0 && o->rate == 0) { /* the server takes this protocol's requests for something unfinished, say */
        fprintf(stderr, "load: not one %s request was answered\n", o->protocol);
        code = 1;
    }
    return code;
}

/* Preloading goes over one connection with a deep pipeline, whatever the run itself is to look like. */
static bool preload(const struct run *run, struct tally *tally)
{
    struct run all = *run;
    all.is_preload = true;
    all.connections = 1;
    all.depth = 64;
    all.rate = 0;
    if (!driver_run(&all, tally))
        return false;
    if (tally->stored == all.requests->set_count)
        return true;
    fprintf(stderr, "load: only %lu of %u keys stored: %s\n", (unsigned long)tally->stored, all.requests->set_count,
            tally->first_error);
    return false;
}

static int run_all(const struct load_options *o, const struct protocol *protocol, const struct shape *shape, struct requests *requests)
{
    static struct tally tally;
    const struct run run = {.address = o->address, .protocol = protocol, .shape = shape, .requests = requests,
                            .connections = o->connections, .depth = o->pipeline, .warm_up = o->warm_up, .duration = o->duration,
                            .rate = o->rate, .is_poisson = o->is_poisson, .watch_pid = o->watch_pid};
    if (o->preload && !preload(&run, &tally))
        return 2;
    if (o->idle > 0)
        return idle_hold(o->address, o->idle, o->idle_used, protocol, shape, requests) ? 0 : 2;
    if (o->duration == 0)
        return 0;
    if (!driver_run(&run, &tally))
        return 2;
    print_json(o, &tally);
    return complain(o, &tally);
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    struct load_options o;
    load_options_parse(&o, argc, argv);
    const struct protocol *protocol = protocol_find(o.protocol);
    if (protocol == NULL) {
        fprintf(stderr, "load: no such protocol: %s\n", o.protocol);
        return 2;
    }
    raise_descriptor_limit();
    char *value = malloc(o.value_size + 3);
    if (value == NULL)
        return 2;
    value_fill(value, o.value_size);
    memcpy(value + o.value_size, "\r\n", 3);
    struct shape shape = {.prefix = o.prefix, .key_size = o.key_size, .value_size = o.value_size, .value = value,
                          .check_all = o.check_all};
    protocol->prepare(&shape);
    struct requests requests;
    requests_init(&requests, protocol, &shape, &(struct requests_options){.keys = o.keys, .multi_get = o.multi_get,
                                                                          .set_ratio = o.set_ratio, .seed = o.seed});
    int code = run_all(&o, protocol, &shape, &requests);
    requests_deinit(&requests);
    free(value);
    return code;
}
