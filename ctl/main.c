/* What:    outriggerctl's command line.
 *
 *   outriggerctl [OPTION...] COMMAND [ARGUMENT...]     exit status: 0 done, 1 not found or failed, 2 usage, 3 the sidecar can not be reached
 */
#include <getopt.h>
#include <stdlib.h>

#include "common/config_address.h"
#include "common/config_value.h"
#include "ctl/commands.h"
#include "ctl/lag.h"

#define DEFAULT_ADDRESS "127.0.0.1:9411"
#define DEFAULT_PORT 9411
#define COMMON_OPTIONS "haTjs"
#define ANSWER_MS 30000U
#define TIME_MAX_MS 3600000U

static const struct option_help {
    char letter;
    const char *name;
    const char *argument; /* NULL: none */
    const char *help;
} options[] = {
    {'a', "address", "ADDRESS", "host:port, http://host:port or unix:/path of admin.listen; $OUTRIGGER_ADMIN or " DEFAULT_ADDRESS},
    {'T', "token-file", "FILE", "a file that holds admin.token; $OUTRIGGER_TOKEN_FILE"},
    {'j', "json", NULL, "what the sidecar answers, as it is"},
    {'s', "timeout", "TIME", "for an answer, or with --wait for every region: seconds, or as 250ms; 30"},
    {'h', "help", NULL, "this, or that of a command"},
    {'p', "peek", NULL, "what the cache has, without loading: shows tombstones and leases too"},
    {'i', "info", NULL, "what is known of the entry, instead of its value alone"},
    {'t', "ttl", "SECONDS", "until it expires; 0: never (the default)"},
    {'f', "flags", "NUMBER", "client flags; 0"},
    {'P', "pattern", "PATTERN", "a glob of keys: * ? [...] \\; may be given more than once"},
    {'w', "wait", NULL, "until every region has applied it; shows which have not, and fails if one has not by --timeout"},
    {'W', "wait-sweep", NULL, "until the pool has been swept; shows how far that is"},
    {'o', "once", NULL, "one screen, then the end"},
    {'n', "interval", "TIME", "between two looks (2), or from one invalidation to the next (20ms)"},
    {'c', "count", "NUMBER", "of invalidations; 100"},
};

static void print_option(FILE *out, const struct option_help *option)
{
    char text[40];
    snprintf(text, sizeof text, "--%s%s%s", option->name, option->argument != NULL ? " " : "", option->argument != NULL ? option->argument : "");
    fprintf(out, "  %-24s %s\n", text, option->help);
}

static void print_options(FILE *out, const char *letters)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (strchr(letters, options[i].letter) != NULL) {
            print_option(out, &options[i]);
        }
    }
}

static void print_usage(FILE *out)
{
    fputs("usage: outriggerctl [OPTION...] COMMAND [ARGUMENT...]\n\nAsks a sidecar's admin API.\n\n", out);
    for (uint32_t i = 0; i < command_count; i++) {
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    }
    fputs("\noptions, before or behind the command:\n", out);
    print_options(out, COMMON_OPTIONS);
    fputs("\n`outriggerctl COMMAND --help` tells more. Exit status: 0 done, 1 not found or failed, 2 usage, 3 not reached.\n", out);
}

static void print_command(FILE *out, const struct command *command)
{
    fprintf(out, "usage: outriggerctl %s %s\n\n%s\n\n", command->name, command->synopsis, command->help);
    print_options(out, command->options);
    print_options(out, COMMON_OPTIONS);
}

/* Seconds, or a duration as the configuration has them. */
static bool parse_time(const char *text, unsigned *out_ms)
{
    struct reason why;
    uint64_t value;
    bool is_number = strspn(text, "0123456789") == strlen(text);
    enum err err = is_number ? config_value_number(text, 1, TIME_MAX_MS / 1000, &value, &why) : config_value_duration(text, 1000, 1, TIME_MAX_MS, &value, &why);
    *out_ms = err == OK ? (unsigned)(is_number ? 1000 * value : value) : 0;
    return err == OK;
}

/* The command is the first word that is no option; what it does not take is refused later. */
struct line {
    struct arguments arguments;
    const struct command *command;
    const char *token_file;
    char used[ARRAY_LEN(options) + 1]; /* letters of the options that were given */
    bool wants_help;
};

static enum exit_status take_option(struct line *line, int letter)
{
    struct arguments *a = &line->arguments;
    struct reason why;
    uint64_t count;
    if (strchr(line->used, letter) == NULL) {
        line->used[strlen(line->used)] = (char)letter;
    }
    switch (letter) {
    case 'a': a->address = optarg; break;
    case 'T': line->token_file = optarg; break;
    case 'j': a->is_json = true; break;
    case 'h': line->wants_help = true; break;
    case 'p': a->is_peek = true; break;
    case 'i': a->is_info = true; break;
    case 't': a->ttl = optarg; break;
    case 'f': a->flags = optarg; break;
    case 'w': a->is_wait = true; break;
    case 'W': a->is_wait_sweep = true; break;
    case 'o': a->is_once = true; break;
    case 's':
    case 'n':
        if (!parse_time(optarg, letter == 's' ? &a->timeout_ms : &a->interval_ms)) {
            fputs("outriggerctl: a time is a number of seconds or a duration like 250ms, an hour at most\n", stderr);
            return EXIT_USAGE;
        }
        break;
    case 'c':
        if (config_value_number(optarg, 1, LAG_COUNT_MAX, &count, &why) != OK) {
            fprintf(stderr, "outriggerctl: --count %s\n", why.text);
            return EXIT_USAGE;
        }
        a->count = (unsigned)count;
        break;
    case 'P':
        if (a->pattern_count == WORDS_MAX) {
            return EXIT_USAGE;
        }
        a->patterns[a->pattern_count++] = optarg;
        break;
    default: return EXIT_USAGE; /* getopt has said why */
    }
    return EXIT_DONE;
}

