/* What:    outriggerctl's commands: a table, and a function for each.
 * Owns:    nothing.
 * Threads: the main thread.
 * Fails:   with an exit status and a line on stderr.
 */
#ifndef CTL_COMMANDS_H
#define CTL_COMMANDS_H

#include "ctl/client.h"

enum exit_status { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE };

#define WORDS_MAX 1024

/* The command line, sorted out. */
struct arguments {
    struct server server;
    const char *address; /* as given */
    bool is_json;
    bool is_peek;
    bool is_info;
    bool is_wait;       /* for the other regions */
    bool is_wait_sweep; /* for the pool to be swept */
    bool is_once;
    const char *ttl;
    const char *flags;
    unsigned interval_ms; /* 0: not given; so the next two */
    unsigned timeout_ms;
    unsigned count;
    const char *words[WORDS_MAX];
    uint32_t word_count;
    const char *patterns[WORDS_MAX];
    uint32_t pattern_count;
};

struct command {
    const char *name;
    const char *synopsis;
    const char *help;
    const char *options; /* those that it takes, besides the common ones: letters of main.c's table */
    uint32_t words_min;
    uint32_t words_max;
    enum exit_status (*run)(const struct arguments *arguments);
};

extern const struct command commands[];
extern const uint32_t command_count;

/* Asks, and tells on stderr what went wrong if it did: EXIT_DONE with the answer to be freed, whatever its status, or EXIT_UNREACHABLE. */
enum exit_status command_ask(const struct arguments *arguments, const struct question *question, struct answer *answer);

/* The text of /metrics, malloc'ed; NULL with another status than EXIT_DONE. */
enum exit_status command_fetch_metrics(const struct arguments *arguments, char **text);

#endif
