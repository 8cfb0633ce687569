#include "tests/bench/load_options.h"

#include "tests/bench/protocol.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: load ADDRESS [option…]        ADDRESS: 127.0.0.1:11211 or unix:/path\n"
    "  --connections N   (1)              --pipeline N     requests under way on each (1)\n"
    "  --keys N          (10000)          --key-size N     bytes (64)\n"
    "  --value-size N    bytes (1024)     --prefix TEXT    of every key (bench:)\n"
    "  --multi-get N     keys a GET (1)   --set-ratio X    share of SETs, 0 to 1 (0)\n"
    "  --warm-up S       (0.5)            --duration S     measured time (3); 0: none, for --preload alone\n"
    "  --rate R          open loop, R requests a second in all; without it, closed loop\n"
    "  --schedule KIND   of the open loop: poisson (default), uniform\n"
    "  --preload         first SET every key\n"
    "  --allow-misses    a miss is no failure\n"
    "  --check-all       compare whole values, not only their ends\n"
    "  --watch-pid PID   measure that process's CPU time too\n"
    "  --protocol NAME   classic (default), meta, meta-bare (no opaques: whose value came is not checked), binary\n"
    "  --seed N          of the random choice of keys (1)\n"
    "  --idle N          open N connections, print \"ready\", hold them until stdin closes\n"
    "  --idle-used N     the same, after one GET on each\n"
    "Prints a JSON object. Exits 1 when anything but what was asked for came back, 2 on a broken connection or option.\n";

enum option_id {
    CONNECTIONS = 1, PIPELINE, KEYS, KEY_SIZE, VALUE_SIZE, PREFIX, MULTI_GET, SET_RATIO, WARM_UP, DURATION, RATE, SCHEDULE,
    PRELOAD, ALLOW_MISSES, CHECK_ALL, WATCH_PID, PROTOCOL, SEED, IDLE, IDLE_USED, HELP
};

static const struct option options[] = {
    {"connections", required_argument, NULL, CONNECTIONS}, {"pipeline", required_argument, NULL, PIPELINE},
    {"keys", required_argument, NULL, KEYS},               {"key-size", required_argument, NULL, KEY_SIZE},
    {"value-size", required_argument, NULL, VALUE_SIZE},   {"prefix", required_argument, NULL, PREFIX},
    {"multi-get", required_argument, NULL, MULTI_GET},     {"set-ratio", required_argument, NULL, SET_RATIO},
    {"warm-up", required_argument, NULL, WARM_UP},         {"duration", required_argument, NULL, DURATION},
    {"rate", required_argument, NULL, RATE},               {"schedule", required_argument, NULL, SCHEDULE},
    {"preload", no_argument, NULL, PRELOAD},               {"allow-misses", no_argument, NULL, ALLOW_MISSES},
    {"check-all", no_argument, NULL, CHECK_ALL},           {"watch-pid", required_argument, NULL, WATCH_PID},
    {"protocol", required_argument, NULL, PROTOCOL},       {"seed", required_argument, NULL, SEED},
    {"idle", required_argument, NULL, IDLE},               {"idle-used", required_argument, NULL, IDLE_USED},
    {"help", no_argument, NULL, HELP},                     {NULL, 0, NULL, 0},
};

static void refuse(const char *what, const char *value)
{
    fprintf(stderr, "load: %s: %s (see --help)\n", what, value);
    exit(2);
}

static uint32_t number(const char *name, const char *text, uint32_t least)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end != '\0' || end == text || *text == '-' || n < least || n > 1000000000UL)
        refuse(name, text);
    return (uint32_t)n;
}

static double decimal(const char *name, const char *text)
{
    char *end;
    double x = strtod(text, &end);
    if (*end != '\0' || end == text || !(x >= 0 && x < 1e9))
        refuse(name, text);
    return x;
}

static void take(struct load_options *o, int id, const char *name)
{
    switch (id) {
    case CONNECTIONS: o->connections = number(name, optarg, 1); break;
    case PIPELINE: o->pipeline = number(name, optarg, 1); break;
    case KEYS: o->keys = number(name, optarg, 1); break;
    case KEY_SIZE: o->key_size = number(name, optarg, KEY_TAIL); break;
    case VALUE_SIZE: o->value_size = number(name, optarg, 0); break;
    case PREFIX: o->prefix = optarg; break;
    case MULTI_GET: o->multi_get = number(name, optarg, 1); break;
    case SET_RATIO: o->set_ratio = decimal(name, optarg); break;
    case WARM_UP: o->warm_up = decimal(name, optarg); break;
    case DURATION: o->duration = decimal(name, optarg); break;
    case RATE: o->rate = decimal(name, optarg); break;
    case SCHEDULE:
        o->is_poisson = strcmp(optarg, "poisson") == 0;
        if (!o->is_poisson && strcmp(optarg, "uniform") != 0)
            refuse(name, optarg);
        break;
    case PRELOAD: o->preload = true; break;
    case ALLOW_MISSES: o->allow_misses = true; break;
    case CHECK_ALL: o->check_all = true; break;
    case WATCH_PID: o->watch_pid = (int)number(name, optarg, 1); break;
    case PROTOCOL: o->protocol = optarg; break;
    case SEED: o->seed = number(name, optarg, 0); break;
    case IDLE_USED: o->idle_used = true; o->idle = number(name, optarg, 1); break;
    case IDLE: o->idle = number(name, optarg, 1); break;
    case HELP: fputs(usage, stdout); exit(0);
    default: fputs(usage, stderr); exit(2);
    }
}

static void check(const struct load_options *o)
{
    if (o->key_size > KEY_MAX || o->key_size < strlen(o->prefix) + KEY_TAIL)
        refuse("key size", "at most 250, and room for the prefix and 8 digits");
    if (o->keys > 100000000 || o->multi_get > o->keys)
        refuse("keys", "at most 100,000,000, and no fewer than a multi-get has");
    if (o->set_ratio > 1)
        refuse("set ratio", "0 to 1");
}

void load_options_parse(struct load_options *o, int argc, char **argv)
{
    *o = (struct load_options){.protocol = "classic", .prefix = "bench:", .connections = 1, .pipeline = 1, .keys = 10000,
                               .key_size = 64, .value_size = 1024, .multi_get = 1, .duration = 3, .warm_up = 0.5,
                               .is_poisson = true, .seed = 1};
    int id, index = 0;
    while ((id = getopt_long(argc, argv, "", options, &index)) != -1)
        take(o, id, id > 0 && id < HELP ? options[index].name : "option");
    if (optind + 1 != argc) {
        fputs(usage, stderr);
        exit(2);
    }
    o->address = argv[optind];
    check(o);
}
