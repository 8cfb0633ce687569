#include "proxy/app/options.h"

#include <getopt.h>

#include "common/config.h"

static const char help[] =
    "outrigger " OUTRIGGER_VERSION " - a memcached sidecar: one multi-region cache out of a memcached pool per region,\n"
    "MySQL as the source of truth, and NATS JetStream as the invalidation bus.\n"
    "\n"
    "Usage:\n"
    "  outrigger --config FILE            run with a configuration file\n"
    "  outrigger --config FILE --check    check the file, print every problem with its line, and exit (0: it is good, 2: it is not)\n"
    "  outrigger --config FILE --check --database   the same, and every mapped table in the database, too\n"
    "  outrigger --config FILE --init-database      create the built-in tables that are not there (deploy/schema.sql), and exit\n"
    "  outrigger --pool HOST:PORT,…       run as a plain memcached endpoint for these nodes, without a file\n"
    "            [--listen ADDRESS,…]     where to listen then: host:port or unix:/path (default 127.0.0.1:11211)\n"
    "  outrigger --help | --version\n"
    "\n"
    "Signals: SIGTERM and SIGINT let clients finish what is under way (5 s at most), then end the process.\n"
    "         SIGHUP reads the TLS certificate and key again; so does a change of their files.\n"
    "Exit status: 0 after a clean end, 1 when it could not start or the database could not be reached, 2 for a bad command line,\n"
    "configuration or table.\n"
    "\n"
    "Options of the configuration file (deploy/outrigger.yaml shows them all in place):\n";

enum err options_parse(int argc, char **argv, struct options *out)
{
    static const struct option known[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'}, {"pool", required_argument, NULL, 'p'},
        {"database", no_argument, NULL, 'd'},     {"init-database", no_argument, NULL, 'i'},
        {"listen", required_argument, NULL, 'l'}, {"help", no_argument, NULL, 'h'},  {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    *out = (struct options){.action = ACTION_RUN};
    bool with_database = false;
    int c;
    while ((c = getopt_long(argc, argv, "c:p:l:hV", known, NULL)) != -1) {
        switch (c) {
        case 'c':
            out->config = optarg;
            break;
        case 'k':
            out->action = ACTION_CHECK;
            break;
        case 'd':
            with_database = true;
            break;
        case 'i':
            out->action = ACTION_INIT_DATABASE;
            break;
        case 'p':
            out->pool = optarg;
            break;
        case 'l':
            out->listen = optarg;
            break;
        case 'h':
            out->action = ACTION_HELP;
            return OK;
        case 'v':
        case 'V':
            out->action = ACTION_VERSION;
            return OK;
        default:
            fprintf(stderr, "Try: outrigger --help\n");
            return ERR_CONFIG;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "outrigger: unexpected argument \"%s\"\nTry: outrigger --help\n", argv[optind]);
        return ERR_CONFIG;
    }
    if ((out->config != NULL) == (out->pool != NULL)) {
        fprintf(stderr, "outrigger: give either --config FILE or --pool HOST:PORT,…\nTry: outrigger --help\n");
        return ERR_CONFIG;
    }
    if (with_database && out->action != ACTION_CHECK) {
        fprintf(stderr, "outrigger: --database goes with --check\n");
        return ERR_CONFIG;
    }
    if ((with_database || out->action == ACTION_INIT_DATABASE) && out->config == NULL) {
        fprintf(stderr, "outrigger: that needs --config FILE with a database section\n");
        return ERR_CONFIG;
    }
    out->action = with_database ? ACTION_CHECK_DATABASE : out->action;
    if (out->config != NULL && out->listen != NULL) {
        fprintf(stderr, "outrigger: --listen goes with --pool; with --config the file says where to listen\n");
        return ERR_CONFIG;
    }
    return OK;
}

void options_print_help(void)
{
    fputs(help, stdout);
    config_describe(stdout);
}
