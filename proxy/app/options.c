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
    "  outrigger --pool HOST:PORT,…       run as a plain memcached endpoint for these nodes, without a file\n"
    "            [--listen ADDRESS,…]     where to listen then: host:port or unix:/path (default 127.0.0.1:11211)\n"
    "  outrigger --help | --version\n"
    "\n"
    "Signals: SIGTERM and SIGINT let clients finish what is under way (5 s at most), then end the process.\n"
    "         SIGHUP reads the TLS certificate and key again; so does a change of their files.\n"
    "Exit status: 0 after a clean end, 1 when it could not start, 2 for a bad command line or configuration.\n"
    "\n"
    "Options of the configuration file (deploy/outrigger.yaml shows them all in place):\n";

enum err options_parse(int argc, char **argv, struct options *out)
{
    static const struct option known[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'}, {"pool", required_argument, NULL, 'p'},
        {"listen", required_argument, NULL, 'l'}, {"help", no_argument, NULL, 'h'},  {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    *out = (struct options){.action = ACTION_RUN};
    int c;
    while ((c = getopt_long(argc, argv, "c:p:l:hV", known, NULL)) != -1) {
        switch (c) {
        case 'c':
            out->config = optarg;
            break;
        case 'k':
            out->action = ACTION_CHECK;
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
