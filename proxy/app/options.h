/* What:    the command line.
 * Fails:   ERR_CONFIG, with what was wrong written to stderr.
 */
#ifndef PROXY_APP_OPTIONS_H
#define PROXY_APP_OPTIONS_H

#include "common/err.h"

enum action { ACTION_RUN, ACTION_CHECK, ACTION_CHECK_DATABASE, ACTION_INIT_DATABASE, ACTION_HELP, ACTION_VERSION };

struct options {
    enum action action;
    const char *config; /* a file, or NULL */
    const char *pool;   /* without a file: the nodes */
    const char *listen; /* without a file: where to listen, or NULL */
};

enum err options_parse(int argc, char **argv, struct options *out);
void options_print_help(void);

#endif