static enum exit_status take_word(struct line *line, const char *word)
{
    struct arguments *a = &line->arguments;
    if (line->command != NULL) {
        if (a->word_count == WORDS_MAX) {
            fputs("outriggerctl: too many arguments\n", stderr);
            return EXIT_USAGE;
        }
        a->words[a->word_count++] = word;
        return EXIT_DONE;
    }
    for (uint32_t i = 0; i < command_count; i++) {
        if (strcmp(commands[i].name, word) == 0) {
            line->command = &commands[i];
            return EXIT_DONE;
        }
    }
    fprintf(stderr, "outriggerctl: no command \"%s\"; outriggerctl --help lists them\n", word);
    return EXIT_USAGE;
}

static enum exit_status parse(struct line *line, int argc, char **argv)
{
    struct option longs[ARRAY_LEN(options) + 1] = {{.name = NULL}};
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        longs[i] = (struct option){options[i].name, options[i].argument != NULL, NULL, options[i].letter};
    }
    enum exit_status status = EXIT_DONE;
    while (status == EXIT_DONE && optind < argc) {
        bool is_end = strcmp(argv[optind], "--") == 0;
        int letter = getopt_long(argc, argv, "+h", longs, NULL); /* '+': words come one by one, in their place */
        if (letter >= 0) {
            status = take_option(line, letter);
        } else if (!is_end) {
            status = take_word(line, argv[optind++]);
        } else {
            while (status == EXIT_DONE && optind < argc) {
                status = take_word(line, argv[optind++]);
            }
        }
    }
    return status;
}

static enum exit_status check(const struct line *line)
{
    const struct command *command = line->command;
    uint32_t words = line->arguments.word_count;
    for (const char *p = line->used; *p != '\0'; p++) {
        if (strchr(COMMON_OPTIONS, *p) == NULL && strchr(command->options, *p) == NULL) {
            fprintf(stderr, "outriggerctl: %s does not take one of these options; see outriggerctl %s --help\n", command->name, command->name);
            return EXIT_USAGE;
        }
    }
    if (words < command->words_min || words > command->words_max) {
        fprintf(stderr, "usage: outriggerctl %s %s\n", command->name, command->synopsis);
        return EXIT_USAGE;
    }
    return EXIT_DONE;
}

static enum exit_status find_server(struct line *line)
{
    struct arguments *a = &line->arguments;
    struct reason why;
    const char *address = a->address;
    if (strncmp(address, "http://", 7) == 0) {
        address += 7;
    }
    if (config_address_parse(address, DEFAULT_PORT, &a->server.address, &why) != OK) {
        fprintf(stderr, "outriggerctl: --address %s\n", why.text);
        return EXIT_USAGE;
    }
    if (line->token_file != NULL && config_value_secret(line->token_file, &a->server.token, &why) != OK) {
        fprintf(stderr, "outriggerctl: --token-file: %s\n", why.text);
        return EXIT_USAGE;
    }
    for (const char *p = a->server.token; p != NULL && *p != '\0'; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f) {
            fputs("outriggerctl: --token-file: a token has visible ASCII characters only\n", stderr);
            return EXIT_USAGE;
        }
    }
    return EXIT_DONE;
}

static enum exit_status run(struct line *line, int argc, char **argv)
{
    enum exit_status status = parse(line, argc, argv);
    if (status == EXIT_DONE && line->wants_help) {
        line->command != NULL ? print_command(stdout, line->command) : print_usage(stdout);
        return EXIT_DONE;
    }
    if (status == EXIT_DONE && line->command == NULL) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    status = status == EXIT_DONE ? check(line) : status;
    status = status == EXIT_DONE ? find_server(line) : status;
    struct arguments *a = &line->arguments;
    bool is_regions = a->is_wait || (line->command != NULL && line->command->run == lag_run); /* the sidecar knows when their time is up */
    a->server.timeout_ms = is_regions ? a->timeout_ms + 2 * ANSWER_MS : a->timeout_ms != 0 ? a->timeout_ms : ANSWER_MS;
    return status == EXIT_DONE ? line->command->run(&line->arguments) : status;
}

int main(int argc, char **argv)
{
    const char *address = getenv("OUTRIGGER_ADMIN");
    struct line *line = xcalloc(1, sizeof *line);
    line->arguments = (struct arguments){.address = address != NULL ? address : DEFAULT_ADDRESS, .ttl = "0", .flags = "0"};
    line->token_file = getenv("OUTRIGGER_TOKEN_FILE");
    enum exit_status status = run(line, argc, argv);
    char *token = line->arguments.server.token;
    if (token != NULL) {
        explicit_bzero(token, strlen(token));
        free(token);
    }
    config_address_free(&line->arguments.server.address);
    free(line);
    if (fflush(stdout) != 0 && status == EXIT_DONE) {
        perror("outriggerctl");
        return EXIT_FAILED;
    }
    return (int)status;
}
